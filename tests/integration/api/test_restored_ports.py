"""Ports that are published again when a controller starts, many at a time."""

# ruff: noqa: ASYNC110 - threads are waited for

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import cnm
from cnm import Controller, SQLiteStore
from cnm.driver import (
    EndpointInfo,
    EndpointPublished,
    PortBinding,
    PublishInfo,
    hookimpl,
)
from cnm.linux import Kernel, NetlinkSocket, Sockets, namespaces
from cnm.store import Put

from .fakes import FakeDriver, Slow, bound
from .test_interrupted import edited
from .test_restore import remove_all

SHORT = 0.2
#: Much more than it takes if nobody waits for the one that hangs.
LONG = 30
#: More than are published in one trip to a thread.
MANY = 150


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


class PublishingDriver(FakeDriver):
    """Publishes nothing, and says that it has: by a plan, which does what it is told.

    :ivar tricks: what the plan does for an endpoint, by name: it raises an error, or
        hangs
    :ivar published: the endpoints whose plans have run, in order
    """

    def __init__(self) -> None:
        super().__init__()
        self.tricks: dict[str, Exception | threading.Event] = {}
        self.published: list[str] = []

    @hookimpl
    async def cnm_endpoint_published(
        self, event: EndpointPublished
    ) -> tuple[PortBinding, ...] | PublishInfo:
        if event.endpoint.name.startswith("prompt"):
            return bound(event)
        return PublishInfo(plan=partial(self._publish, event))

    def _publish(
        self, event: EndpointPublished, sockets: Sockets
    ) -> tuple[PortBinding, ...]:
        name = event.endpoint.name
        self.published.append(name)
        trick = self.tricks.get(name)
        if isinstance(trick, Exception):
            raise trick
        if trick is not None:
            assert trick.wait(LONG)
        return bound(event)


@pytest.fixture
def driver() -> Iterator[PublishingDriver]:
    driver = PublishingDriver()
    yield driver
    for trick in driver.tricks.values():
        if isinstance(trick, threading.Event):
            trick.set()


async def test_each_endpoint_has_an_outcome_of_its_own(
    path: Path, driver: PublishingDriver
) -> None:
    """Whatever happens to one, the others publish what they did, once."""
    second = PublishingDriver()

    def controller() -> Controller:
        drivers = {"one": driver, "two": second}
        store = SQLiteStore(path)
        return Controller(store=store, drivers=drivers, driver_timeout=SHORT)

    async with controller() as running:
        networks = [await running.create_network(it, it) for it in ("one", "two")]
        for number in range(MANY):
            for network in networks if number < 5 else networks[:1]:
                name = f"{'prompt' if number == 3 else 'box'}{number}"
                box = await running.create_sandbox(f"{network.name}-{name}")
                ports = [f"{8000 + number}:80"]
                await network.connect(box, name=name, ports=ports)
    driver.published.clear()
    second.published.clear()
    driver.tricks = {
        "box10": threading.Event(),
        "box12": cnm.KernelError(5, "publish"),
        "box13": RuntimeError("a bug"),
        "box70": cnm.PortInUse(["8070/tcp is taken"], ["0.0.0.0:8070/tcp"]),
        "box149": threading.Event(),
    }
    async with controller() as running:
        first, other = (running.network(it) for it in ("one", "two"))
        failed = {
            it.subject.name: it.detail
            for it in running.restored.entries
            if isinstance(it.subject, EndpointInfo) and it.outcome == "failed"
        }
        late = (
            "its ports are not published: driver 'one' failed to handle "
            f"endpoint.published: its plan has not ended within {SHORT} s"
        )
        assert failed == {
            "box10": late,
            "box12": "its ports are not published: publish: Input/output error",
            "box13": (
                "its ports are not published: driver 'one' failed to handle "
                "endpoint.published: a bug"
            ),
            "box70": "not all ports are published: 8070/tcp is taken",
            "box149": late,
        }
        names = [it.name for it in first.endpoints if it.name != "prompt3"]
        assert driver.published == names
        assert second.published == ["box0", "box1", "box2", "box4"]
        unpublished = {it.name for it in first.endpoints if not it.ports}
        assert unpublished == failed.keys()
        assert all(it.ports for it in other.endpoints)
        for trick in driver.tricks.values():
            if isinstance(trick, threading.Event):
                trick.set()
        driver.tricks.clear()
        with anyio.fail_after(LONG):
            while sum(it.name == "cnm-kernel" for it in threading.enumerate()) > 2:
                await anyio.sleep(0.01)
        assert driver.published == names  # a thread that comes back goes no further
    async with controller() as running:
        assert running.restored.entries
        assert {it.outcome for it in running.restored.entries} == {"kept"}
        assert all(it.ports for it in running.network("one").endpoints)
        for sandbox in running.sandboxes:
            await sandbox.delete()
        for name in ("one", "two"):
            await running.network(name).delete()
    await remove_all(path)


