"""Stores: where a controller keeps its journal."""

from .base import Delete, Put, Record, Store
from .memory import MemoryStore
from .sqlite import SQLiteStore

__all__ = ["Delete", "MemoryStore", "Put", "Record", "SQLiteStore", "Store"]
