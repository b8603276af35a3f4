"""One store at a time has a file: a lock that ends with the process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ..errors import StoreError

_MARK = b"cnm store\n"


class Lock:
    """A lock on a file beside a store, taken by whoever opens the store.

    The file stays, and once the store has been opened it says so: by this a damaged
    store is told from a file that somebody else has put there. (The store's own file
    is not opened for this: closing it again would undo SQLite's locks on it.)

    :ivar marked: whether there has been a store
    :raises StoreError: if somebody has the lock
    :raises OSError: if the file cannot be made
    """

    def __init__(self, store: Path) -> None:
        self._path = f"{store}-lock"
        self._descriptor = self._take(store)
        self.marked: bool = os.pread(self._descriptor, len(_MARK), 0) == _MARK

    def mark(self) -> None:
        """Note that there is a store."""
        if not self.marked:
            os.pwrite(self._descriptor, _MARK, 0)
            os.fsync(self._descriptor)
            self.marked = True

    def release(self) -> None:
        """Let others open the store."""
        try:
            if not self.marked:
                os.unlink(self._path)
        finally:
            os.close(self._descriptor)

    def _take(self, store: Path) -> int:
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._path, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_at_its_path(descriptor):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise StoreError(in_use(store, self._path)) from None
            except BaseException:
                os.close(descriptor)
                raise
            # whoever let go of it meanwhile has removed the file that is locked here
            os.close(descriptor)

    def _is_at_its_path(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False


def in_use(store: Path, locked: str | Path) -> str:
    """Tell who has a store.

    :param locked: the file that is locked
    """
    pid = _holder(locked)
    if pid is None:
        return f"store {store} is already open; its owner cannot be seen from here"
    where = "this process" if pid == os.getpid() else f"process {pid}"
    return f"store {store} is already open in {where}"


def _holder(path: str | Path) -> int | None:
    """Return the id of the process that has locked a file, proc_locks(5)."""
    try:
        status = os.stat(path)
        with open("/proc/locks", encoding="ascii") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    major, minor = os.major(status.st_dev), os.minor(status.st_dev)
    place = f"{major:02x}:{minor:02x}:{status.st_ino}"
    for line in lines:
        words = line.split()
        # the second word of those who wait for a lock is an arrow
        if words[1] != "->" and words[5:6] == [place] and int(words[4]) > 0:
            return int(words[4])
    return None
