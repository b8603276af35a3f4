"""Stores: where a controller keeps its journal."""

from .base import Delete as Delete
from .base import Put as Put
from .base import Record as Record
from .base import Store as Store
from .memory import MemoryStore as MemoryStore
from .sqlite import SQLiteStore as SQLiteStore

__all__ = ["Delete", "MemoryStore", "Put", "Record", "SQLiteStore", "Store"]
