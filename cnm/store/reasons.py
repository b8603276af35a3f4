"""Why a store cannot be opened, read or written, and what to do about it."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from .layouts import Damaged
from .lock import in_use

_FULL = "the disk is full, or a quota is used up: make room in {directory}"
_READ_ONLY = (
    "it is read-only: the file, and its directory {directory}, have to be writable"
)
_BROKEN = (
    "the disk fails, or refuses: see the kernel's log, and this process's quota and"
    " limit on the size of files (ulimit -f)"
)
_NO_ACCESS = "there is no access to it, or to its directory {directory}"

# sqlite3.h; the upper bits of an error code tell more
_PRIMARY = 0xFF
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_BY_CODE = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_IOERR: _BROKEN,
    sqlite3.SQLITE_CANTOPEN: _NO_ACCESS,
    sqlite3.SQLITE_PERM: _NO_ACCESS,
}
_BY_ERRNO = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _READ_ONLY,
    errno.EIO: _BROKEN,
    errno.EFBIG: _BROKEN,
    errno.EACCES: _NO_ACCESS,
    errno.EPERM: _NO_ACCESS,
}


def is_damage(error: BaseException) -> bool:
    """Tell whether an error says that what is in a file cannot be right."""
    if isinstance(error, sqlite3.Error):
        return _code(error) in _DAMAGED
    return isinstance(error, Damaged)


def explain(path: Path, error: sqlite3.Error | OSError) -> str:
    """Return a sentence that names the file, and says what to do."""
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        advice = _BY_ERRNO.get(error.errno or 0)
    else:
        code = _code(error)
        if code in _LOCKED:
            return in_use(path, path)
        reason = str(error)
        advice = _BY_CODE.get(code)
    if advice in (_BROKEN, _NO_ACCESS) and _is_read_only(path):
        advice = _READ_ONLY
    text = f"store {path}: {reason}"
    if advice is None:
        return text
    return f"{text}: {advice.format(directory=path.parent)}"


def _code(error: sqlite3.Error) -> int:
    # what the module itself raises has no code
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY


def _is_read_only(path: Path) -> bool:
    try:
        return bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)
    except OSError:
        return False
