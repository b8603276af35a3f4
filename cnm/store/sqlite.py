"""A store in an SQLite file."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import ClassVar, TypeVar

from ..errors import StoreConflict, StoreError
from ..workers import Workers
from .base import Delete, Put, Record, Store

T = TypeVar("T")

#: Layout of the file, kept in SQLite's user_version.
_LAYOUT = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, version INTEGER NOT NULL
) WITHOUT ROWID
"""
_PUT = """
INSERT INTO record (key, value, version) VALUES (?, ?, 1)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = version + 1
"""


class SQLiteStore(Store):
    """Keeps records in an SQLite file, which one controller has open at a time.

    A transaction survives the death of the process. The file is made, readable by its
    owner alone, if it is missing.

    :param path: path of the file
    """

    persistent: ClassVar[bool] = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._thread: Workers[sqlite3.Connection] | None = None

    async def open(self) -> None:
        """Open the file.

        :raises StoreError: if it cannot be made or read, is not a store, was written
            by a later version, or is open already
        """
        if self._thread is not None:
            raise StoreError(f"store {self._path} is already open")
        # one thread, which is the only one to touch the connection
        self._thread = Workers("cnm-store", 1, self._connect, sqlite3.Connection.close)
        try:
            await self._run(sqlite3.Connection.commit)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the file."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await thread.close()

    async def get(self, key: str) -> Record | None:
        """Return the record of a key, or None."""
        query = "SELECT key, value, version FROM record WHERE key = ?"
        rows = await self._run(lambda c: c.execute(query, (key,)).fetchall())
        return _record(rows[0]) if rows else None

    async def scan(self, prefix: str) -> tuple[Record, ...]:
        """Return all records whose keys start with a prefix, in the order of keys."""
        query = (
            "SELECT key, value, version FROM record"
            " WHERE substr(key, 1, ?) = ? ORDER BY key"
        )
        rows = await self._run(
            lambda c: c.execute(query, (len(prefix), prefix)).fetchall()
        )
        return tuple(_record(row) for row in rows)

    async def transaction(self, *changes: Put | Delete) -> None:
        """Make all of the changes, or none of them."""
        await self._run(lambda connection: _apply(connection, changes))

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite would make the file with the umask's permissions
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN EXCLUSIVE")
            (layout,) = connection.execute("PRAGMA user_version").fetchone()
            if layout > _LAYOUT:
                raise StoreError(
                    f"store {self._path} has layout {layout}; "
                    f"this version of cnm knows layouts up to {_LAYOUT}"
                )
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {_LAYOUT}")
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._thread is None:
            raise StoreError(f"store {self._path} is not open")
        try:
            return await self._thread.run(work)
        except (sqlite3.Error, OSError) as exc:
            reason = "it is already open" if "locked" in str(exc) else str(exc)
            raise StoreError(f"store {self._path}: {reason}") from exc


def _record(row: tuple[str, str, int]) -> Record:
    key, value, version = row
    return Record(key, json.loads(value), version)


def _apply(connection: sqlite3.Connection, changes: tuple[Put | Delete, ...]) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        try:
            for change in changes:
                _expect(cursor, change)
                if isinstance(change, Put):
                    value = json.dumps(change.value, separators=(",", ":"))
                    cursor.execute(_PUT, (change.key, value))
                else:
                    cursor.execute("DELETE FROM record WHERE key = ?", (change.key,))
            cursor.execute("COMMIT")
        except BaseException:
            cursor.execute("ROLLBACK")
            raise


def _expect(cursor: sqlite3.Cursor, change: Put | Delete) -> None:
    if change.version is None:
        return
    query = "SELECT version FROM record WHERE key = ?"
    row = cursor.execute(query, (change.key,)).fetchone()
    found = row[0] if row else 0
    if found != change.version:
        raise StoreConflict(f"{change.key} has version {found}, not {change.version}")
