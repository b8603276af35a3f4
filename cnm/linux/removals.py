"""Which files others remove from a directory (inotify(7))."""

from __future__ import annotations

import ctypes
import os
from collections.abc import AsyncGenerator
from struct import Struct

import anyio

from ..errors import KernelError

# include/uapi/linux/inotify.h
_IN_MOVED_FROM, _IN_DELETE, _IN_Q_OVERFLOW = 0x40, 0x200, 0x4000
_IN_CLOEXEC, _IN_NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
#: struct inotify_event: watch, mask, cookie, length of the name that follows
_EVENT = Struct("=iIII")
#: Seconds between two looks: most of what is removed is removed by ourselves.
_PAUSE = 0.05
_libc = ctypes.CDLL(None, use_errno=True)


class Removals:
    """Watches a directory; what is removed is kept from the moment it is made.

    :param directory: its path
    :raises KernelError: if it cannot be watched; EMFILE if the user has too many
        watches (fs.inotify.max_user_instances)
    """

    def __init__(self, directory: str) -> None:
        what = f"watch {directory}"
        self._file: int = _checked(
            _libc.inotify_init1(_IN_CLOEXEC | _IN_NONBLOCK), what
        )
        try:
            mask = _IN_DELETE | _IN_MOVED_FROM
            path = os.fsencode(directory)
            _checked(_libc.inotify_add_watch(self._file, path, mask), what)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop watching."""
        os.close(self._file)

    async def watch(self) -> AsyncGenerator[str, None]:
        """Yield the names of removed files; ``""`` if some have been missed."""
        while True:
            await anyio.wait_readable(self._file)
            await anyio.sleep(_PAUSE)
            data = os.read(self._file, 1 << 16)
            start = 0
            while start < len(data):
                _, mask, _, length = _EVENT.unpack_from(data, start)
                start += _EVENT.size + length
                name = data[start - length : start].rstrip(b"\0")
                yield "" if mask & _IN_Q_OVERFLOW else os.fsdecode(name)


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise KernelError(ctypes.get_errno(), what)
    return result
