"""The events of networks, endpoints, sandboxes, drivers and the controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import cnm

from ..answers import Capability, JoinInfo, LeaveInfo, PublishInfo
from ..reports import Difference, RestoreReport
from ..types import (
    JSON,
    EndpointInfo,
    EndpointState,
    IPAddress,
    NetworkInfo,
    NetworkState,
    PortBinding,
    PortRequest,
    Requirements,
    SandboxInfo,
)
from .base import DriverEvent, Event

if TYPE_CHECKING:
    import cnm.firewall
    import cnm.linux
    import cnm.ports


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
    """A network is back, after a restart of the controller or after a repair.

    :ivar endpoints: those that are in sandboxes
    """

    name: ClassVar[str] = "network.restored"
    endpoints: tuple[EndpointInfo, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkChecked(NetworkEvent, DriverEvent[tuple[Difference, ...]]):
    """Somebody asked whether the kernel has of a network what it should have.

    For drivers only. The interfaces in the sandboxes are not their concern.

    :ivar endpoints: those that are in sandboxes
    """

    name: ClassVar[str] = "network.checked"
    endpoints: tuple[EndpointInfo, ...] = ()


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
    :ivar others: the endpoints that are in the sandbox already
    """

    name: ClassVar[str] = "endpoint.joined"
    sandbox: SandboxInfo
    interface: str
    others: tuple[EndpointInfo, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointLeft(EndpointEvent, DriverEvent[LeaveInfo | None]):
    """An endpoint is no longer part of a sandbox."""

    name: ClassVar[str] = "endpoint.left"
    sandbox: SandboxInfo
    interface: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointPublished(
    EndpointEvent, DriverEvent[tuple[PortBinding, ...] | PublishInfo]
):
    """Ports of an endpoint are reachable (libnetwork: ProgramExternalConnectivity).

    The driver makes exactly the requests hold, and returns all bindings, or the plan
    that does so; it is called again when requests come or go, when the endpoint begins
    or ceases to provide a default route, and after a restart. What ``endpoint.ports``
    has, and is still wanted, keeps its port of the host. If the handler or the plan
    raises, all is as before.

    Subscribers hear it when there are bindings that were not there before.

    :ivar requests: all ports that are to be published by way of the endpoint: its own,
        and those of its sandbox's other endpoints while it provides a default route
    :ivar gateway4: whether it provides its sandbox's IPv4 default route. Ports are
        translated by way of the gateway only, since answers go there
    :ivar gateway6: whether it provides its sandbox's IPv6 default route
    :ivar elsewhere6: whether another endpoint of the sandbox provides that
    """

    name: ClassVar[str] = "endpoint.published"
    sandbox: SandboxInfo
    requests: tuple[PortRequest, ...] = ()
    gateway4: bool = False
    gateway6: bool = False
    elsewhere6: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointUnpublished(EndpointEvent, DriverEvent[PublishInfo | None]):
    """Ports of an endpoint are no longer reachable (RevokeExternalConnectivity).

    The driver hears it when nothing is to be published by way of the endpoint any more,
    and takes the ports back, or returns the plan that does so; subscribers hear of
    every binding that is gone.
    """

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
    :ivar ports: publishes ports
    :ivar allow_direct_routing: whether networks with translated ports let in what is
        sent to the sandboxes' own addresses, if the port is published
    """

    name: ClassVar[str] = "driver.loaded"
    driver: str
    controller: str
    kernel: cnm.linux.Kernel
    firewall: cnm.firewall.Firewall
    ports: cnm.ports.PortMapper
    allow_direct_routing: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class DriverFailed(Event):
    """A handler or a plan of a driver has failed. For subscribers only.

    :ivar driver: the driver's name
    :ivar event: what it has failed to handle
    :ivar error: why
    """

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
class NameQueried(SandboxEvent):
    """A program of a sandbox has asked for a name, and has been answered.

    There may be very many: only those hear it who subscribe to this very class.

    :ivar question: the name, in lower case
    :ivar kind: the type of records, such as ``"AAAA"``
    :ivar code: how it was answered, such as ``"NOERROR"`` or ``"NXDOMAIN"``
    :ivar source: whose answer it was: ``"own"``, ``"cache"``, ``"upstream"``, or
        ``"none"`` if there was none
    :ivar addresses: the addresses of the answer
    :ivar seconds: how long it took
    """

    name: ClassVar[str] = "name.queried"
    explicit: ClassVar[bool] = True
    question: str
    kind: str
    code: str
    source: str
    addresses: tuple[IPAddress, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ControllerEvent(Event):
    """Something happened to the controller or to its host."""

    controller: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ControllerStarted(ControllerEvent):
    """The controller has restored what its store knows, and is ready.

    It comes before anybody is able to subscribe; observer plugins hear it.

    :ivar report: what the controller has found
    """

    name: ClassVar[str] = "controller.started"
    report: RestoreReport = field(default_factory=RestoreReport)


@dataclass(frozen=True, kw_only=True, slots=True)
class ControllerStopped(ControllerEvent):
    """The controller has stopped."""

    name: ClassVar[str] = "controller.stopped"


@dataclass(frozen=True, kw_only=True, slots=True)
class FirewallRebuilt(ControllerEvent):
    """Somebody removed the controller's nftables table; it is back."""

    name: ClassVar[str] = "firewall.rebuilt"


@dataclass(frozen=True, kw_only=True, slots=True)
class DamageFound(ControllerEvent):
    """Something of the controller's was changed or removed by somebody.

    :ivar differences: what was wrong, and whether it has been mended
    """

    name: ClassVar[str] = "damage.found"
    differences: tuple[Difference, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkRemoved(ControllerEvent):
    """Somebody removed a link of the controller's.

    :ivar link: name of the link
    :ivar object_id: id of the network or endpoint that it belonged to
    """

    name: ClassVar[str] = "link.removed"
    link: str
    object_id: str
