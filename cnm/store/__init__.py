"""Stores: where a controller keeps its journal.

That in an SQLite file is in ``sqlite``.
"""

from .base import Delete, Put, Record, Store
from .memory import MemoryStore

__all__ = ["Delete", "MemoryStore", "Put", "Record", "Store"]
