"""Drivers and stores that record what happens, and fail when they are told to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio

from cnm import MemoryStore, StoreError
from cnm.driver import (
    JSON,
    EndpointCreated,
    EndpointDeleted,
    EndpointInspected,
    EndpointJoined,
    EndpointLeft,
    EndpointState,
    Event,
    JoinInfo,
    LeaveInfo,
    NetworkCreated,
    NetworkDeleted,
    NetworkDriver,
    NetworkRequested,
    NetworkState,
    Requirements,
    hookimpl,
)
from cnm.linux import Placement, add_veth
from cnm.store import Delete, Put


class FakeDriver(NetworkDriver):
    """Makes a veth pair whose other end is in the sandbox, too.

    :ivar calls: names of the events that were handled
    :ivar fail: what is raised, or returned, on an event, by name
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.events: list[Event] = []
        self.fail: dict[str, Any] = {}

    async def _hear(self, event: Event, answer: Any) -> Any:
        self.calls.append(event.name)
        self.events.append(event)
        wrong = self.fail.get(event.name)
        if isinstance(wrong, BaseException):
            raise wrong
        if wrong == "hang":
            await anyio.sleep_forever()
        return answer if wrong is None else wrong

    @hookimpl
    async def cnm_network_requested(self, event: NetworkRequested) -> Requirements:
        return await self._hear(event, Requirements())  # type: ignore[no-any-return]

    @hookimpl
    async def cnm_network_created(self, event: NetworkCreated) -> NetworkState:
        state = NetworkState(interface_prefix="fake", state={"made": True})
        return await self._hear(event, state)  # type: ignore[no-any-return]

    @hookimpl
    async def cnm_network_deleted(self, event: NetworkDeleted) -> None:
        await self._hear(event, None)

    @hookimpl
    async def cnm_endpoint_created(self, event: EndpointCreated) -> EndpointState:
        state = EndpointState(mac=event.endpoint.mac or "02:00:00:00:00:01")
        return await self._hear(event, state)  # type: ignore[no-any-return]

    @hookimpl
    async def cnm_endpoint_deleted(self, event: EndpointDeleted) -> None:
        await self._hear(event, None)

    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> JoinInfo:
        gateways = event.endpoint.network.gateways
        join = JoinInfo(plan=self.plug, gateway=gateways[0])
        return await self._hear(event, join)  # type: ignore[no-any-return]

    @hookimpl
    async def cnm_endpoint_left(self, event: EndpointLeft) -> LeaveInfo | None:
        return await self._hear(event, None)  # type: ignore[no-any-return]

    @hookimpl
    async def cnm_endpoint_inspected(
        self, event: EndpointInspected
    ) -> Mapping[str, JSON]:
        return await self._hear(event, {"fake": True})  # type: ignore[no-any-return]

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
                peer_mac="02:00:00:00:00:01",
            )
        )


class FailingStore(MemoryStore):
    """Refuses transactions while it is told to; or those only that are no intents."""

    def __init__(self) -> None:
        super().__init__()
        self.failing = False
        self.tolerates_intents = True
        self.transactions: list[tuple[Put | Delete, ...]] = []

    async def transaction(self, *changes: Put | Delete) -> None:
        key = changes[0].key
        if self.failing and not (self.tolerates_intents and key.startswith("intent/")):
            raise StoreError("disk full")
        await super().transaction(*changes)
        self.transactions.append(changes)
