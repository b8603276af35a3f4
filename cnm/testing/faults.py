"""Failing, or dying, at a step of an operation that one chooses.

A *point* is a step that changes something outside of the process: a netlink request
that is no question, a setting of the kernel (sysctl), a network namespace that is made,
pinned or let go, a file of a sandbox that is written, a transaction of a store, a call
of a driver's hook. What is done in the background counts, too: a controller that makes
no namespaces in advance (``ready_namespaces=0``) makes them when they are needed. An
operation is walked through by counting its points once, and then repeating it with a
fault at each of them::

    with faults.counting() as points:
        await operation()
    for point in points:
        with faults.failing(point.number):
            ...
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from types import ModuleType
from typing import Any, Literal, TypeAlias
from unittest.mock import patch

from ..dns import files
from ..errors import DriverError, ForbiddenError, NetlinkError, StoreError
from ..linux import NetlinkSocket, Request, namespaces, sysctl
from ..plugins import Driver
from ..store import Delete, Put, Store

Kind: TypeAlias = Literal["kernel", "file", "store", "driver"]

# include/uapi/linux/rtnetlink.h: of four kinds of messages, the third is a question
_QUESTION = 2
# include/uapi/linux/netfilter/nfnetlink.h
_NFNL_SUBSYS_NFTABLES = 10
_NAMESPACES = ("unshare", "pin", "unpin")
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Point:
    """A step.

    :ivar number: 1 for the first one in the block
    :ivar what: what is done there
    """

    number: int
    kind: Kind
    what: str


class Walk:
    """The points that have been passed.

    :ivar points: all so far
    :ivar reached: the one at which the fault was, if it has been reached
    """

    def __init__(
        self, at: int, strike: Callable[[Point], None], *, after: bool = False
    ) -> None:
        self.points: list[Point] = []
        self.reached: Point | None = None
        self._at = at
        self._strike = strike
        self._after = after
        self._lock = threading.Lock()

    @contextmanager
    def step(self, kind: Kind, what: str) -> Iterator[None]:
        """Count the step that the block is; strike, if it is the one."""
        with self._lock:
            point = Point(len(self.points) + 1, kind, what)
            self.points.append(point)
        chosen = point.number == self._at
        if chosen:
            self.reached = point
        # only the kernel does something and is not able to say so
        late = self._after and kind == "kernel"
        if chosen and not late:
            self._strike(point)
        yield
        if chosen and late:
            self._strike(point)


@contextmanager
def counting() -> Iterator[list[Point]]:
    """Return the points that are passed within the block, by any thread or task.

    :raises ForbiddenError: if another block of this module is active
    """
    with _walking(0, _raise_default) as walk:
        yield walk.points


@contextmanager
def failing(
    at: int, error: Exception | None = None, *, after: bool = False
) -> Iterator[Walk]:
    """Have the step at a point fail, in place of being done. Later ones are done.

    :param at: number of the point
    :param after: if it is a step of the kernel, have it be done, and its answer lost
    :param error: what is raised there; if None what is usual: a NetlinkError (ENOBUFS),
        an OSError (ENOSPC), a StoreError, or a DriverError
    :raises ForbiddenError: if another block of this module is active
    """

    def strike(point: Point) -> None:
        if error is not None:
            raise error
        _raise_default(point)

    with _walking(at, strike, after=after) as walk:
        yield walk


@contextmanager
def killing(at: int) -> Iterator[Walk]:
    """Have the process be killed (SIGKILL) at a point, before the step is done.

    :param at: number of the point
    :raises ForbiddenError: if another block of this module is active
    """

    def strike(point: Point) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with _walking(at, strike) as walk:
        yield walk


def _raise_default(point: Point) -> None:
    if point.kind == "kernel":
        raise NetlinkError(errno.ENOBUFS, point.what, "a fault was injected")
    if point.kind == "file":
        raise OSError(errno.ENOSPC, f"{point.what}: a fault was injected")
    if point.kind == "store":
        raise StoreError(f"{point.what}: a fault was injected")
    driver, _, event = point.what.rpartition(" ")
    raise DriverError(driver, event, "a fault was injected")


@contextmanager
def _walking(
    at: int, strike: Callable[[Point], None], *, after: bool = False
) -> Iterator[Walk]:
    if not _lock.acquire(blocking=False):
        raise ForbiddenError("faults are being injected already")
    try:
        walk = Walk(at, strike, after=after)
        with ExitStack() as stack:
            for change in _changes(walk):
                stack.enter_context(change)
            yield walk
    finally:
        _lock.release()


def _changes(walk: Walk) -> Iterator[Any]:
    """Yield what has points be passed by."""
    call = NetlinkSocket.call

    @wraps(call)
    def counted_call(
        self: NetlinkSocket, *requests: Request, acknowledged: int = -1
    ) -> Any:
        if not any(map(_changes_something, requests)):
            return call(self, *requests, acknowledged=acknowledged)
        with walk.step("kernel", _what(requests)):
            return call(self, *requests, acknowledged=acknowledged)

    yield patch.object(NetlinkSocket, "call", counted_call)
    for name in _NAMESPACES:
        what = f"{name} a network namespace"
        yield _counted(walk, namespaces, name, "kernel", lambda *_, what=what: what)
    yield _counted(walk, sysctl, "write", "kernel", "set {} to {}".format)
    yield _counted(walk, files, "write", "file", "write {}".format)
    for kind in _stores():
        if "transaction" in kind.__dict__:
            yield patch.object(kind, "transaction", _counted_store(walk, kind))
        if "write" in kind.__dict__:
            yield patch.object(kind, "write", _counted_write(walk, kind))
    hook = Driver.call

    @wraps(hook)
    async def counted_hook(self: Driver, name: str, event: Any) -> Any:
        with walk.step("driver", f"{self.name} {event.name}"):
            return await hook(self, name, event)

    yield patch.object(Driver, "call", counted_hook)


def _what(requests: tuple[Request, ...]) -> str:
    changing = [it.what for it in requests if _changes_something(it)]
    return "; ".join(dict.fromkeys(changing))


def _changes_something(request: Request) -> bool:
    subsystem, message = divmod(request.kind, 0x100)
    if subsystem == _NFNL_SUBSYS_NFTABLES:
        return False  # changes are in a batch, whose beginning is of no subsystem
    return subsystem > 0 or message & 3 != _QUESTION


def _counted(
    walk: Walk, module: ModuleType, name: str, kind: Kind, what: Callable[..., str]
) -> Any:
    """Have a blocking function of a module count as a step.

    :param what: says what it does, given its arguments
    """
    original: Callable[..., object] = getattr(module, name)

    @wraps(original)
    def counted(*args: object) -> object:
        with walk.step(kind, what(*args)):
            return original(*args)

    return patch.object(module, name, counted)


def _counted_store(walk: Walk, kind: type[Store]) -> Callable[..., Awaitable[None]]:
    original = kind.transaction

    @wraps(original)
    async def counted(self: Store, *changes: Put | Delete) -> None:
        with walk.step("store", _keys(changes)):
            await original(self, *changes)

    return counted


def _counted_write(walk: Walk, kind: type[Store]) -> Callable[..., None]:
    original = kind.write

    @wraps(original)
    def counted(self: Store, *changes: Put | Delete) -> None:
        with walk.step("store", _keys(changes)):
            original(self, *changes)

    return counted


def _keys(changes: Sequence[Put | Delete]) -> str:
    return ", ".join(f"{type(it).__name__} {it.key}" for it in changes)


def _stores() -> Iterator[type[Store]]:
    """Yield all classes of stores."""
    pending: list[type[Store]] = Store.__subclasses__()
    while pending:
        kind = pending.pop()
        yield kind
        pending += kind.__subclasses__()
