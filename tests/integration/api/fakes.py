"""Stores that fail when they are told to, and a driver that waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import TypeVar

import anyio

import cnm
from cnm import MemoryStore, StoreError
from cnm.driver import (
    EndpointPublished,
    EndpointUnpublished,
    NetworkChecked,
    NetworkState,
    PortBinding,
    hookimpl,
)
from cnm.store import Delete, Put
from cnm.testing.fakes import FakeDriver

__all__ = ["FailingStore", "FakeDriver", "LastingStore", "Slow", "bound"]

R = TypeVar("R")


def bound(event: EndpointPublished) -> tuple[PortBinding, ...]:
    """Return what would be bound if everything that is asked for was published."""
    return tuple(
        PortBinding(
            container_port=request.container_port,
            host_port=request.host_port,
            host_address=IPv4Address("0.0.0.0"),
            container_address=IPv4Address("10.0.0.1"),
        )
        for request in event.requests
    )


class FailingStore(MemoryStore):
    """Refuses transactions while it is told to; or those only that are no intents."""

    def __init__(self) -> None:
        super().__init__()
        self.failing = False
        self.tolerates_intents = True
        self.transactions: list[tuple[Put | Delete, ...]] = []
        self.refused = 0

    async def transaction(self, *changes: Put | Delete) -> None:
        key = changes[0].key
        if self.failing and not (self.tolerates_intents and key.startswith("intent/")):
            self.refused += 1
            raise StoreError("disk full")
        await super().transaction(*changes)
        self.transactions.append(changes)


class LastingStore(FailingStore):
    """Says that it outlives the controller, so that there are intents in it."""

    persistent = True


class Slow(FakeDriver):
    """Publishes nothing, and says that it has; waits where it is told to.

    :ivar published: names of the endpoints by way of which something is published
    :ivar sick: whether its networks are in need of repair
    """

    def __init__(self) -> None:
        super().__init__()
        self.published: set[str] = set()
        self.sick = False
        self._held: dict[str, tuple[anyio.Event, anyio.Event]] = {}

    @asynccontextmanager
    async def held(self, name: str) -> AsyncIterator[anyio.Event]:
        """Have an event wait until the end of the block."""
        came, go_on = self._held[name] = anyio.Event(), anyio.Event()
        try:
            yield came
        finally:
            del self._held[name]
            go_on.set()

    async def wait(self, event: cnm.Event) -> None:
        """Wait, if the event is held."""
        if event.name in self._held:
            came, go_on = self._held[event.name]
            came.set()
            await go_on.wait()

    async def _hear(self, event: cnm.Event, answer: R) -> R:
        await self.wait(event)
        return await super()._hear(event, answer)

    @hookimpl
    async def cnm_endpoint_published(
        self, event: EndpointPublished
    ) -> tuple[PortBinding, ...]:
        self.published.add(event.endpoint.name)
        return await self._hear(event, bound(event))

    @hookimpl
    async def cnm_endpoint_unpublished(self, event: EndpointUnpublished) -> None:
        await self._hear(event, None)
        self.published.discard(event.endpoint.name)

    @hookimpl
    async def cnm_network_checked(
        self, event: NetworkChecked
    ) -> tuple[cnm.Difference, ...]:
        await self.wait(event)
        if not self.sick:
            return ()
        return (cnm.Difference(subject=event.network, problem="it is sick"),)

    @hookimpl
    async def cnm_network_restored(
        self, event: cnm.NetworkRestored
    ) -> NetworkState | None:
        self.sick = False
        return await self._hear(event, None)
