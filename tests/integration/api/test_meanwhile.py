"""What happens to an object while something else is being done about it."""

# ruff: noqa: SIM117 - tests nest what they wait for

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.lowlevel
import pytest

import cnm
from cnm import Controller
from cnm.driver import (
    Address,
    AddressRequested,
    EndpointCreated,
    EndpointPublished,
    EndpointState,
    EndpointUnpublished,
    NetworkChecked,
    NetworkState,
    PortBinding,
    hookimpl,
)
from cnm.ipam.default import DefaultIPAM
from cnm.testing.fakes import MAC, FakeDriver

R = TypeVar("R")


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
        address = event.endpoint.address
        assert address is not None
        self.published.add(event.endpoint.name)
        bindings = tuple(
            PortBinding(
                container_port=request.container_port,
                host_port=request.host_port,
                host_address=address.ip,
                container_address=address.ip,
            )
            for request in event.requests
        )
        return await self._hear(event, bindings)

    @hookimpl
    async def cnm_endpoint_unpublished(self, event: EndpointUnpublished) -> None:
        self.published.discard(event.endpoint.name)

    @hookimpl
    async def cnm_network_checked(
        self, event: NetworkChecked
    ) -> tuple[cnm.Difference, ...]:
        if not self.sick:
            return ()
        return (cnm.Difference(subject=event.network, problem="it is sick"),)

    @hookimpl
    async def cnm_network_restored(
        self, event: cnm.NetworkRestored
    ) -> NetworkState | None:
        self.sick = False
        return await self._hear(event, None)


@pytest.fixture
async def slow() -> Slow:
    return Slow()


@asynccontextmanager
async def running(slow: Slow) -> AsyncIterator[Controller]:
    async with Controller(drivers={"slow": slow}, on_damage="report") as controller:
        yield controller


async def test_an_endpoint_leaves_while_its_network_is_repaired(slow: Slow) -> None:
    async with running(slow) as controller:
        network = await controller.create_network("front", "slow")
        box = await controller.create_sandbox("box")
        endpoint = await network.connect(box, ports=["8080:80"])
        assert slow.published == {"box"}
        slow.sick = True
        async with anyio.create_task_group() as tasks:
            async with slow.held("endpoint.left") as came:
                tasks.start_soon(endpoint.leave)
                await came.wait()
                tasks.start_soon(controller.repair)
                while slow.sick:
                    await anyio.lowlevel.checkpoint()
                await anyio.wait_all_tasks_blocked()
        assert (endpoint.joined, slow.published) == (False, set())


def renewed(number: int) -> NetworkState:
    return NetworkState(interface_prefix="fake", state={"number": number})


async def test_ports_are_published_while_a_network_is_renewed(slow: Slow) -> None:
    async with running(slow) as controller:
        network = await controller.create_network("front", "slow")
        box = await controller.create_sandbox("box")
        endpoint = await network.connect(box)
        slow.sick, slow.fail["network.restored"] = True, renewed(1)
        async with anyio.create_task_group() as tasks:
            async with slow.held("endpoint.published") as came:
                tasks.start_soon(endpoint.publish, "8080:80")
                await came.wait()
                await controller.repair()
        assert network.info.driver_state == {"number": 1}
        assert len(endpoint.ports) == 1
        assert endpoint.info.network is network.info


class Prompt(Slow):
    """Waits for nothing to create an endpoint."""

    @hookimpl
    async def cnm_endpoint_created(self, event: EndpointCreated) -> EndpointState:
        return EndpointState(mac=event.endpoint.mac or MAC)


class SlowIPAM(DefaultIPAM):
    """Waits before it gives addresses to endpoints."""

    def __init__(self, slow: Slow) -> None:
        super().__init__()
        self._slow = slow

    @hookimpl
    async def cnm_address_requested(self, event: AddressRequested) -> Address:
        await self._slow.wait(event)
        return await super().cnm_address_requested(event)


@pytest.mark.parametrize("kind", [Slow, Prompt])
async def test_an_endpoint_is_made_while_a_network_is_renewed(kind: type[Slow]) -> None:
    slow = kind()
    async with Controller(
        drivers={"slow": slow}, ipam_drivers={"slow": SlowIPAM(slow)}
    ) as controller:
        network = await controller.create_network("front", "slow", ipam="slow")
        box = await controller.create_sandbox("box")
        slow.fail["network.restored"] = renewed(1)
        async with anyio.create_task_group() as tasks:
            async with slow.held("address.requested") as came:
                tasks.start_soon(network.connect, box)
                await came.wait()
                slow.sick = True
                await controller.repair()
        (endpoint,) = network.endpoints
        assert network.info.driver_state == {"number": 1}
        assert endpoint.info.network is network.info
