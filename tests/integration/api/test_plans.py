"""Plans of drivers that fail with something that is no error of cnm's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, cast

import anyio.to_thread
import pytest

import cnm
from cnm import Controller, SQLiteStore
from cnm.driver import (
    EndpointLeft,
    EndpointPublished,
    LeaveInfo,
    PortBinding,
    PublishInfo,
    hookimpl,
)
from cnm.linux import Sockets, namespaces
from cnm.testing.fakes import FakeDriver

from .fakes import bound
from .test_restore import remove_all


class Planner(FakeDriver):
    """Does everything by plans, which fail as plans do that have mistakes.

    :ivar broken: what the plans are of that fail
    :ivar nonsense: how something is said to be published that is no binding
    """

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()
        self.nonsense = ""

    @hookimpl
    async def cnm_endpoint_left(self, event: EndpointLeft) -> LeaveInfo:
        def leave(sockets: Sockets) -> None:
            self._check("left")

        return LeaveInfo(plan=leave)

    @hookimpl
    async def cnm_endpoint_published(
        self, event: EndpointPublished
    ) -> PublishInfo | tuple[PortBinding, ...]:
        wrong = cast("tuple[PortBinding, ...]", (*bound(event), 80))

        def publish(sockets: Sockets) -> tuple[PortBinding, ...]:
            self._check("published")
            return wrong if self.nonsense == "plan" else bound(event)

        if self.nonsense == "tuple":
            return wrong
        return PublishInfo(plan=publish)

    def _check(self, what: str) -> None:
        if what in self.broken:
            raise KeyError(what)


def controller(path: Path, planner: Planner, **parameters: Any) -> Controller:
    drivers = {"planner": planner}
    return Controller(store=SQLiteStore(path), drivers=drivers, **parameters)


async def test_a_start_goes_on(tmp_path: Path) -> None:
    path, planner = tmp_path / "cnm.db", Planner()
    async with controller(path, planner) as running:
        network = await running.create_network("front", "planner")
        lost, kept = [await running.create_sandbox(it) for it in ("lost", "kept")]
        await network.connect(lost)
        await network.connect(kept, ports=["8080:80"])
        key = lost.key
    await anyio.to_thread.run_sync(namespaces.unpin, key)
    planner.broken = {"left", "published"}
    async with controller(path, planner) as running:
        outcomes = {str(it): it.outcome for it in running.restored.entries}
        assert sorted(outcomes.values()) == [
            "detached",
            "dropped",
            "failed",
            *["kept"] * 2,
        ]
        (failed,) = [it for it, outcome in outcomes.items() if outcome == "failed"]
        assert "its ports are not published" in failed
        assert [it.name for it in running.sandboxes] == ["kept"]
        planner.broken.clear()
    await remove_all_with(path, planner)


async def test_a_repair_goes_on(tmp_path: Path) -> None:
    path, planner = tmp_path / "cnm.db", Planner()
    async with controller(path, planner, on_damage="report") as running:
        network = await running.create_network("front", "planner")
        one, two = [await running.create_sandbox(it) for it in ("one", "two")]
        for box in (one, two):
            await network.connect(box)
            await box.run(["ip", "link", "delete", "fake0"])
        planner.fail["plan"] = KeyError("plan")
        mended = await running.repair()
        assert [it.mended for it in mended] == [False, False]
        assert {it.error for it in mended} == {
            "driver 'planner' failed to handle endpoint.joined: KeyError('plan')"
        }
        planner.fail.clear()
        for endpoint in network.endpoints:
            assert not endpoint.joined
            await endpoint.join(one)
        planner.broken.add("left")
        with pytest.raises(cnm.TeardownError) as caught:
            await network.endpoints[0].leave()
        assert isinstance(caught.value.exceptions[0], cnm.DriverError)
        planner.broken.clear()
    await remove_all_with(path, planner)


async def remove_all_with(path: Path, planner: Planner) -> None:
    """Remove what is left of the planner's; then the table."""
    async with controller(path, planner) as running:
        await running.gc([])
        await running.network("front").delete()
    await remove_all(path)


@pytest.fixture
async def planned() -> AsyncIterator[tuple[Planner, Controller, cnm.Network]]:
    planner = Planner()
    async with Controller(drivers={"planner": planner}) as running:
        network = await running.create_network("front", "planner")
        yield planner, running, network
        planner.broken = set()
        await network.delete(force=True)


async def heard(
    operation: Awaitable[object], running: Controller, error: type[Exception]
) -> list[tuple[str, str, str]]:
    """Return what subscribers hear of drivers that fail in an operation, which fails.

    It is the name of the event, of its endpoint, and the error.
    """
    heard = []
    async with running.subscribe(cnm.DriverFailed) as events:
        with pytest.raises(error):
            await operation
        events.end()
        async for event in events:
            assert event.driver == "planner"
            failed = event.event
            assert isinstance(failed, (EndpointLeft, EndpointPublished))
            heard.append((failed.name, failed.endpoint.name, event.error))
    return heard


def told(event: str, reason: str) -> tuple[str, str, str]:
    """Return what is heard of a driver that fails on an event of the endpoint "web"."""
    error = f"driver 'planner' failed to handle {event}: {reason}"
    return event, "web", error


async def test_subscribers_hear_of_plans_that_fail(
    planned: tuple[Planner, Controller, cnm.Network],
) -> None:
    planner, running, network = planned
    box = await running.create_sandbox("box")
    ports = ["8080:80"]
    published = told("endpoint.published", "KeyError('published')")
    left = told("endpoint.left", "KeyError('left')")

    planner.broken = {"published"}  # its plan is a part of another one
    join = network.connect(box, name="web", ports=ports)
    assert await heard(join, running, cnm.DriverError) == [published]

    planner.broken = set()
    web = await network.connect(box, name="web")
    planner.broken = {"published"}
    publish = web.publish(*ports)
    assert await heard(publish, running, cnm.DriverError) == [published]

    planner.broken = {"left"}
    assert await heard(web.leave(), running, cnm.TeardownError) == [left]
    await web.join(box)
    assert await heard(box.delete(), running, cnm.TeardownError) == [left]


@pytest.mark.parametrize("way", ["tuple", "plan"])
async def test_subscribers_hear_of_bindings_that_are_none(
    planned: tuple[Planner, Controller, cnm.Network], way: str
) -> None:
    planner, running, network = planned
    planner.nonsense = way
    box = await running.create_sandbox("box")
    join = network.connect(box, name="web", ports=["8080:80"])
    assert await heard(join, running, cnm.DriverError) == [
        told("endpoint.published", "returned 80 among its bindings")
    ]
