"""Putting an endpoint's interface into a sandbox, and taking it out: blocking plans."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from .errors import KernelError, NetlinkError
from .events import JoinInfo, LeaveInfo
from .linux import (
    REAP_GROUP,
    NetlinkSocket,
    Placement,
    Request,
    SandboxSockets,
    Sockets,
    add_address,
    add_route,
    dump_links,
    get_link,
    link_local_address,
    namespaces,
    parse_link,
    set_link,
    sysctl,
)
from .linux.carrier import other_end, wait_for_carrier
from .types import IPAddress, IPInterface, Route

#: Part of a plan: what is done in a sandbox.
Visit: TypeAlias = Callable[[Sockets, SandboxSockets], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class DefaultRoute:
    """A default route that a sandbox is to have.

    :ivar version: 4 or 6
    :ivar via: next hop, or None if it is on the link
    :ivar index: the link; 0 for the one that is being placed
    :ivar replace: whether a default route of ours is there, to be replaced
    """

    version: int
    via: IPAddress | None
    index: int = 0
    replace: bool

    def request(self, index: int = 0) -> Request:
        """Return the request that sets it. Replacing is atomic."""
        return add_route(
            None,
            version=self.version,
            via=self.via,
            index=self.index or index,
            replace=self.replace,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Interface:
    """An endpoint's interface in its sandbox.

    :ivar addresses: what it is given, link-local addresses included
    :ivar sysctls: ``net.X.Y.IFNAME.Z`` to value
    :ivar mark: alias by which it is known to be ours
    :ivar adopted: whether the namespace is somebody else's
    """

    name: str
    index: int
    addresses: tuple[IPInterface, ...]
    mac: str = ""
    sysctls: Mapping[str, str]
    routes: tuple[Route, ...] = ()
    mark: str = ""
    adopted: bool = False

    @property
    def has_ipv6(self) -> bool:
        """Whether it has an IPv6 address."""
        return any(address.version == 6 for address in self.addresses)


class Around(Protocol):
    """What belongs to the making of an interface; if it fails, so does that."""

    def begin(self) -> None:
        """Do what comes before everything."""

    def publish(self, sockets: Sockets) -> None:
        """Publish ports, when the interface can be used."""

    def end(self, index: int) -> None:
        """Do what comes after everything, given the index in the sandbox."""


def names(sockets: Sockets, key: str) -> frozenset[str]:
    """Plan: return the names of all interfaces in a sandbox."""
    with sockets.sandbox(key) as sandbox:
        links = sandbox.route.dump(dump_links())
        return frozenset(parse_link(link).name for link in links)


def place(
    sockets: Sockets,
    key: str,
    interface: Interface,
    join: JoinInfo,
    defaults: Sequence[DefaultRoute],
    previous: Sequence[DefaultRoute],
    finish: Visit,
    around: Around,
) -> None:
    """Plan: make or move the interface into the sandbox, and configure it.

    If it fails, the sandbox is as before; what the driver's part of the plan has made
    in the controller's namespace is left to the driver, and what has been published to
    the caller.

    :param defaults: default routes that go through the interface
    :param previous: default routes that these replace
    :param finish: what is done in the sandbox last
    """
    around.begin()
    with sockets.sandbox(key) as sandbox:
        index = interface.index
        try:
            if join.plan is not None:
                others = join.plan(
                    Placement(
                        sockets, sandbox.netns, sandbox.route, interface.name, index
                    )
                )
            else:
                index, *others = _move(sockets, sandbox, join.interface, interface)
            _write_sysctls(sockets, sandbox, interface)
            _configure(sandbox.route, index, interface, defaults)
            around.publish(sockets)
            finish(sockets, sandbox)
            if others:  # by now it will most likely have noticed
                wait_for_carrier(sockets.route, *others)
            around.end(index)
        except BaseException:
            _bury(sandbox.route, index)
            for default in previous:
                sandbox.route.call(default.request())
            raise


def _configure(
    route: NetlinkSocket,
    index: int,
    interface: Interface,
    defaults: Sequence[DefaultRoute],
) -> None:
    requests = _bring_up(index, interface)
    requests += [
        add_route(static.destination, via=static.via, index=index)
        for static in interface.routes
    ]
    # A batch goes on after an error. What replaces something waits until the rest
    # has succeeded.
    requests += [d.request(index) for d in defaults if not d.replace]
    route.call(*requests)
    if replacing := [d.request(index) for d in defaults if d.replace]:
        route.call(*replacing)


def _bring_up(index: int, interface: Interface) -> list[Request]:
    """Return what sets an interface up, and then gives it its addresses."""
    requests = []
    own = interface.addresses
    if interface.has_ipv6 and interface.mac:
        # The kernel's own link-local address would go through duplicate address
        # detection, router solicitation and multicast reports to every port.
        requests.append(set_link(index, address_generation="none"))
        own = (link_local_address(interface.mac), *own)
    requests.append(set_link(index, up=True, alias=interface.mark or None))
    return requests + [add_address(index, address) for address in own]


def _move(
    sockets: Sockets, sandbox: SandboxSockets, source: str, interface: Interface
) -> list[int]:
    """Move a link that the driver has made into the sandbox, under its name there.

    :return: its index there, and that of its other end in the controller's namespace,
        if it has one
    """
    (found,) = sockets.route.call(get_link(name=source))
    sockets.route.call(
        set_link(
            parse_link(found).index,
            netns=sandbox.netns,
            rename=interface.name,
            mac=interface.mac,
        )
    )
    (moved,) = sandbox.route.call(get_link(name=interface.name))
    other = other_end(found)
    return [parse_link(moved).index, *([other] if other else [])]


def _write_sysctls(
    sockets: Sockets, sandbox: SandboxSockets, interface: Interface
) -> None:
    """Write the settings of the interface, before it is up."""
    if interface.has_ipv6 and not interface.adopted and not interface.sysctls:
        return
    name, proc = interface.name, sockets.procfs.path()
    with sockets.inside(sandbox.netns):
        if not interface.has_ipv6:
            # neighbour discovery would be of no use
            sysctl.disable_ipv6(name, proc)
        elif interface.adopted:
            # gateways are set by us; in namespaces of ours that is the default
            sysctl.ignore_router_advertisements(name, proc)
        # a slash stands for a dot in an interface's name
        own = name.replace(".", "/")
        for setting, value in interface.sysctls.items():
            sysctl.write(setting.replace("IFNAME", own), value, proc)


def reconfigure(
    sockets: Sockets,
    key: str,
    index: int,
    *,
    mac: str,
    addresses: Sequence[IPInterface],
) -> None:
    """Plan: give an interface again what somebody has taken from it."""
    interface = Interface(
        name="", index=index, addresses=tuple(addresses), mac=mac, sysctls={}
    )
    with sockets.sandbox(key) as sandbox:
        try:
            sandbox.route.call(*_bring_up(index, interface))
        except NetlinkError as exc:
            if any(each.errno != errno.EEXIST for each in (exc, *exc.others)):
                raise


def reroute(sockets: Sockets, key: str, defaults: Sequence[DefaultRoute]) -> None:
    """Plan: have default routes go through other interfaces."""
    with sockets.sandbox(key) as sandbox:
        sandbox.route.call(*(default.request() for default in defaults))


def take_out(
    sockets: Sockets,
    key: str,
    index: int,
    left: LeaveInfo | None,
    finish: Visit | None = None,
) -> None:
    """Plan: take an interface out of a sandbox that lives on.

    The interface is down and has lost its name when the plan returns; the reaper
    deletes it.

    :param index: its index, 0 if there is none
    :param finish: what is done in the sandbox last
    """
    try:
        with sockets.sandbox(key) as sandbox:
            if index:
                _bury(sandbox.route, index)
            if finish is not None:
                finish(sockets, sandbox)
    finally:
        if left is not None and left.plan is not None:
            left.plan(sockets)


def _bury(route: NetlinkSocket, index: int) -> None:
    try:
        route.call(
            set_link(index, up=False),
            set_link(index, rename=f"cnm{index}", group=REAP_GROUP),
        )
    except NetlinkError as exc:
        if exc.errno != errno.ENODEV:
            raise


def visit(sockets: Sockets, key: str, work: Visit) -> None:
    """Plan: do something in a sandbox."""
    with sockets.sandbox(key) as sandbox:
        work(sockets, sandbox)


def is_there(key: str) -> bool:
    """Tell whether a path leads to a network namespace. Blocks.

    :raises KernelError: if that cannot be told, for want of file descriptors maybe
    """
    try:
        os.close(namespaces.open_namespace(key))
    except KernelError as exc:
        if exc.errno not in namespaces.GONE:
            raise
        return False
    return True


def is_home(sockets: Sockets, key: str) -> bool:
    """Plan: tell whether a path leads to the controller's own network namespace."""
    with sockets.sandbox(key) as sandbox:
        return os.path.samestat(os.fstat(sandbox.netns), os.fstat(sockets.home))


def remove_marked(sockets: Sockets, key: str, mark: str) -> None:
    """Plan: take the interfaces out of a sandbox that carry a mark."""
    with sockets.sandbox(key) as sandbox:
        for message in sandbox.route.dump(dump_links()):
            link = parse_link(message)
            if link.alias == mark:
                _bury(sandbox.route, link.index)
