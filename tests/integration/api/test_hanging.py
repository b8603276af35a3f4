"""A driver that does not answer keeps nobody waiting but its own networks."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import cnm
from cnm import Controller, restore, workers
from cnm.journal import Deed
from cnm.linux import Sockets, delete_link, namespaces
from cnm.records import network_record
from cnm.store import Put
from cnm.types import JSON, NetworkState
from cnm.workers import Workers

from .fakes import LastingStore, Slow
from .test_restore import remove_from

#: Much more than it takes if nobody waits for the one that hangs.
LONG = 30


class World:
    """Two drivers, each with a network and a sandbox in it."""

    def __init__(self) -> None:
        self.store = LastingStore()
        self.drivers: dict[str, Slow] = {"slow": Slow(), "other": Slow()}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Controller]:
        drivers = dict(self.drivers)
        async with Controller(store=self.store, drivers=drivers) as controller:
            yield controller

    async def make(self, controller: Controller) -> None:
        for number, name in enumerate(self.drivers):
            network = await controller.create_network(name, name)
            sandbox = await controller.create_sandbox(name)
            await network.connect(sandbox, ports=[f"{8000 + number}:80"])

    async def both(
        self, event: str, operation: Callable[[], Coroutine[object, object, object]]
    ) -> None:
        """Have both drivers hang at an event; return when both have been told of it."""
        slow, other = self.drivers.values()
        with anyio.fail_after(LONG):
            async with (
                anyio.create_task_group() as tasks,
                slow.held(event) as first,
                other.held(event) as second,
            ):
                tasks.start_soon(operation)
                await first.wait()
                await second.wait()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(restore, "PATIENCE", 0.01)
    return World()


async def test_while_a_controller_runs(world: World) -> None:
    async with world.running() as controller:
        await world.make(controller)
        await world.both("network.checked", controller.check)
        for driver in world.drivers.values():
            driver.sick = True
        await world.both("network.restored", controller.repair)
        assert await controller.check() == ()
        await world.both("endpoint.left", partial(controller.gc, []))
        assert controller.sandboxes == ()
        for network in controller.networks:
            await network.create_endpoint("stray")
        await world.both("endpoint.deleted", partial(controller.gc, []))
        assert [network.endpoints for network in controller.networks] == [(), ()]
        await remove_from(controller)


async def test_when_a_controller_starts(world: World) -> None:
    async with world.running() as controller:
        await world.make(controller)

    async def start() -> None:
        async with world.running() as controller:
            outcomes = {it.outcome for it in controller.restored.entries}
            assert outcomes == {"kept"}
            await controller._services.kernel.run(_delete_interfaces, controller)

    await world.both("network.restored", start)

    async def start_again() -> None:
        async with world.running() as controller:
            outcomes = [it.outcome for it in controller.restored.entries]
            assert sorted(outcomes) == ["kept"] * 4 + ["remade"] * 2
            assert await controller.check() == ()
            await remove_from(controller)

    await world.both("endpoint.joined", start_again)


async def test_what_a_start_publishes_again(world: World) -> None:
    async with world.running() as controller:
        await world.make(controller)

    async def start() -> None:
        async with world.running() as controller:
            ports = [
                it.ports for it in controller._services.networks.endpoints.values()
            ]
            assert all(ports)
            await remove_from(controller)

    await world.both("endpoint.published", start)


@pytest.mark.parametrize(
    ("deed", "event"),
    [
        ("network.create", "network.deleted"),
        ("endpoint.leave", "endpoint.left"),
        ("endpoint.delete", "endpoint.deleted"),
        ("sandbox.delete", "endpoint.left"),
        ("network.delete", "network.deleted"),
    ],
)
async def test_what_was_interrupted(world: World, deed: Deed, event: str) -> None:
    async with world.running() as controller:
        await world.make(controller)
        for network in controller.networks:
            (endpoint,) = network.endpoints
            subjects = {"network": network, "sandbox": endpoint.sandbox}
            subject = subjects.get(deed.partition(".")[0], endpoint)
            assert subject is not None
            value: dict[str, JSON] = {"deed": deed, "object": subject.id}
            value |= {"endpoints": [endpoint.id], "force": True}
            if deed == "network.create":
                value["network"] = network_record(network.info, NetworkState())
            await world.store.transaction(Put(f"intent/{subject.id}/{deed}", value))

    async def start() -> None:
        async with world.running() as controller:
            assert await world.store.scan("intent/") == ()
            assert len(controller.restored.of("undone", "completed")) == 2
            await remove_from(controller)

    await world.both(event, start)


async def test_what_is_left_of_lost_sandboxes(world: World) -> None:
    async with world.running() as controller:
        await world.make(controller)
        for sandbox in controller.sandboxes:
            await anyio.to_thread.run_sync(namespaces.unpin, sandbox.key)

    async def start() -> None:
        async with world.running() as controller:
            assert controller.restored.counts == {
                "kept": 2,
                "detached": 2,
                "dropped": 2,
            }
            await remove_from(controller)

    await world.both("endpoint.left", start)


class OneByOne(Slow):
    """Counts what it does at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once = self.most = 0

    async def wait(self, event: cnm.Event) -> None:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        self.at_once -= 1


