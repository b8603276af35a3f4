"""Random bytes for ids and addresses, many at a time.

Each system call lets the worker threads go first, which may take milliseconds when
there is much to do; and costs as much as all else that it takes to make an id.
"""

from __future__ import annotations

import os
import threading

_MANY = 4096


class _Pool:
    """Bytes that nobody has been given yet. Any thread may take some."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = b""

    def take(self, size: int) -> bytes:
        """Return some of them."""
        with self._lock:
            if len(self._bytes) < size:
                self._bytes = os.urandom(max(_MANY, size))
            taken, self._bytes = self._bytes[:size], self._bytes[size:]
        return taken

    def drop(self) -> None:
        """Do without them, in a process that has been forked: the other has them."""
        self._lock = threading.Lock()
        self._bytes = b""


_pool = _Pool()
os.register_at_fork(after_in_child=_pool.drop)


def choose_id() -> str:
    """Return an id for a new object: 64 hexadecimal digits."""
    return _pool.take(32).hex()


def choose_mac() -> str:
    """Return a MAC address for a new interface, locally administered (IEEE 802)."""
    return "02:" + _pool.take(5).hex(":")
