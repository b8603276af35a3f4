"""Network namespaces of sandboxes, and the sockets in them that plans work with."""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict

from ..errors import KernelError
from . import namespaces, sysctl
from .links import set_link
from .netlink import NetlinkSocket
from .procfs import ProcFS

#: Sandboxes whose sockets are kept open between two plans: a socket costs 60 us to
#: make, and a file descriptor to keep.
KEPT_SANDBOXES = 64

_LOOPBACK = 1
#: What interfaces have that are made later: to set it for each of them would cost more
#: than to make the namespace.
_DEFAULTS = (
    # nothing is forwarded from one of a sandbox's networks into another: a machine that
    # forwards has all its namespaces do so
    ("net.ipv4.ip_forward", "0"),
    # no interface hears router advertisements, unless somebody says so
    ("net.ipv6.conf.default.accept_ra", "0"),
    # Milliseconds: an interface tells routers twice of each group that it joins, in
    # case the first report is lost, and a bridge sends that to all its ports. The
    # second comes some time of the day: of a thousand joins on a bridge, each costs a
    # quarter less.
    ("net.ipv6.conf.default.mldv2_unsolicited_report_interval", "86400000"),
)


class SandboxSockets:
    """An open network namespace and a netlink socket inside it.

    :ivar netns: file descriptor of the namespace
    :ivar route: rtnetlink socket in it
    """

    def __init__(self, netns: int, route: NetlinkSocket) -> None:
        self.netns = netns
        self.route = route

    def close(self) -> None:
        """Close both; an open socket would keep the namespace alive."""
        self.route.close()
        os.close(self.netns)


def make_sandbox(home: int, procfs: ProcFS) -> SandboxSockets:
    """Make a network namespace; it ends with what is returned, unless it is pinned.

    Its loopback is up.

    :param home: file descriptor of the namespace that the calling thread comes back to
    :param procfs: the calling thread's
    :raises KernelError: if it cannot be made. The thread may not have come back then
    """
    namespaces.unshare(namespaces.CLONE_NEWNET)
    try:
        route = NetlinkSocket()
        try:
            route.call(set_link(_LOOPBACK, up=True))
            _set_defaults(procfs.path())
            return SandboxSockets(namespaces.open_namespace(namespaces.OWN), route)
        except BaseException:
            route.close()
            raise
    finally:
        namespaces.enter(home)


def _set_defaults(proc: str) -> None:
    try:
        for name, value in _DEFAULTS:
            sysctl.write(name, value, proc)
    except KernelError as exc:
        if exc.errno != errno.ENOENT:  # a kernel without IPv6 has none of them
            raise


class Kept:
    """Sockets of the sandboxes that were used last, shared by the worker threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[str, SandboxSockets] = OrderedDict()
        # how many plans are in a sandbox, and which sandboxes have gone meanwhile
        self._inside: dict[str, int] = {}
        self._gone: set[str] = set()

    def take(self, key: str) -> SandboxSockets | None:
        """Return those of a sandbox, for the caller alone; None if there are none.

        The caller puts them, or others, or None, when it has done.
        """
        with self._lock:
            self._inside[key] = self._inside.get(key, 0) + 1
            return self._open.pop(key, None)

    def put(self, key: str, sockets: SandboxSockets | None) -> None:
        """Keep those of a sandbox that have been taken, unless it is gone meanwhile."""
        with self._lock:
            gone = key in self._gone
            self._inside[key] -= 1
            if not self._inside[key]:
                del self._inside[key]
                self._gone.discard(key)
            surplus = sockets if gone or sockets is None else self._add(key, sockets)
        if surplus is not None:
            surplus.close()

    def keep(self, key: str, sockets: SandboxSockets) -> None:
        """Keep those of a sandbox that has just been made."""
        with self._lock:
            surplus = self._add(key, sockets)
        if surplus is not None:
            surplus.close()

    def _add(self, key: str, sockets: SandboxSockets) -> SandboxSockets | None:
        """Keep sockets as long as there is room; return what is to be closed for it."""
        # two plans on one namespace at a time is rare: keep one, close the other
        surplus = self._open.pop(key, None)
        self._open[key] = sockets
        if len(self._open) > KEPT_SANDBOXES:
            return self._open.popitem(last=False)[1]
        return surplus

    def forget(self, key: str) -> None:
        """Close those of a sandbox that is gone; those in use when they are put."""
        with self._lock:
            sockets = self._open.pop(key, None)
            if key in self._inside:
                self._gone.add(key)
        if sockets is not None:
            sockets.close()

    def close(self) -> None:
        """Close all."""
        while self._open:
            self._open.popitem()[1].close()
