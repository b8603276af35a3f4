"""Noticing the end of processes, by pidfd_open(2)."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import anyio

from ..errors import KernelError
from .kernel import Sockets

#: What says that there is no process of an id; after other errors nobody can tell.
NO_PROCESS = frozenset({errno.ESRCH, errno.ENOENT, errno.EINVAL})


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told from others that had, or will have, its id.

    :ivar started: when it started, in clock ticks after boot, proc_pid_stat(5)
    """

    pid: int
    started: int


class Lifelines:
    """Tells which processes have ended, among those that something is tied to."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._ties: dict[str, int] = {}

    def tie(self, identity: str, descriptor: int) -> None:
        """Tie something to a process.

        :param identity: what it is
        :param descriptor: a pidfd of the process, which is taken over
        :raises KernelError: if the system watches too many (fs.epoll.max_user_watches)
        """
        try:
            self._epoll.register(descriptor, select.EPOLLIN)
        except OSError as exc:
            os.close(descriptor)
            raise KernelError(exc.errno or errno.EIO, "watch a process") from exc
        self._ties[identity] = descriptor

    def untie(self, identity: str) -> None:
        """Tie it to nothing any more; no error if it is not."""
        descriptor = self._ties.pop(identity, None)
        if descriptor is not None:
            self._epoll.unregister(descriptor)
            os.close(descriptor)

    def __contains__(self, identity: str) -> bool:
        """Tell whether something is tied to a process."""
        return identity in self._ties

    async def ends(self) -> AsyncGenerator[str, None]:
        """Yield what has been tied to processes that have ended, until cancelled."""
        while True:
            await anyio.wait_readable(self._epoll)
            ready = {descriptor for descriptor, _ in self._epoll.poll(0)}
            gone = [it for it, tied in self._ties.items() if tied in ready]
            for identity in gone:
                self.untie(identity)
                yield identity

    def close(self) -> None:
        """Let go of all processes."""
        for identity in list(self._ties):
            self.untie(identity)
        self._epoll.close()


def find_process(sockets: Sockets, pid: int) -> tuple[Process, int]:
    """Plan: return a process that runs, and a pidfd of it.

    :raises KernelError: if there is none
    """
    what = f"find process {pid}"
    try:
        descriptor = os.pidfd_open(pid)
    except OSError as exc:
        raise KernelError(exc.errno or errno.EIO, what) from exc
    try:
        # it had the id when the descriptor was opened, and has it as long as it lives
        return Process(pid, _started(pid)), descriptor
    except OSError as exc:
        os.close(descriptor)
        raise KernelError(exc.errno or errno.EIO, what) from exc


def _started(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        # the name of the program may have spaces and brackets
        fields = file.read().rpartition(")")[2].split()
    return int(fields[19])
