"""A procfs of one's own, for the settings of many network namespaces.

The entries of all namespaces in /proc/sys/net share one hash chain, which the kernel
walks through when it looks up the first setting of a namespace: 250 us with a thousand
of them. A mount that nobody else sees has those alone that are looked up through it;
it is replaced now and then.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

# System calls that glibc has had since 2.36 only; all machines number them the same.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
# include/uapi/linux/mount.h
_CLOEXEC, _CMD_CREATE = 1, 6
_NAME = b"proc"
#: How many look-ups a mount is for. To replace it costs as much as a long chain.
_LOOKUPS = 64


class ProcFS:
    """Where settings are looked up. One thread may use it at a time."""

    def __init__(self) -> None:
        self._mount = -1
        self._left = 0

    def path(self) -> str:
        """Return the path of a procfs; the machine's, where we may not mount one."""
        if not self._left:
            self.close()
            self._mount = _mount()
            self._left = _LOOKUPS
        self._left -= 1
        return "/proc" if self._mount < 0 else f"/proc/self/fd/{self._mount}"

    def close(self) -> None:
        """Let go of the mount."""
        if self._mount >= 0:
            os.close(self._mount)
        self._mount, self._left = -1, 0


def _mount() -> int:
    """Return the file descriptor of a new procfs, or -1."""
    made: int = _libc.syscall(_FSOPEN, _NAME, _CLOEXEC)
    if made < 0:
        return made
    try:
        if _libc.syscall(_FSCONFIG, made, _CMD_CREATE, None, None, 0) < 0:
            return -1
        mounted: int = _libc.syscall(_FSMOUNT, made, _CLOEXEC, 0)
        return mounted
    finally:
        os.close(made)