async def test_ports_that_are_taken_fail_alone(path: Path) -> None:
    async with Controller(store=SQLiteStore(path)) as controller:
        network = await controller.create_network("front", subnets=["10.9.0.0/24"])
        for number in range(70):
            box = await controller.create_sandbox(f"box{number}")
            ports = [f"{8000 + number}:80", f"{9000 + number}:81"]
            await network.connect(box, ports=ports)
        before = {it.name: it.ports for it in network.endpoints}
    taken = ("box0", "box33", "box69")
    with ExitStack() as stack:
        for name in taken:
            busy = stack.enter_context(socket.socket())
            busy.bind(("0.0.0.0", 8000 + int(name.removeprefix("box"))))
        async with Controller(store=SQLiteStore(path)) as controller:
            for endpoint in controller.network("front").endpoints:
                lost = [
                    it
                    for it in before[endpoint.name]
                    if endpoint.name in taken and it.container_port == 80
                ]
                kept = [it for it in before[endpoint.name] if it not in lost]
                assert list(endpoint.ports) == kept
            failed = [
                (it.subject.name, it.detail.partition(":")[0])
                for it in controller.restored.entries
                if isinstance(it.subject, EndpointInfo) and it.outcome == "failed"
            ]
            assert sorted(failed) == [
                (name, "not all ports are published") for name in taken
            ]
            assert await controller.check() == ()
    async with Controller(store=SQLiteStore(path)) as controller:
        (network,) = controller.networks
        assert {it.name: it.ports for it in network.endpoints} == before
    await remove_all(path)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many trips to threads there have been, and how many netlink calls."""
    counts: Counter[str] = Counter()
    run: Any = Kernel.run
    call: Any = NetlinkSocket.call

    async def counted_run(*args: Any, **kwargs: Any) -> Any:
        counts["trips"] += 1
        return await run(*args, **kwargs)

    def counted_call(*args: Any, **kwargs: Any) -> Any:
        counts["calls"] += 1
        return call(*args, **kwargs)

    monkeypatch.setattr(Kernel, "run", counted_run)
    monkeypatch.setattr(NetlinkSocket, "call", counted_call)
    return counts


async def test_what_one_more_sandbox_costs_a_start(
    path: Path, counted: Counter[str]
) -> None:
    """No trip to a thread, and one look at its interface."""
    found = []
    for more in (1, 20):
        async with Controller(store=SQLiteStore(path)) as controller:
            if not controller.networks:
                await controller.create_network("front", subnets=["10.9.0.0/24"])
            network = controller.network("front")
            first = len(controller.sandboxes)
            for number in range(first, first + more):
                box = await controller.create_sandbox(f"box{number}")
                await network.connect(box, ports=[f"{8000 + number}:80"])
        counted.clear()
        async with Controller(store=SQLiteStore(path)) as controller:
            found.append(Counter(counted))
            assert len(controller.sandboxes) == first + more
    assert found[1] - found[0] == {"calls": 20}
    await remove_all(path)


def remembered(path: Path, slow: Slow) -> Controller:
    return Controller(store=SQLiteStore(path), drivers={"slow": slow})


async def test_what_an_interrupted_join_has_published_elsewhere(path: Path) -> None:
    """It is taken back by drivers that remember what they do, wherever it was done."""
    slow = Slow()
    async with remembered(path, slow) as running:
        network = await running.create_network("front", "slow")
        box = await running.create_sandbox("box")
        await network.connect(box, name="gateway")
        joining = await network.create_endpoint("joining", ports=["8080:80"])
    intent: dict[str, cnm.types.JSON] = {
        "deed": "endpoint.join",
        "object": joining.id,
        "sandbox": box.id,
        "interface": "fake1",
    }
    async with edited(path) as store:
        await store.transaction(Put(f"intent/{joining.id}/endpoint.join", intent))
    slow.published = {"gateway", "joining"}
    async with remembered(path, slow) as running:
        assert running.restored.counts["undone"] == 1
        assert slow.published == set()
        await running.gc([])
        await running.network("front").delete()
    await remove_all(path)


async def test_a_sandbox_that_is_gone_publishes_nothing(path: Path) -> None:
    slow = Slow()
    async with remembered(path, slow) as running:
        network = await running.create_network("front", "slow")
        box = await running.create_sandbox("box")
        await network.connect(box, ports=["8080:80"])
        assert slow.published == {"box"}
    await anyio.to_thread.run_sync(namespaces.unpin, box.key)
    async with remembered(path, slow) as running:
        assert slow.published == set()
        assert slow.calls[-1] == "endpoint.left"
        await running.gc([])
        await running.network("front").delete()
    await remove_all(path)
