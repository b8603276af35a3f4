"""A driver that does not answer keeps nobody waiting but its own networks."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.to_thread
import pytest

from cnm import Controller, restore, workers
from cnm.lifecycle import remove_table
from cnm.linux import Sockets, delete_link
from cnm.workers import Workers

from .fakes import LastingStore, Slow

#: Much more than it takes if nobody waits for the one that hangs.
LONG = 30


class World:
    """Two drivers, each with a network and a sandbox in it."""

    def __init__(self) -> None:
        self.store = LastingStore()
        self.drivers = {"slow": Slow(), "other": Slow()}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Controller]:
        drivers = dict(self.drivers)
        async with Controller(store=self.store, drivers=drivers) as controller:
            yield controller

    async def make(self, controller: Controller) -> None:
        for name in self.drivers:
            network = await controller.create_network(name, name)
            await network.connect(await controller.create_sandbox(name))

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

    async def remove(self, controller: Controller) -> None:
        for sandbox in controller.sandboxes:
            await sandbox.delete()
        for network in controller.networks:
            await network.delete(force=True)
        # it stays with a persistent controller; the test takes it along
        services = controller._services
        await services.kernel.run(remove_table, services)


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
        await world.remove(controller)


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
            await world.remove(controller)

    await world.both("endpoint.joined", start_again)


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
