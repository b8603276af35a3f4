"""Opening the file of a store; what is damaged is moved aside, and never reset."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from ..errors import StoreError
from . import layouts
from .layouts import LAYOUT, Damaged, Owner
from .lock import Lock
from .reasons import is_damage

#: What SQLite adds to the name of a file for those that belong to it.
_SUFFIXES = ("", "-wal", "-shm", "-journal")


def open_file(path: Path) -> tuple[sqlite3.Connection, Lock]:
    """Open a store, or make one.

    :param path: without symbolic links
    :raises StoreError: if it is damaged, somebody else's, of a later version, or open
    :raises sqlite3.Error: if SQLite cannot open it
    :raises OSError: if the file, its directory or its lock cannot be made
    """
    _make_directory(path.parent)
    known = _check(path)
    lock = Lock(path)
    try:
        connection = _connect(path, lock, known=known or lock.marked)
        try:
            lock.mark()
        except BaseException:
            connection.close()
            raise
    except BaseException:
        lock.release()
        raise
    return connection, lock


def set_aside(path: Path, reason: object) -> StoreError:
    """Move a damaged file away, and what belongs to it.

    A connection to it is closed afterwards: SQLite would tidy up.

    :return: an error that tells where it is now
    """
    fault = f"store {path} is damaged ({reason})"
    try:
        moved = _move(path)
    except OSError as exc:
        return StoreError(f"{fault}, and cannot be moved away: {exc}")
    return StoreError(
        f"{fault}: it is now {moved}, and the next start begins with an empty store,"
        " unless a backup is put in its place before"
    )


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Make all changes of a ``with`` block, or none of them."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # some errors have rolled back already
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _damaged(path: Path, reason: object, *, known: bool) -> StoreError:
    if known:
        return set_aside(path, reason)
    return StoreError(
        f"{path} is no store ({reason}), and nothing shows that it has been one: it is"
        " left as it is; give another path, or move it away"
    )


def _check(path: Path) -> bool:
    """Look at a file without touching it.

    :return: whether it is a store for certain
    :raises StoreError: if it is somebody else's
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"store {path}: there is something that is no file")
    if not status.st_size:
        return False
    # neither locks nor files are made for what does not change
    address = f"file:{quote(str(path))}?immutable=1"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        connection.text_factory = bytes
        try:
            found = layouts.owner(connection)
        except sqlite3.DatabaseError as exc:
            if is_damage(exc):
                return False
            raise
    if found is Owner.OTHER:
        raise _foreign(path)
    return found is Owner.OURS


def _foreign(path: Path) -> StoreError:
    return StoreError(
        f"{path} is the database of another program, which is left as it is: give"
        " another path"
    )


def _connect(path: Path, lock: Lock, *, known: bool) -> sqlite3.Connection:
    try:
        made = _make(path, lock)
    except Damaged as exc:
        raise _damaged(path, exc, known=known) from exc
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.text_factory = bytes
        _prepare(connection, path, lock)
    except BaseException as exc:
        fault = is_damage(exc) and _damaged(path, exc, known=known)
        connection.close()
        if made:
            # nothing has been written to it
            path.unlink(missing_ok=True)
        if fault:
            raise fault from exc
        raise
    return connection


def _make(path: Path, lock: Lock) -> bool:
    """Make the file, if there is none; SQLite would give it the umask's permissions."""
    missing = not path.exists()
    if missing or not path.stat().st_size:
        with suppress(FileNotFoundError):
            if os.stat(f"{path}-wal").st_size:
                raise Damaged(f"it has no content, but for {path.name}-wal")
        if lock.marked and not missing:
            raise Damaged("it is empty")
    if missing:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(path, flags, 0o600))
    return missing


def _prepare(connection: sqlite3.Connection, path: Path, lock: Lock) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN EXCLUSIVE")
    found = layouts.owner(connection)
    if found is Owner.OTHER:
        raise _foreign(path)
    if found is Owner.OURS:
        _verify(connection, path)
        layouts.migrate(connection)
    elif lock.marked and path.stat().st_size:
        raise Damaged("there is nothing in it")
    else:
        layouts.create(connection)
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _verify(connection: sqlite3.Connection, path: Path) -> None:
    layout = layouts.layout_of(connection)
    if layout > LAYOUT:
        raise StoreError(
            f"store {path} has layout {layout}; this version of cnm knows layouts up"
            f" to {LAYOUT}: use the version that has written it, or a later one"
        )
    (fault,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if fault != b"ok":
        raise Damaged(" ".join(fault.decode(errors="replace").split()))
    # the check does not look into what goes on in pages of their own
    query = "SELECT key FROM record WHERE NOT json_valid(value) LIMIT 1"
    if found := connection.execute(query).fetchone():
        raise Damaged(f"the record {found[0].decode(errors='replace')} is garbage")


def _move(path: Path) -> Path:
    stamp = f"{path}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    number, target = 1, stamp
    while any(os.path.lexists(target + suffix) for suffix in _SUFFIXES):
        number += 1
        target = f"{stamp}.{number}"
    for suffix in _SUFFIXES:
        with suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", target + suffix)
    _sync(path.parent)
    return Path(target)


def _make_directory(directory: Path) -> None:
    """Make a directory and those above it, so that they survive power loss."""
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    _sync(directory.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
