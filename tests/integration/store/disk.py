"""Small disks for stores, in the mount namespace of the tests."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cnm.linux import namespaces

# include/uapi/linux/mount.h
MS_RDONLY = 1
MS_REMOUNT = 32

_libc = ctypes.CDLL(None, use_errno=True)


class Disk:
    """A mounted file system of a fixed size.

    :ivar path: where it is mounted
    """

    def __init__(self, path: Path, size: str) -> None:
        self.path = path
        self._mount(0, f"size={size},mode=0700")

    @property
    def free(self) -> int:
        """Bytes that are free."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Use up all room but some bytes."""
        with (self.path / "filler").open("ab") as file:
            file.write(bytes(max(0, self.free - leave)))
        assert self.free <= leave

    def make_room(self) -> None:
        """Undo :meth:`fill`."""
        (self.path / "filler").unlink()

    def read_only(self, yes: bool) -> None:
        """Mount it again, read-only or not."""
        self._mount(MS_REMOUNT | (MS_RDONLY if yes else 0), "")

    def _mount(self, flags: int, options: str) -> None:
        path = os.fsencode(self.path)
        if _libc.mount(b"none", path, b"tmpfs", flags, options.encode()):
            raise OSError(ctypes.get_errno(), "mount")


@contextmanager
def mounted(path: Path, size: str = "512k") -> Iterator[Disk]:
    """Mount a disk for as long as a ``with`` block lasts."""
    path.mkdir()
    disk = Disk(path, size)
    try:
        yield disk
    finally:
        assert _libc.umount2(os.fsencode(path), namespaces.MNT_DETACH) == 0
        path.rmdir()
