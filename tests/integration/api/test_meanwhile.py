"""What happens to an object while something else is being done about it."""

# ruff: noqa: SIM117 - tests nest what they wait for

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import cnm
from cnm import Controller
from cnm.driver import (
    Address,
    AddressRequested,
    EndpointCreated,
    EndpointState,
    NetworkState,
    hookimpl,
)
from cnm.ipam.default import DefaultIPAM
from cnm.linux import NetlinkSocket, Sockets, add_veth, set_link
from cnm.testing.fakes import MAC

from ...conftest import host_links
from ..lab import until_links
from .fakes import Slow

R = TypeVar("R")


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


async def test_an_endpoint_is_made_while_garbage_is_collected(slow: Slow) -> None:
    async with running(slow) as controller:
        network = await controller.create_network("front", "slow")
        old, box = [await controller.create_sandbox(it) for it in ("old", "box")]
        await network.connect(old)
        removed: list[object] = []

        async def collect() -> None:
            removed.extend(await controller.gc([box]))

        async with anyio.create_task_group() as tasks:
            async with slow.held("endpoint.left") as came:
                tasks.start_soon(collect)
                await came.wait()
                made = await network.create_endpoint("made")
        assert removed == [old.info]
        assert network.endpoints == (made,)
        await made.join(box)


async def test_an_endpoint_joins_while_garbage_is_collected(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(slow) as controller:
        network = await controller.create_network("front", "slow")
        box = await controller.create_sandbox("box")
        endpoint = await network.create_endpoint("late")
        came, go_on = anyio.Event(), anyio.Event()
        removed: list[object] = []

        async def take() -> None:
            """Have the first one wait for its turn, and no other."""
            if not came.is_set():
                came.set()
                await go_on.wait()

        async def collect() -> None:
            removed.extend(await controller.gc([box]))

        monkeypatch.setattr(controller._services.turns, "take", take)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect)
            await came.wait()
            await endpoint.join(box)
            go_on.set()
        assert removed == []
        assert (endpoint.joined, network.endpoints) == (True, (endpoint,))


async def test_two_endpoints_are_disconnected_whose_driver_fails(slow: Slow) -> None:
    async with running(slow) as controller:
        network = await controller.create_network("front", "slow")
        box = await controller.create_sandbox("box")
        for name in ("one", "two"):
            await network.connect(box, name=name)
        slow.fail["endpoint.left"] = RuntimeError("no")
        with pytest.raises(cnm.TeardownError, match="disconnecting") as caught:
            await network.disconnect(box)
        assert len(caught.value.exceptions) == 2
        assert (network.endpoints, box.endpoints) == ((), ())


async def test_a_sandbox_is_removed_while_somebody_looks_into_it() -> None:
    """Nothing keeps its namespace alive afterwards, which would keep its links."""
    inside, go_on = threading.Event(), threading.Event()

    def look(sockets: Sockets, key: str) -> None:
        with sockets.sandbox(key) as sandbox, NetlinkSocket() as route:
            route.call(add_veth("out0", "in0"))
            route.call(set_link(name="in0", netns=sandbox.netns))
            inside.set()
            go_on.wait(10)

    async with Controller(ready_namespaces=0) as controller:
        box = await controller.create_sandbox("box")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(controller._services.kernel.run, look, box.key)
            await anyio.to_thread.run_sync(inside.wait)
            assert "out0" in host_links()
            await box.delete()
            go_on.set()
        await until_links(lambda: "out0" not in host_links())


async def test_a_network_is_removed_while_somebody_checks(slow: Slow) -> None:
    async with running(slow) as controller:
        network = await controller.create_network("front", "slow")
        slow.sick = True
        (found,) = await controller.check()
        assert found.problem == "it is sick"
        async with anyio.create_task_group() as tasks:
            async with slow.held("network.deleted") as came:
                tasks.start_soon(network.delete)
                await came.wait()
                with anyio.fail_after(30):
                    assert await controller.check() == await controller.repair() == ()


async def test_a_network_is_removed_and_cancelled(slow: Slow) -> None:
    """It is removed all the same, and everybody hears of it."""
    async with Controller(drivers={"slow": slow}, manage_forward=True) as controller:
        network = await controller.create_network("front", "slow")
        async with controller.subscribe(cnm.NetworkDeleted) as events:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    async with slow.held("network.deleted") as came:
                        tasks.start_soon(network.delete)
                        await came.wait()
                        scope.cancel()
            with anyio.fail_after(30):
                assert (await anext(events)).network == network.info


async def test_a_name_is_taken_while_its_endpoint_is_undone() -> None:
    slow = Prompt()
    async with Controller(
        drivers={"slow": slow}, ipam_drivers={"slow": SlowIPAM(slow)}
    ) as controller:
        network = await controller.create_network("front", "slow", ipam="slow")
        boxes = [await controller.create_sandbox(it) for it in ("one", "two", "three")]
        refused: list[Exception] = []

        async def connect(box: cnm.Sandbox) -> None:
            try:
                await network.connect(box, name="same")
            except cnm.CNMError as exc:
                refused.append(exc)

        undoing = AsyncExitStack()
        async with anyio.create_task_group() as tasks:
            came = await undoing.enter_async_context(slow.held("endpoint.deleted"))
            slow.fail["plan"] = RuntimeError("no")
            tasks.start_soon(connect, boxes[0])
            await came.wait()
            slow.fail.clear()
            async with slow.held("address.requested"):
                tasks.start_soon(connect, boxes[1])
                await anyio.wait_all_tasks_blocked()
                await undoing.aclose()
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(connect, boxes[2])
                await anyio.wait_all_tasks_blocked()
        assert [type(it) for it in refused] == [cnm.NameConflict, cnm.DriverError]
        assert [it.sandbox for it in network.endpoints] == [boxes[2]]
        assert network.endpoint("same") is network.endpoints[0]


async def test_a_port_is_taken_while_it_moves_to_an_endpoint_that_cannot_have_it(
    slow: Slow,
) -> None:
    async with running(slow) as controller:
        front = await controller.create_network("front")
        back = await controller.create_network(
            "back", "slow", subnets=["10.9.0.0/24"], gateways=["10.9.0.1"]
        )
        box, thief = [await controller.create_sandbox(it) for it in ("box", "thief")]
        loser = await front.connect(box, ports=["8080:80"])
        slow.fail["endpoint.published"] = RuntimeError("no")

        async def connect() -> None:
            with pytest.raises(cnm.DriverError, match="no"):
                await back.connect(box, gateway_priority=5)

        async with anyio.create_task_group() as tasks:
            async with slow.held("endpoint.published") as came:
                tasks.start_soon(connect)
                await came.wait()
                winner = await front.connect(thief, ports=["8080:80"])
        assert (loser.ports, box.ports, len(winner.ports)) == ((), (), 2)
        services = controller._services
        record = await services.store.get(f"endpoint/{loser.id}")
        assert record is not None
        assert record.value["ports"] == []
        assert (back.endpoints, box.endpoints) == ((), (loser,))
        # it is published again as soon as that is possible
        await thief.delete()
        await loser.publish("8081:81")
        assert {it.host_port for it in loser.ports} == {8080, 8081}
