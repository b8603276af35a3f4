"""Blocking work on the kernel, in a few worker threads.

A netlink request runs inside send(2), so nothing is gained by waiting for a netlink
socket. Kernel work is a blocking *plan*: a plain function that makes all the requests
of an operation, and costs one trip to a worker thread.
"""

from __future__ import annotations

import copy
import errno
import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

import anyio
import anyio.to_thread

from ..errors import KernelError
from ..workers import Overdue, Workers, refuse_coroutine
from . import namespaces, sysctl
from .netlink import NETLINK_NETFILTER, NetlinkSocket
from .procfs import ProcFS
from .ready import Ready
from .sandboxes import Kept, SandboxSockets, make_sandbox

P = ParamSpec("P")
T = TypeVar("T")


class Sockets:
    """What a plan works with: the sockets of the worker thread it runs in.

    :ivar home: file descriptor of the controller's network namespace
    :ivar route: rtnetlink socket in the controller's namespace
    :ivar procfs: by way of which settings of sandboxes are read and written
    """

    def __init__(self, home: int, kept: Kept, ready: Ready) -> None:
        self.home = home
        self.lost: bool = False
        self.route: NetlinkSocket = NetlinkSocket()
        self.procfs: ProcFS = ProcFS()
        self._nft: NetlinkSocket | None = None
        self._packet: socket.socket | None = None
        self._settings: dict[str, int] = {}
        self._kept = kept
        self._ready = ready

    @property
    def nft(self) -> NetlinkSocket:
        """The nfnetlink socket in the controller's namespace."""
        if self._nft is None:
            self._nft = NetlinkSocket(NETLINK_NETFILTER)
        return self._nft

    @property
    def packet(self) -> socket.socket:
        """A packet socket in the controller's namespace, for sending.

        It is kept, because closing one waits for an RCU grace period.
        """
        if self._packet is None:
            self._packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        return self._packet

    @contextmanager
    def inside(self, netns: int) -> Iterator[None]:
        """Have the thread be in another network namespace for a while."""
        namespaces.enter(netns)
        try:
            yield
        finally:
            self._go_home()

    def setting(self, name: str) -> str:
        """Return a setting (sysctl) of the controller's namespace.

        Its file is kept open: to open one costs ten times as much as to read it.

        :raises KernelError: if there is no such setting
        """
        if name not in self._settings:
            self._settings[name] = sysctl.open_setting(name)
        try:
            return sysctl.read_again(self._settings[name], name)
        except KernelError:
            os.close(self._settings.pop(name))
            raise

    def create(self, key: str) -> None:
        """Make a network namespace at a path, or put one there that is ready.

        Its loopback is up.
        """
        made = self._ready.take() or self._make()
        try:
            namespaces.pin(f"/proc/self/fd/{made.netns}", key)
        except BaseException:
            made.close()
            raise
        self._kept.keep(key, made)

    def _make(self) -> SandboxSockets:
        try:
            return make_sandbox(self.home, self.procfs)
        except BaseException:
            self._go_home()
            raise

    @contextmanager
    def sandbox(self, key: str) -> Iterator[SandboxSockets]:
        """Open the network namespace at a path, or use one that is still open."""
        sockets = self._kept.take(key)
        try:
            sockets = sockets or self._open(key)
            yield sockets
        except BaseException:
            if sockets is not None:
                sockets.close()
            self._kept.put(key, None)
            raise
        self._kept.put(key, sockets)

    def open_socket(
        self, family: int, type: int, proto: int = 0, *, key: str = ""
    ) -> socket.socket:
        """Make a non-blocking socket.

        :param key: path of the network namespace that it is of; the controller's own if
            empty
        """
        if key:
            with self.sandbox(key) as sandbox, self.inside(sandbox.netns):
                made = socket.socket(family, type, proto)
        else:
            made = socket.socket(family, type, proto)
        made.setblocking(False)
        return made

    def remove(self, key: str) -> None:
        """Let go of the network namespace at a path. No error if it is gone."""
        self._kept.forget(key)
        namespaces.unpin(key)

    def close(self) -> None:
        """Close all of the thread's sockets."""
        self.route.close()
        self.procfs.close()
        for extra in (self._nft, self._packet):
            if extra is not None:
                extra.close()
        while self._settings:
            os.close(self._settings.popitem()[1])

    def _open(self, key: str) -> SandboxSockets:
        netns = namespaces.open_namespace(key)
        try:
            with self.inside(netns):
                return SandboxSockets(netns, NetlinkSocket())
        except BaseException:
            os.close(netns)
            raise

    def _go_home(self) -> None:
        try:
            namespaces.enter(self.home)
        except KernelError:
            self.lost = True
            raise


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a plan is to make an endpoint's link.

    :ivar sockets: the worker thread's sockets, in the controller's namespace
    :ivar netns: file descriptor of the sandbox's network namespace
    :ivar route: rtnetlink socket in the sandbox's namespace
    :ivar interface: name of the link in the sandbox
    :ivar index: index of the link in the sandbox
    """

    sockets: Sockets
    netns: int
    route: NetlinkSocket
    interface: str
    index: int


class Kernel:
    """Runs plans in worker threads that live in one network namespace.

    The threads are started when they are needed, and end when the Kernel is left.

    :param netns: path of the namespace, or None for the one of the process
    :param threads: how many plans may run at a time
    :param ready: how many network namespaces may be made in advance
    """

    def __init__(
        self, netns: str | None = None, threads: int = 2, *, ready: int = 0
    ) -> None:
        self._netns = netns
        self._limit = threads
        self._spare = ready
        self._kept = Kept()
        self._ready: Ready
        self._home = -1
        self._timeout = math.inf
        self._limited: dict[float, Kernel] = {}
        self._workers: Workers[Sockets]

    async def __aenter__(self) -> Self:
        # the main thread's namespace, not the calling thread's: both are home
        self._home = namespaces.open_namespace(self._netns or "/proc/self/ns/net")
        self._ready = Ready(self._home, self._spare)
        self._workers = Workers(
            "cnm-kernel",
            self._limit,
            self._enter,
            Sockets.close,
            lambda sockets: not sockets.lost,
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            await self._workers.close()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._ready.close)
            self._kept.close()
            os.close(self._home)

    def _enter(self) -> Sockets:
        """Have the calling thread live in the namespace, and open its sockets."""
        namespaces.enter(self._home)
        return Sockets(self._home, self._kept, self._ready)

    def within(self, timeout: float) -> Kernel:
        """Return the same Kernel, for plans that may take so many seconds at most.

        A thread that does not return in time is replaced, so that other plans go on.
        """
        if timeout not in self._limited:
            self._limited[timeout] = copy.copy(self)
            self._limited[timeout]._timeout = timeout
        return self._limited[timeout]

    async def run(
        self,
        plan: Callable[Concatenate[Sockets, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a plan in a worker thread, and return what it returns.

        Cancellation is seen before the plan starts, and never afterwards: a plan that
        has been started runs to its end, and its result is returned.

        :raises KernelError: ETIMEDOUT, if it takes longer than :meth:`within` allows;
            what comes of it is not known
        :raises TypeError: if it is an async function
        """
        try:
            result = await self._workers.run(
                lambda sockets: plan(sockets, *args, **kwargs), self._timeout
            )
        except Overdue as exc:
            raise KernelError(errno.ETIMEDOUT, f"run {_title(plan)}", str(exc)) from exc
        refuse_coroutine(result)
        return result


def _title(plan: Callable[..., object]) -> str:
    """Return what a plan is called, and so whose it is."""
    while isinstance(plan, partial):
        plan = plan.func
    return f"{plan.__module__}.{getattr(plan, '__qualname__', type(plan).__name__)}"
