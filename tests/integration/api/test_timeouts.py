"""Drivers and stores that do not answer: who waits for them, and who does not."""

# ruff: noqa: ASYNC110, ASYNC240 - the block is what is tested

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.to_thread
import pytest

import cnm
from cnm import Controller
from cnm.driver import (
    Address,
    AddressRequested,
    EndpointJoined,
    EndpointLeft,
    JoinInfo,
    LeaveInfo,
    NetworkCreated,
    NetworkState,
    hookimpl,
)
from cnm.ipam.default import DefaultIPAM
from cnm.linux import Placement, Sockets
from cnm.store import Delete, Put
from cnm.workers import Overdue, Workers, unhurried

from .fakes import FakeDriver

SUBNET = "10.9.0.0/24"
SHORT = 0.2
#: Much more than it takes if nobody waits for the one that hangs.
LONG = 30


class HangingDriver(FakeDriver):
    """Its plans hang where they are told to, until they are released."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs: set[str] = set()
        self.released = threading.Event()
        self.returned = threading.Semaphore(0)

    def wait(self, sockets: Sockets | Placement) -> None:
        """Plan: take too long."""
        self.released.wait(LONG)
        self.returned.release()

    @hookimpl
    async def cnm_driver_loaded(self, event: cnm.driver.DriverLoaded) -> None:
        self.kernel = event.kernel

    @hookimpl
    async def cnm_network_created(self, event: NetworkCreated) -> NetworkState:
        if event.name in self.hangs:
            await self.kernel.run(self.wait)
        return await super().cnm_network_created(event)

    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> JoinInfo:
        if event.name in self.hangs:
            return JoinInfo(plan=self.wait)
        return await super().cnm_endpoint_joined(event)

    @hookimpl
    async def cnm_endpoint_left(self, event: EndpointLeft) -> LeaveInfo | None:
        await super().cnm_endpoint_left(event)
        return LeaveInfo(plan=self.wait) if event.name in self.hangs else None


@pytest.fixture
def slow() -> Iterator[HangingDriver]:
    driver = HangingDriver()
    yield driver
    driver.released.set()


@asynccontextmanager
async def running(slow: HangingDriver) -> AsyncIterator[Controller]:
    drivers = {"slow": slow, "quick": FakeDriver}
    async with Controller(drivers=drivers, driver_timeout=SHORT) as controller:
        yield controller


async def release(slow: HangingDriver, plans: int) -> None:
    """Have the plans that hang return; their threads end."""
    slow.released.set()
    for _ in range(plans):
        assert await anyio.to_thread.run_sync(slow.returned.acquire, True, LONG)
    with anyio.fail_after(LONG):
        while sum(t.name == "cnm-kernel" for t in threading.enumerate()) > 2:
            await anyio.sleep(0.01)


async def use(controller: Controller, name: str) -> None:
    """Make a network and use it, which is none of the slow driver's business."""
    network = await controller.create_network(name, "quick")
    sandbox = await controller.create_sandbox(name)
    await network.connect(sandbox)
    await sandbox.delete()
    await network.delete()


async def fails(operation: object, event: str) -> None:
    assert callable(operation)
    with pytest.raises(cnm.DriverError) as caught:
        await operation()
    assert caught.value.event == event
    assert str(caught.value) == (
        f"driver 'slow' failed to handle {event}: "
        f"its plan has not ended within {SHORT} s"
    )


async def test_plans_that_hang_keep_nobody_else(slow: HangingDriver) -> None:
    async with running(slow) as controller:
        network = await controller.create_network("net", "slow")
        boxes = [await controller.create_sandbox(f"box{n}") for n in range(4)]
        slow.hangs.add("endpoint.joined")
        with anyio.fail_after(LONG):
            async with anyio.create_task_group() as tasks:
                for box in boxes:  # more than there are threads
                    connect = partial(network.connect, box)
                    tasks.start_soon(fails, connect, "endpoint.joined")
                tasks.start_soon(use, controller, "other")
        assert network.endpoints == ()
        assert [box.endpoints for box in boxes] == [()] * 4
        slow.hangs.clear()
        await use(controller, "again")
        await release(slow, 4)
        await network.connect(boxes[0])
        assert await controller.check() == ()


