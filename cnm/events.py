"""The events of networks, endpoints and sandboxes.

An event states a fact about the model; the network's driver makes it true in the
kernel, while the operation waits. Subscribers hear it after it has been stored.

The class ``EndpointJoined``, its name ``"endpoint.joined"`` and the hook
``cnm_endpoint_joined`` belong together, mechanically. What a driver's handler
returns is part of the event's type: ``DriverEvent[JoinInfo]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from .types import (
    JSON,
    Address,
    AddressPool,
    Capability,
    EndpointInfo,
    EndpointState,
    IPAddress,
    IPNetwork,
    NetworkInfo,
    NetworkState,
    Pool,
    PoolStatus,
    PortBinding,
    PortRequest,
    Requirements,
    Route,
    SandboxInfo,
)

if TYPE_CHECKING:
    from .firewall import Firewall
    from .linux import Kernel, Placement, Sockets

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinInfo:
    """How an endpoint's interface gets into the sandbox, and what goes with it.

    A driver either makes the link itself and names it in ``interface``, or returns
    a ``plan`` that makes it. A plan costs no thread trip of its own.

    :ivar interface: name of a link in the controller's namespace, which the core
        moves into the sandbox and renames
    :ivar plan: blocking function that makes the link inside the sandbox, down, under
        the name and index of the placement it is given; the core runs it in a worker
        thread, directly before it sets addresses and routes. If it fails, or what
        comes after it, the driver is told ``endpoint.left``
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
    plan: Callable[[Placement], None] | None = None
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
    """

    plan: Callable[[Sockets], None] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Base class of all events."""

    name: ClassVar[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class DriverEvent(Event, Generic[R_co]):
    """An event that a driver handles; the parameter is what its handler returns."""


# --- networks -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkEvent(Event):
    """Something happened to a network."""

    network: NetworkInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkRequested(NetworkEvent, DriverEvent[Requirements | None]):
    """A network has been asked for. No address has been chosen for it yet.

    Its ``ipam_data`` has the subnets that were asked for, without pool ids. For drivers
    only: the place to refuse options, with InvalidError, and to say what the network
    needs.
    """

    name: ClassVar[str] = "network.requested"


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkCreated(NetworkEvent, DriverEvent[NetworkState | None]):
    """A network exists."""

    name: ClassVar[str] = "network.created"


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkDeleted(NetworkEvent, DriverEvent[None]):
    """A network is gone."""

    name: ClassVar[str] = "network.deleted"


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkRestored(NetworkEvent, DriverEvent[NetworkState | None]):
    """A network is back after a restart of the controller."""

    name: ClassVar[str] = "network.restored"


# --- endpoints ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointEvent(Event):
    """Something happened to an endpoint."""

    endpoint: EndpointInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointCreated(EndpointEvent, DriverEvent[EndpointState | None]):
    """An endpoint exists: it has its addresses, and no interface yet."""

    name: ClassVar[str] = "endpoint.created"


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointDeleted(EndpointEvent, DriverEvent[None]):
    """An endpoint is gone."""

    name: ClassVar[str] = "endpoint.deleted"


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointJoined(EndpointEvent, DriverEvent[JoinInfo]):
    """An endpoint is part of a sandbox.

    :ivar interface: name of its interface in the sandbox
    """

    name: ClassVar[str] = "endpoint.joined"
    sandbox: SandboxInfo
    interface: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointLeft(EndpointEvent, DriverEvent[LeaveInfo | None]):
    """An endpoint is no longer part of a sandbox."""

    name: ClassVar[str] = "endpoint.left"
    sandbox: SandboxInfo
    interface: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointPublished(EndpointEvent, DriverEvent[tuple[PortBinding, ...]]):
    """Ports of an endpoint are reachable at addresses of the host."""

    name: ClassVar[str] = "endpoint.published"
    sandbox: SandboxInfo
    requests: tuple[PortRequest, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointUnpublished(EndpointEvent, DriverEvent[None]):
    """Ports of an endpoint are no longer reachable at addresses of the host."""

    name: ClassVar[str] = "endpoint.unpublished"
    sandbox: SandboxInfo
    bindings: tuple[PortBinding, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointInspected(EndpointEvent, DriverEvent[Mapping[str, JSON] | None]):
    """Somebody asked for a driver's view of an endpoint."""

    name: ClassVar[str] = "endpoint.inspected"


# --- drivers --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class DriverLoaded(DriverEvent[Capability | None]):
    """A network driver has been loaded, once per controller.

    :ivar driver: the driver's name
    :ivar controller: the controller's name
    :ivar kernel: runs blocking plans in the controller's network namespace
    :ivar firewall: the controller's table
    """

    name: ClassVar[str] = "driver.loaded"
    driver: str
    controller: str
    kernel: Kernel
    firewall: Firewall


@dataclass(frozen=True, kw_only=True, slots=True)
class DriverFailed(Event):
    """A driver raised from a handler. For subscribers only."""

    name: ClassVar[str] = "driver.failed"
    driver: str
    event: Event
    error: str


# --- sandboxes and the controller: for subscribers only -------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxEvent(Event):
    """Something happened to a sandbox."""

    sandbox: SandboxInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxCreated(SandboxEvent):
    """A sandbox exists."""

    name: ClassVar[str] = "sandbox.created"


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxDeleted(SandboxEvent):
    """A sandbox is gone."""

    name: ClassVar[str] = "sandbox.deleted"


@dataclass(frozen=True, kw_only=True, slots=True)
class ControllerEvent(Event):
    """Something happened to the controller or to its host."""

    controller: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ControllerStarted(ControllerEvent):
    """The controller has restored what its store knows, and is ready.

    It comes before anybody is able to subscribe; observer plugins hear it.
    """

    name: ClassVar[str] = "controller.started"


@dataclass(frozen=True, kw_only=True, slots=True)
class ControllerStopped(ControllerEvent):
    """The controller has stopped."""

    name: ClassVar[str] = "controller.stopped"


@dataclass(frozen=True, kw_only=True, slots=True)
class FirewallRebuilt(ControllerEvent):
    """Somebody removed the controller's nftables table; it is back."""

    name: ClassVar[str] = "firewall.rebuilt"


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkRemoved(ControllerEvent):
    """Somebody removed a link of the controller's.

    :ivar link: name of the link
    :ivar object_id: id of the network or endpoint that it belonged to
    """

    name: ClassVar[str] = "link.removed"
    link: str
    object_id: str


# --- IPAM drivers ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolRequested(DriverEvent[Pool]):
    """A network needs a subnet.

    :ivar network_id: the network
    :ivar version: 4 or 6
    :ivar subnet: the subnet that was asked for. ``0.0.0.0/24`` and ``::/120`` ask for
        any subnet of that size, None for any subnet
    :ivar ip_range: the part of the subnet from which addresses are to be chosen
    :ivar options: the network's ``ipam_options``
    :ivar address_pools: the blocks that the controller was told to take subnets from
    :ivar exclude: what a chosen subnet must not overlap: routes and name servers of
        the host. It does not concern a subnet that was asked for
    """

    name: ClassVar[str] = "pool.requested"
    network_id: str
    version: int
    subnet: IPNetwork | None = None
    ip_range: IPNetwork | None = None
    options: Mapping[str, JSON] = field(default_factory=dict)
    address_pools: tuple[AddressPool, ...] = ()
    exclude: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolReleased(DriverEvent[None]):
    """A network no longer needs a subnet."""

    name: ClassVar[str] = "pool.released"
    network_id: str
    pool_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AddressRequested(DriverEvent[Address]):
    """An endpoint, or a network for its gateway or for somebody else, needs an address.

    :ivar owner: id of what the address is for; only the owner can release it
    :ivar address: the address that was asked for, or None for any
    :ivar gateway: whether it is for the network's gateway
    :ivar mac: the endpoint's MAC address, if it is known
    """

    name: ClassVar[str] = "address.requested"
    pool_id: str
    owner: str
    address: IPAddress | None = None
    gateway: bool = False
    mac: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AddressReleased(DriverEvent[None]):
    """An address is no longer needed. Releasing it twice is no error."""

    name: ClassVar[str] = "address.released"
    pool_id: str
    owner: str
    address: IPAddress


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolInspected(DriverEvent[PoolStatus | None]):
    """Somebody asked how full a pool is."""

    name: ClassVar[str] = "pool.inspected"
    pool_id: str
