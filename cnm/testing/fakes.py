"""A driver for tests of what a controller does, and not of what drivers do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import anyio

from ..events import (
    EndpointCreated,
    EndpointDeleted,
    EndpointInspected,
    EndpointJoined,
    EndpointLeft,
    Event,
    JoinInfo,
    LeaveInfo,
    NetworkCreated,
    NetworkDeleted,
    NetworkRequested,
)
from ..hookspecs import NetworkDriver, hookimpl
from ..linux import Placement, add_veth
from ..types import JSON, EndpointState, NetworkState, Requirements

R = TypeVar("R")
#: The MAC address of all interfaces that nobody asks another one for.
MAC = "02:00:00:00:00:01"


class FakeDriver(NetworkDriver):
    """Makes interfaces that lead nowhere, notes what it is told, and fails if asked to.

    The interface is one end of a veth pair whose other end is in the sandbox, too.

    :ivar calls: names of the events that it was told, in order
    :ivar events: the events themselves
    :ivar fail: what it does on an event, by the event's name: an exception is raised,
        ``"hang"`` never ends, anything else is returned. ``"plan"`` stands for the plan
        that makes an interface
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.events: list[Event] = []
        self.fail: dict[str, Any] = {}

    async def _hear(self, event: Event, answer: R) -> R:
        self.calls.append(event.name)
        self.events.append(event)
        wrong = self.fail.get(event.name)
        if isinstance(wrong, BaseException):
            raise wrong
        if wrong == "hang":
            await anyio.sleep_forever()
        return answer if wrong is None else cast("R", wrong)

    @hookimpl
    async def cnm_network_requested(self, event: NetworkRequested) -> Requirements:
        """Ask for nothing special."""
        return await self._hear(event, Requirements())

    @hookimpl
    async def cnm_network_created(self, event: NetworkCreated) -> NetworkState:
        """Make nothing."""
        state = NetworkState(interface_prefix="fake", state={"made": True})
        return await self._hear(event, state)

    @hookimpl
    async def cnm_network_deleted(self, event: NetworkDeleted) -> None:
        """Remove nothing."""
        await self._hear(event, None)

    @hookimpl
    async def cnm_endpoint_created(self, event: EndpointCreated) -> EndpointState:
        """Choose a MAC address."""
        return await self._hear(event, EndpointState(mac=event.endpoint.mac or MAC))

    @hookimpl
    async def cnm_endpoint_deleted(self, event: EndpointDeleted) -> None:
        """Forget nothing."""
        await self._hear(event, None)

    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> JoinInfo:
        """Say how the interface is made."""
        gateways = event.endpoint.network.gateways
        gateway = next((it for it in gateways if it.version == 4), None)
        return await self._hear(event, JoinInfo(plan=self.plug, gateway=gateway))

    @hookimpl
    async def cnm_endpoint_left(self, event: EndpointLeft) -> LeaveInfo | None:
        """Remove nothing: the pair goes with its end."""
        return await self._hear(event, None)

    @hookimpl
    async def cnm_endpoint_inspected(
        self, event: EndpointInspected
    ) -> Mapping[str, JSON]:
        """Tell something."""
        return await self._hear(event, {"fake": True})

    def plug(self, placement: Placement) -> None:
        """Plan: make a veth pair whose two ends are in the sandbox."""
        error = self.fail.get("plan")
        if error is not None:
            raise error
        placement.route.call(
            add_veth(
                f"p{placement.index % 10**9}",
                placement.interface,
                peer_index=placement.index,
                peer_mac=MAC,
            )
        )
