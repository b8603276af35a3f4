"""The hooks that drivers and observers implement, one for each event.

A hook has one argument, the event; new data is a new field of the event, so no hook
ever changes its signature. Every hook is ``async def``. Subclassing the hookspec class
is optional, and lets a type checker verify the signatures.

A handler that raises leaves nothing behind. A handler of an undo event (deleted, left,
unpublished, released) succeeds when there is nothing left to undo.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, TypeVar

import pluggy

from .events import (
    AddressReleased,
    AddressRequested,
    Capability,
    DriverLoaded,
    EndpointCreated,
    EndpointDeleted,
    EndpointInspected,
    EndpointJoined,
    EndpointLeft,
    EndpointPublished,
    EndpointUnpublished,
    Event,
    JoinInfo,
    LeaveInfo,
    NetworkChecked,
    NetworkCreated,
    NetworkDeleted,
    NetworkRequested,
    NetworkRestored,
    PoolInspected,
    PoolReleased,
    PoolRequested,
    PublishInfo,
)
from .options import NoOptions
from .reports import Difference
from .types import (
    JSON,
    Address,
    EndpointState,
    NetworkState,
    Pool,
    PoolStatus,
    PortBinding,
    Requirements,
)

#: The pluggy project: the prefix of hook names and of the markers' attributes.
PROJECT = "cnm"

Hook = TypeVar("Hook", bound=Callable[..., Awaitable[Any]])


def hookspec(function: Hook) -> Hook:
    """Mark a method as the specification of a hook."""
    return pluggy.HookspecMarker(PROJECT)(function)


def hookimpl(function: Hook) -> Hook:
    """Mark an ``async def`` method of a driver or an observer as a hook."""
    return pluggy.HookimplMarker(PROJECT)(function)


class NetworkDriver:
    """The hooks of a network driver (entry-point group ``cnm.network_drivers``).

    ``endpoint.joined`` and ``endpoint.left`` are mandatory. Events of one endpoint
    come one at a time, after its ``network.created`` and before its
    ``network.deleted``; events of different endpoints may come at the same time.
    """

    #: A dataclass of the options of its networks, for ``python -m cnm driver NAME``.
    network_options: ClassVar[type[object]] = NoOptions

    @hookspec
    async def cnm_driver_loaded(self, event: DriverLoaded) -> Capability | None:
        """Keep what the event hands out. Called once, before any other hook."""
        return None

    @hookspec
    async def cnm_network_requested(
        self, event: NetworkRequested
    ) -> Requirements | None:
        """Check the options, and say what the network needs. Nothing exists yet."""
        return None

    @hookspec
    async def cnm_network_created(self, event: NetworkCreated) -> NetworkState | None:
        """Build the network in the kernel."""
        return None

    @hookspec
    async def cnm_network_deleted(self, event: NetworkDeleted) -> None:
        """Remove what was built for the network."""

    @hookspec
    async def cnm_network_restored(self, event: NetworkRestored) -> NetworkState | None:
        """Take the network up again; build what is not there, mend what is damaged.

        It comes after a restart, and in a repair while endpoints are joined. Of their
        interfaces only what is outside of the sandboxes is the driver's concern; one
        that is gone is made again by ``endpoint.left`` and ``endpoint.joined``.
        """
        return None

    @hookspec
    async def cnm_network_checked(
        self, event: NetworkChecked
    ) -> tuple[Difference, ...]:
        """Tell what the kernel lacks of what was built for the network."""
        return ()

    @hookspec
    async def cnm_endpoint_created(
        self, event: EndpointCreated
    ) -> EndpointState | None:
        """Check the endpoint's options, and choose a MAC address."""
        return None

    @hookspec
    async def cnm_endpoint_deleted(self, event: EndpointDeleted) -> None:
        """Forget the endpoint."""

    @hookspec
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> JoinInfo:
        """Make the interface, or say how it is made."""
        raise NotImplementedError

    @hookspec
    async def cnm_endpoint_left(self, event: EndpointLeft) -> LeaveInfo | None:
        """Remove the interface, or say how it is removed."""
        return None

    @hookspec
    async def cnm_endpoint_published(
        self, event: EndpointPublished
    ) -> tuple[PortBinding, ...] | PublishInfo:
        """Make exactly the requested ports reachable, or say how that is done."""
        return ()

    @hookspec
    async def cnm_endpoint_unpublished(
        self, event: EndpointUnpublished
    ) -> PublishInfo | None:
        """Make all ports of the endpoint unreachable again, or say how that is done."""
        return None

    @hookspec
    async def cnm_endpoint_inspected(
        self, event: EndpointInspected
    ) -> Mapping[str, JSON] | None:
        """Tell what the driver knows of the endpoint."""
        return None


class IPAMDriver:
    """The hooks of an IPAM driver (entry-point group ``cnm.ipam_drivers``).

    After a restart the core asks again for every pool and address that is in use,
    so that a driver needs no store. All but ``pool.inspected`` are mandatory.
    """

    @hookspec
    async def cnm_pool_requested(self, event: PoolRequested) -> Pool:
        """Choose a subnet, or reserve the one that was asked for."""
        raise NotImplementedError

    @hookspec
    async def cnm_pool_released(self, event: PoolReleased) -> None:
        """Take a subnet back."""

    @hookspec
    async def cnm_address_requested(self, event: AddressRequested) -> Address:
        """Choose an address, or reserve the one that was asked for."""
        raise NotImplementedError

    @hookspec
    async def cnm_address_released(self, event: AddressReleased) -> None:
        """Take an address back."""

    @hookspec
    async def cnm_pool_inspected(self, event: PoolInspected) -> PoolStatus | None:
        """Tell how full a pool is."""
        return None


class Observer:
    """The hook of an observer (entry-point group ``cnm.observers``)."""

    @hookspec
    async def cnm_event(self, event: Event) -> None:
        """Hear of an event, after it has been stored.

        Events come in order, one at a time. What it raises is logged, and concerns
        nobody else.
        """


#: Hooks that a driver of the kind must implement.
MANDATORY: Mapping[type, frozenset[str]] = {
    NetworkDriver: frozenset({"cnm_endpoint_joined", "cnm_endpoint_left"}),
    IPAMDriver: frozenset(
        {
            "cnm_pool_requested",
            "cnm_pool_released",
            "cnm_address_requested",
            "cnm_address_released",
        }
    ),
    Observer: frozenset({"cnm_event"}),
}