async def test_things_of_one_network_are_done_in_order(world: World) -> None:
    driver = OneByOne()
    world.drivers = {"one": driver}
    async with world.running() as controller:
        await world.make(controller)
        (network,) = controller.networks
        others = [await network.create_endpoint(name) for name in ("two", "three")]
        (joined,) = controller.sandboxes[0].endpoints
        deeds: list[tuple[Deed, str]] = [
            ("network.delete", network.id),
            ("sandbox.delete", controller.sandboxes[0].id),
            *(("endpoint.delete", it.id) for it in others),
            ("ports.change", joined.id),
        ]
        for deed, identity in deeds:
            value: dict[str, JSON] = {"deed": deed, "object": identity}
            value |= {"endpoints": [joined.id], "force": False}
            await world.store.transaction(Put(f"intent/{identity}/{deed}", value))
    driver.calls.clear()
    async with world.running() as controller:
        assert (controller.networks, controller.sandboxes) == ((), ())
        assert driver.most == 1
        assert driver.calls[-6:] == [
            "endpoint.deleted",
            "endpoint.deleted",
            "endpoint.unpublished",
            "endpoint.left",
            "endpoint.deleted",
            "network.deleted",
        ]
        await remove_from(controller)


def _delete_interfaces(sockets: Sockets, controller: Controller) -> None:
    for sandbox in controller.sandboxes:
        with sockets.sandbox(sandbox.key) as inside:
            (endpoint,) = sandbox.endpoints
            assert endpoint.attachment is not None
            inside.route.call(delete_link(endpoint.attachment.index))


def _threads() -> int:
    return sum(thread.name == "hanging" for thread in threading.enumerate())


async def test_another_thread_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "STALL", 0.01)
    go_on = threading.Event()

    def hang(context: None) -> str:
        return "on time" if go_on.wait(LONG) else "late"

    def work(context: None) -> str:
        return threading.current_thread().name

    pool = Workers("hanging", 1, lambda: None, lambda context: None)
    results: list[str] = []

    async def wait() -> None:
        results.append(await pool.run(hang, LONG))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(LONG):
            assert await pool.run(work) == "hanging"
        assert (results, _threads()) == ([], 4)
        go_on.set()
    assert results == ["on time"] * 3
    # those that are too many end, and those that are left go on
    for _ in range(4):
        assert await pool.run(work) == "hanging"
    await pool.close()
    assert _threads() == 0


async def test_only_who_may_be_given_up_is_stood_in_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "STALL", 0.01)
    go_on = threading.Event()
    order: list[str] = []

    def first(context: None) -> None:
        go_on.wait(LONG)
        order.append("first")

    def second(context: None) -> None:
        order.append("second")

    pool = Workers("hanging", 1, lambda: None, lambda context: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool.run, first)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(pool.run, second, LONG)
        await anyio.wait_all_tasks_blocked()
        await anyio.sleep(0.05)  # nobody has come to the second's help
        assert (order, _threads()) == ([], 1)
        go_on.set()
    assert order == ["first", "second"]
    await pool.close()


async def test_a_thread_that_cannot_begin_leaves_jobs_to_others() -> None:
    made: list[str] = []
    go_on = threading.Event()

    def make() -> None:
        made.append(threading.current_thread().name)
        if len(made) == 2:
            go_on.set()
            raise OSError("too many open files")

    pool = Workers("hanging", 2, make, lambda context: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool.run, lambda context: go_on.wait(LONG))
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(LONG):
            assert await pool.run(lambda context: "done") == "done"
    assert len(made) >= 2
    await pool.close()
