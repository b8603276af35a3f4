"""A store's file in the hands of one thread."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from ..errors import StoreConflict, StoreError
from .base import Delete, Put, Record
from .file import open_file, set_aside, transaction
from .layouts import LAYOUT, Damaged, decode, encode
from .lock import Lock
from .patience import Attempt
from .reasons import explain, is_damage

_logger = logging.getLogger(__name__)

_GET = "SELECT key, value, version FROM record WHERE key = ?"
_SCAN = """
SELECT key, value, version FROM record WHERE substr(key, 1, ?) = ? ORDER BY key
"""
_PUT = "INSERT OR REPLACE INTO record (key, value, version) VALUES (?, ?, ?)"
#: The value and the version of a record.
_Row: TypeAlias = tuple[str, int]


class Journal:
    """Reads and writes the records of a file. All of its methods block.

    :param path: path of the file
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._lock: Lock | None = None
        self._lost = ""

    def open(self) -> None:
        """Open the file; make it if it is missing.

        :raises StoreError: if that is not possible
        """
        try:
            # what belongs to the file is beside it, and not beside a link to it
            self._path = Path(os.path.realpath(self._path))
            self._connection, self._lock = open_file(self._path)
        except (sqlite3.Error, OSError) as exc:
            raise StoreError(explain(self._path, exc)) from exc

    def close(self) -> None:
        """Close the file, and let others open it."""
        self._disconnect()
        if self._lock is not None:
            lock, self._lock = self._lock, None
            lock.release()

    def get(self, key: str) -> Record | None:
        """Return the record of a key, or None."""
        with self._reporting() as connection:
            row = connection.execute(_GET, (key,)).fetchone()
            return _record(row) if row else None

    def scan(self, prefix: str) -> tuple[Record, ...]:
        """Return all records whose keys start with a prefix, in the order of keys."""
        with self._reporting() as connection:
            rows = connection.execute(_SCAN, (len(prefix), prefix))
            return tuple(_record(row) for row in rows)

    def write(self, changes: Sequence[Put | Delete], attempt: Attempt) -> None:
        """Make all of the changes, or none of them.

        What has been given up by the time when it is done is taken back.
        """
        # what cannot be encoded is the caller's fault, and not the file's
        rows = [(change, _encoded(change)) for change in changes]
        durable = any(change.durable for change in changes)
        with self._reporting() as connection:
            if durable:
                connection.execute("PRAGMA synchronous = FULL")
            try:
                with self._transaction(connection):
                    before = [_change(connection, *row) for row in rows]
                if not attempt.decide():
                    self._take_back(connection, before)
            finally:
                if durable:
                    connection.execute("PRAGMA synchronous = NORMAL")

    def _take_back(
        self, connection: sqlite3.Connection, before: list[tuple[str, _Row | None]]
    ) -> None:
        """Undo what nobody waits for any more."""
        try:
            with self._transaction(connection):
                for key, row in reversed(before):
                    _set(connection, key, row)
        except sqlite3.Error as exc:
            _logger.error(
                "what came too late stays: %s: %s",
                explain(self._path, exc),
                ", ".join(key for key, _ in before),
            )
        else:
            _logger.warning("store %s: what came too late is undone", self._path)

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        try:
            with transaction(connection):
                yield
        except sqlite3.Error:
            self._void(connection)
            raise

    def _void(self, connection: sqlite3.Connection) -> None:
        """Write over what a transaction that failed may have left in the file.

        SQLite has forgotten it, but would take it for complete if it had to recover the
        file after a crash.
        """
        try:
            # it need not reach the disk, which may be what has failed
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA user_version = {LAYOUT}")
        except sqlite3.Error as exc:
            _logger.warning("%s", explain(self._path, exc))

    @contextmanager
    def _reporting(self) -> Iterator[sqlite3.Connection]:
        """Have errors say what to do; move a file aside that is damaged."""
        if self._connection is None:
            raise StoreError(self._lost or f"store {self._path} is not open")
        try:
            yield self._connection
        except (sqlite3.Error, Damaged) as exc:
            if isinstance(exc, sqlite3.Error) and not is_damage(exc):
                raise StoreError(explain(self._path, exc)) from exc
            error = set_aside(self._path, exc)
            self._disconnect()
            self._lost = str(error)
            raise error from exc

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()


def _record(row: tuple[bytes, bytes, int]) -> Record:
    key, value, version = row
    return Record(key.decode(errors="replace"), decode(value), version)


def _encoded(change: Put | Delete) -> str | None:
    return encode(change.value) if isinstance(change, Put) else None


def _change(
    connection: sqlite3.Connection, change: Put | Delete, value: str | None
) -> tuple[str, _Row | None]:
    """Make one change.

    :return: the key, and what was there before
    """
    row = connection.execute(_GET, (change.key,)).fetchone()
    found: int = row[2] if row else 0
    if change.version is not None and change.version != found:
        raise StoreConflict(f"{change.key} has version {found}, not {change.version}")
    _set(connection, change.key, None if value is None else (value, found + 1))
    return change.key, (row[1].decode(), found) if row else None


def _set(connection: sqlite3.Connection, key: str, row: _Row | None) -> None:
    if row is None:
        connection.execute("DELETE FROM record WHERE key = ?", (key,))
    else:
        connection.execute(_PUT, (key, *row))
