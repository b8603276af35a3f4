"""What drivers say of themselves, and of what is to be changed in the kernel."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cnm

from .types import IPAddress, PortBinding, Route, Scope

if TYPE_CHECKING:
    import cnm.linux


@dataclass(frozen=True, kw_only=True, slots=True)
class Capability:
    """What a network driver is able to do.

    :ivar scope: how far its networks reach
    :ivar connectivity: how far traffic on its networks reaches, if further
    :ivar planned: whether its handlers of endpoints' events change nothing for the
        endpoint outside of the process, and leave that to the plans that they return.
        The intent to join is then recorded in the trip that makes the interface
    """

    scope: Scope = Scope.LOCAL
    connectivity: Scope = Scope.LOCAL
    planned: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinInfo:
    """How an endpoint's interface gets into the sandbox, and what goes with it.

    A driver either makes the link itself and names it in ``interface``, or returns
    a ``plan`` that makes it, or says that there is none. A plan costs no thread trip of
    its own.

    :ivar interface: name of a link in the controller's namespace, which the core
        moves into the sandbox and renames
    :ivar plan: blocking function that makes the link inside the sandbox, down, under
        the name and index of the placement it is given; the core runs it in a worker
        thread, directly before it sets addresses and routes. If it fails, or what
        comes after it, the driver is told ``endpoint.left``. If the link is an end of a
        veth pair, it returns the index of the other end in the controller's namespace,
        and that of the bridge which has that for a port: the core waits until they
        carry packets
    :ivar no_interface: there is no link, and the sandbox is left as it is; it can be in
        no other network meanwhile
    :ivar gateway: next hop of the IPv4 default route, if this endpoint is chosen
    :ivar gateway6: next hop of the IPv6 default route, if this endpoint is chosen
    :ivar connected4: the IPv4 default route needs no next hop on this link
    :ivar connected6: the IPv6 default route needs no next hop on this link
    :ivar routes: static routes
    :ivar announce: name of the link, in the controller's namespace, on which the
        addresses are announced (gratuitous ARP, unsolicited NA); ``""`` for none
    :ivar announcements: how many times they are announced
    :ivar announce_interval: seconds between announcements
    """

    interface: str = ""
    plan: Callable[[cnm.linux.Placement], Collection[int] | None] | None = None
    no_interface: bool = False
    gateway: IPAddress | None = None
    gateway6: IPAddress | None = None
    connected4: bool = False
    connected6: bool = False
    routes: tuple[Route, ...] = ()
    announce: str = ""
    announcements: int = 3
    announce_interval: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaveInfo:
    """What remains to be done in the kernel when an endpoint has left.

    :ivar plan: blocking function that takes the link off the network; the core runs
        it in a worker thread together with its own part. It must succeed if the link
        is gone already.
    :ivar forget: addresses whose connections the host is to forget, soon afterwards, so
        that they are not taken for those of the next owner
    """

    plan: Callable[[cnm.linux.Sockets], None] | None = None
    forget: tuple[IPAddress, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishInfo:
    """What is to be done in the kernel to publish ports, or to take them back.

    It costs no thread trip of its own where the core has something to do there, too.

    :ivar plan: blocking function that does all of it or nothing, and returns all
        bindings that the endpoint then has; the core runs it in a worker thread
    :ivar done: is called in the event loop when the plan has succeeded; nothing is
        undone if it fails
    """

    plan: Callable[[cnm.linux.Sockets], tuple[PortBinding, ...]]
    done: Callable[[], object] | None = None