async def test_a_plan_that_hangs_when_an_endpoint_leaves(slow: HangingDriver) -> None:
    async with running(slow) as controller:
        network = await controller.create_network("net", "slow")
        box = await controller.create_sandbox("box")
        endpoint = await network.connect(box)
        slow.hangs.add("endpoint.left")
        with pytest.raises(cnm.TeardownError) as caught:
            await endpoint.leave()
        assert "its plan has not ended within" in str(caught.value.exceptions[0])
        assert not endpoint.joined
        slow.hangs.clear()
        await endpoint.join(box)
        slow.hangs.add("endpoint.left")
        async with controller.subscribe(cnm.DriverFailed) as failures:
            with pytest.raises(cnm.TeardownError) as caught:
                await box.delete()
            failures.end()
            [failed] = [it async for it in failures]
        assert failed.event.name == "endpoint.left"
        assert "its plan has not ended within 0.2 s" in failed.error
        assert failed.error in map(str, caught.value.exceptions)
        assert not os.path.exists(box.key)
        assert controller.sandboxes == ()
        slow.hangs.clear()
        await network.delete(force=True)
        await release(slow, 2)


async def test_a_plan_of_a_handler_that_hangs(slow: HangingDriver) -> None:
    async with running(slow) as controller:
        slow.hangs.add("network.created")
        with anyio.fail_after(LONG), pytest.raises(cnm.KernelError) as caught:
            await controller.create_network("net", "slow")
        assert str(caught.value) == (
            "run tests.integration.api.test_timeouts.HangingDriver.wait: "
            f"it has not ended within {SHORT} s"
        )
        assert controller.networks == ()
        await release(slow, 1)


@pytest.mark.parametrize("event", ["network.created", "endpoint.joined"])
async def test_a_handler_that_hangs(slow: HangingDriver, event: str) -> None:
    async with running(slow) as controller:
        slow.fail[event] = "hang"
        box = await controller.create_sandbox("box")

        async def connect() -> None:
            network = await controller.create_network("net", "slow")
            try:
                await network.connect(box)
            finally:
                await network.delete()

        with anyio.fail_after(LONG):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(use, controller, "other")
                with pytest.raises(cnm.DriverError) as caught:
                    await connect()
        assert str(caught.value) == (
            f"driver 'slow' failed to handle {event}: no answer after {SHORT} s"
        )
        assert controller.networks == ()


class HangingIPAM(DefaultIPAM):
    """Has no address for anybody."""

    @hookimpl
    async def cnm_address_requested(self, event: AddressRequested) -> Address:
        await anyio.sleep_forever()
        raise AssertionError


async def test_an_ipam_driver_that_hangs(slow: HangingDriver) -> None:
    settings = {"slow": HangingIPAM}
    async with Controller(ipam_drivers=settings, driver_timeout=SHORT) as controller:
        with anyio.fail_after(LONG):
            with pytest.raises(cnm.DriverError, match=r"no answer after 0\.2 s"):
                await controller.create_network("net", ipam="slow", subnets=[SUBNET])
        assert controller.networks == ()
        network = await controller.create_network("net", subnets=[SUBNET])
        await network.delete()


class HangingStore(cnm.MemoryStore):
    """Does not answer while it is told not to."""

    hangs = False

    async def transaction(self, *changes: Put | Delete) -> None:
        if self.hangs:
            await anyio.sleep_forever()
        await super().transaction(*changes)


async def test_a_store_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    store = HangingStore()
    async with Controller(store=store) as controller:
        monkeypatch.setattr(controller._services.journal, "_timeout", SHORT)
        network = await controller.create_network("net")
        store.hangs = True
        with anyio.fail_after(LONG), pytest.raises(cnm.StoreError) as caught:
            await controller.create_network("other")
        assert str(caught.value) == "HangingStore has not answered within 0.2 s"
        with anyio.fail_after(LONG), pytest.raises(cnm.StoreError):
            await network.create_endpoint("x")
        assert controller.networks == (network,)
        assert network.endpoints == ()
        store.hangs = False
        await controller.create_network("other")
        assert await controller.check() == ()


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), "1", True])
def test_what_is_no_time(timeout: float) -> None:
    with pytest.raises(cnm.InvalidError, match="driver_timeout: expected seconds"):
        Controller(driver_timeout=timeout)


async def test_who_has_been_given_up_records_nothing() -> None:
    go_on, gone = threading.Event(), threading.Event()
    recorded: list[str] = []

    def late(context: None) -> None:
        go_on.wait()
        try:
            with unhurried():
                recorded.append("too late")
        finally:
            gone.set()

    def patient(context: None) -> str:
        with unhurried(to_the_end=True):
            time.sleep(2 * SHORT)
        time.sleep(2 * SHORT)
        return "in time"

    workers = Workers("test", 1, lambda: None, lambda context: None)
    with anyio.fail_after(LONG):
        with pytest.raises(Overdue):
            await workers.run(late, SHORT)
        go_on.set()
        await anyio.to_thread.run_sync(gone.wait)
        assert recorded == []
        assert await workers.run(patient, SHORT) == "in time"
        await workers.close()
