"""The files of a sandbox that stand in for the host's /etc/resolv.conf and /etc/hosts.

All methods block: they belong into plans.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from . import hosts

#: Characters of a file that has been edited: a larger one is left alone.
LARGEST = 1 << 20

#: Names of the files that a sandbox has.
FILES = ("hosts", "resolv.conf", "resolv.conf.hash")

_MODE = 0o644


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one sandbox.

    They may be mounted into containers, and so keep their inodes: they are changed in
    place, each with a single write, so that a reader finds the old content or the new.

    :ivar directory: where they are
    """

    directory: str

    @property
    def hosts(self) -> str:
        """Path of the hosts file."""
        return f"{self.directory}/hosts"

    @property
    def resolv_conf(self) -> str:
        """Path of the resolver's configuration."""
        return f"{self.directory}/resolv.conf"

    @property
    def mounts(self) -> Mapping[str, str]:
        """Paths as processes see them, to the files."""
        return {"/etc/hosts": self.hosts, "/etc/resolv.conf": self.resolv_conf}

    def make(self) -> bool:
        """Make the directory, unless it is there; return whether it was not."""
        try:
            os.mkdir(self.directory, 0o755)
        except FileExistsError:
            return False
        except FileNotFoundError:
            os.makedirs(self.directory, 0o755)
        return True

    def write_resolv_conf(self, content: str, *, fresh: bool = False) -> None:
        """Write the resolver's configuration, unless somebody has edited it.

        :param fresh: whether the directory is new, so that there is nothing to be read
        """
        present = None if fresh else _read(self.resolv_conf)
        if present == content:
            return  # whoever wrote it
        digest = f"{self.resolv_conf}.hash"
        written = "" if fresh else _read(digest) or ""
        before = "" if present is None else _digest(present)
        if before not in written.split("\n"):
            return
        # first: if we are killed in between, either content is known to be ours
        write(digest, f"{before}\n{_digest(content)}", written)
        write(self.resolv_conf, content, present)

    def write_hosts(
        self,
        base: Callable[[], Sequence[str]],
        went: Sequence[str],
        came: Sequence[str],
        *,
        fresh: bool = False,
    ) -> None:
        """Take lines out of the hosts file, and put others in.

        :param base: returns what a new file begins with
        :param fresh: whether the directory is new, so that there is nothing to be read
        """
        present = None if fresh else _read(self.hosts)
        before = "\n".join(base()) if present is None else present
        if len(before) <= LARGEST:
            write(self.hosts, hosts.edited(before, went, came), present)


def _digest(content: str) -> str:
    return f"sha256:{sha256(content.encode()).hexdigest()}"


def _read(path: str) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # a file object would take three times as long; a character has up to four bytes
        size = min(os.fstat(descriptor).st_size, 4 * (LARGEST + 1))
        return os.read(descriptor, size).decode(errors="surrogateescape")
    finally:
        os.close(descriptor)


def write(path: str, content: str, present: str | None) -> None:
    """Have a file hold a content, in place of what is present; None: there is none.

    :raises OSError: if there is no room for it; what was present still is
    """
    if content == present:
        return
    data = content.encode(errors="surrogateescape")
    before = (present or "").encode(errors="surrogateescape")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _MODE)
    try:
        # empty lines in place of what is too much, which then is cut off
        size = max(len(data), len(before))
        if os.pwrite(descriptor, data.ljust(size, b"\n"), 0) < size:
            # a full disk takes a part of it
            os.pwrite(descriptor, before, 0)
            os.ftruncate(descriptor, len(before))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if size > len(data):
            os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)
