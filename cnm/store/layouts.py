"""Layouts of a store's file, and how one becomes the next."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from enum import Enum, auto

from ..types import JSON

#: Says in SQLite's application_id that a file is a store: "cnmS".
APPLICATION = int.from_bytes(b"cnmS", "big")

_SCHEMA = """
CREATE TABLE record (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, version INTEGER NOT NULL
) WITHOUT ROWID
"""


class Damaged(Exception):
    """What is in the file cannot be right."""


class Owner(Enum):
    """Whose an SQLite file is."""

    OURS = auto()
    NOBODY = auto()
    OTHER = auto()


def owner(connection: sqlite3.Connection) -> Owner:
    """Tell whose a file is. Nothing is written.

    :raises sqlite3.Error: if it is no database, or cannot be read
    """
    application = _pragma(connection, "application_id")
    if application == APPLICATION:
        return Owner.OURS
    tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    layout = layout_of(connection)
    if application == 0 and not tables and layout == 0:
        return Owner.NOBODY
    # the first layout did not say whose it is
    first = application == 0 and layout == 1 and tables == [(b"record",)]
    columns = connection.execute("SELECT name FROM pragma_table_info('record')")
    if first and columns.fetchall() == [(b"key",), (b"value",), (b"version",)]:
        return Owner.OURS
    return Owner.OTHER


def layout_of(connection: sqlite3.Connection) -> int:
    """Return the layout of a file, which is kept in SQLite's user_version."""
    return _pragma(connection, "user_version")


def create(connection: sqlite3.Connection) -> None:
    """Make an empty file a store, in the transaction that the caller has begun."""
    connection.execute(_SCHEMA)
    _set_layout(connection, LAYOUT)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a file to the newest layout, in the transaction of the caller.

    :raises Damaged: if a record cannot be read
    """
    for layout in range(layout_of(connection), LAYOUT):
        _STEPS[layout](connection)
        _set_layout(connection, layout + 1)


def decode(value: bytes) -> Mapping[str, JSON]:
    """Return the value of a record.

    :raises Damaged: if it is none
    """
    try:
        decoded = json.loads(value)
    except ValueError as exc:
        raise Damaged(f"a record is {value[:40]!r}...") from exc
    if not isinstance(decoded, dict):
        raise Damaged(f"a record is {value[:40]!r}")
    return decoded


def encode(value: Mapping[str, JSON]) -> str:
    """Return what is written for a record."""
    return json.dumps(value, separators=(",", ":"))


def _to_2(connection: sqlite3.Connection) -> None:
    """Names, sandboxes that end with a process, and a file that says whose it is."""
    _add(connection, "network/", services=[])
    _add(connection, "endpoint/", links={})
    _add(connection, "sandbox/", bound_to=0, bound_since=0)


#: For each layout but the newest, what makes the next one of it.
_STEPS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _to_2}
LAYOUT = 1 + len(_STEPS)


def _add(connection: sqlite3.Connection, prefix: str, **fields: JSON) -> None:
    """Add fields to all records of a kind."""
    query = "SELECT key, value FROM record WHERE substr(key, 1, ?) = ?"
    for key, old in connection.execute(query, (len(prefix), prefix)).fetchall():
        new = encode({**fields, **decode(old)})
        connection.execute(
            "UPDATE record SET value = ? WHERE key = ?", (new, key.decode())
        )


def _set_layout(connection: sqlite3.Connection, layout: int) -> None:
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {layout}")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)
