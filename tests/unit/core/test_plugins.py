"""Loading drivers, and the bijection of events and hooks."""

from __future__ import annotations

import dis
import inspect
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import cnm.events
from cnm import DriverError, DriverLoadError, DriverNotFound, plugins
from cnm.driver import hookimpl
from cnm.events import DriverEvent, EndpointJoined, Event, JoinInfo
from cnm.hookspecs import MANDATORY, IPAMDriver, NetworkDriver, Observer
from cnm.plugins import GROUPS, Driver, DriverRegistry, hook_name


def concrete_events() -> list[type[Event]]:
    members = vars(cnm.events).values()
    return [
        kind
        for kind in members
        if inspect.isclass(kind) and issubclass(kind, Event) and "name" in vars(kind)
    ]


def hooks(spec: type) -> set[str]:
    return {name for name in vars(spec) if name.startswith("cnm_")}


def camel(event: str) -> str:
    return "".join(part.capitalize() for part in event.split("."))


def test_class_and_name_belong_together() -> None:
    for kind in concrete_events():
        expected = camel(kind.name)
        assert kind.__name__ == expected
    assert len({kind.name for kind in concrete_events()}) == len(concrete_events())


def test_every_driver_event_has_one_hook() -> None:
    driver_events = {
        hook_name(kind) for kind in concrete_events() if issubclass(kind, DriverEvent)
    }
    assert driver_events == hooks(NetworkDriver) | hooks(IPAMDriver)
    assert hooks(NetworkDriver).isdisjoint(hooks(IPAMDriver))
    assert hooks(Observer) == {"cnm_event"}
    for spec, mandatory in MANDATORY.items():
        assert mandatory <= hooks(spec)
        assert spec in GROUPS


def test_hooks_are_async_and_take_their_event() -> None:
    by_hook = {hook_name(kind): kind for kind in concrete_events()}
    for spec in (NetworkDriver, IPAMDriver):
        for name in hooks(spec):
            function = getattr(spec, name)
            assert inspect.iscoroutinefunction(function)
            parameters = inspect.signature(function).parameters
            assert list(parameters) == ["self", "event"]
            assert parameters["event"].annotation == by_hook[name].__name__


class Good:
    """A driver with what is mandatory, and one more hook."""

    def __init__(self) -> None:
        self.answer: Any = JoinInfo(interface="x")

    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        if self.answer == "hang":
            await anyio.sleep_forever()
        return self.answer

    @hookimpl
    async def cnm_endpoint_left(self, event: Event) -> None:
        return None


class NotAsync(Good):
    @hookimpl  # type: ignore[type-var]
    def cnm_network_created(self, event: Event) -> None:
        return None


class UnknownHook(Good):
    @hookimpl
    async def cnm_network_painted(self, event: Event) -> None:
        return None


class WrongArgument(Good):
    @hookimpl
    async def cnm_network_created(self, event: Event, colour: str) -> None:
        return None


class Lacking:
    @hookimpl
    async def cnm_endpoint_joined(self, event: Event) -> None:
        return None


def _wrapping() -> object:
    import pluggy

    class Wrapping(Good):
        @pluggy.HookimplMarker("cnm")(wrapper=True)
        def cnm_network_created(self, event: Event) -> Any:
            return (yield)

    return Wrapping()


class Deadlines(Good):
    """Notes the deadline of each handler."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    @hookimpl
    async def cnm_network_created(self) -> None:
        self.seen.append(anyio.current_effective_deadline())
        await anyio.lowlevel.checkpoint()

    @hookimpl
    async def cnm_network_deleted(self) -> None:
        self.seen.append(anyio.current_effective_deadline())


async def test_only_who_may_wait_has_a_deadline() -> None:
    plugin = Deadlines()
    driver = Driver("mine", plugin, NetworkDriver, timeout=5)
    for hook in ("cnm_network_created", "cnm_network_deleted", "cnm_network_restored"):
        await driver.call(hook, EndpointJoined)  # type: ignore[arg-type]
    waiting, prompt = plugin.seen
    assert waiting < math.inf
    assert prompt == math.inf


@pytest.mark.parametrize(
    ("plugin", "what"),
    [
        (NotAsync(), "cnm_network_created is not async def"),
        (UnknownHook(), "cnm_network_painted"),
        (WrongArgument(), "colour"),
        (Lacking(), "lacks cnm_endpoint_left"),
        (object(), "lacks cnm_endpoint_joined, cnm_endpoint_left"),
        (_wrapping(), "cnm_network_created is a wrapper"),
    ],
    ids=["sync", "unknown", "argument", "lacking", "empty", "wrapper"],
)
def test_what_is_no_driver_is_refused(plugin: object, what: str) -> None:
    with pytest.raises(DriverLoadError, match=f"(?s)'mine' of package.*{what}"):
        Driver("mine", plugin, NetworkDriver, origin="package:thing")


def joined() -> EndpointJoined:
    return EndpointJoined.__new__(EndpointJoined)


async def test_answers() -> None:
    plugin = Good()
    driver = Driver("mine", plugin, NetworkDriver)
    assert driver.handles(EndpointJoined)
    assert not driver.handles(cnm.events.NetworkCreated)
    assert await driver.demand(joined(), JoinInfo) is plugin.answer
    for wrong in (None, 5, "veth0"):
        plugin.answer = wrong
        with pytest.raises(DriverError, match=f"returned {wrong!r}, not a JoinInfo"):
            await driver.demand(joined(), JoinInfo)


def test_a_driver_is_inspected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    inspected = Counter[object]()

    def get_instructions(code: Any) -> Iterator[dis.Instruction]:
        inspected[getattr(code, "__code__", code)] += 1
        return instructions(code)

    instructions = dis.get_instructions
    monkeypatch.setattr(dis, "get_instructions", get_instructions)
    plugins._suspends.cache_clear()
    drivers = [Driver("mine", Good(), NetworkDriver) for _ in range(3)]
    assert set(inspected.values()) == {1}
    for driver in drivers:
        assert driver.is_prompt(cnm.events.EndpointLeft)
        assert not driver.is_prompt(EndpointJoined)


async def test_failures() -> None:
    plugin = Good()
    driver = Driver("mine", plugin, NetworkDriver, timeout=0.02)
    plugin.answer = ZeroDivisionError("sum")
    with pytest.raises(DriverError, match=r"'mine' failed.*endpoint.joined: sum") as c:
        await driver.handle(joined())
    assert isinstance(c.value.__cause__, ZeroDivisionError)
    assert (c.value.driver, c.value.event) == ("mine", "endpoint.joined")
    own = cnm.AddressInUse("taken")
    plugin.answer = own
    with pytest.raises(cnm.AddressInUse) as caught:
        await driver.handle(joined())
    assert caught.value is own
    plugin.answer = "hang"
    with pytest.raises(DriverError, match=r"no answer after 0\.02 s"):
        await driver.handle(joined())
    plugin.answer = TimeoutError("my own")
    with pytest.raises(DriverError, match="my own"):
        await driver.handle(joined())


def entries(*pairs: tuple[str, str]) -> Any:
    def entry_points(group: str) -> list[EntryPoint]:
        assert group == "cnm.network_drivers"
        return [EntryPoint(name, value, group) for name, value in pairs]

    return entry_points


async def test_two_packages_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "importlib.metadata.entry_points",
        entries(
            ("good", f"{__name__}:Good"),
            ("twice", "one:Driver"),
            ("twice", "two:Driver"),
            ("broken", "no_such_module:Driver"),
            ("missing", f"{__name__}:NoSuchName"),
            ("bad", f"{__name__}:NotAsync"),
        ),
    )
    registry = DriverRegistry(NetworkDriver)
    registry.discover()
    assert registry.names == ("bad", "broken", "good", "missing", "twice")
    for name, what in (
        ("twice", "two packages declare it: one:Driver and two:Driver"),
        ("broken", "no_such_module"),
        ("missing", "NoSuchName"),
        ("bad", "is not async def"),
    ):
        for _ in range(2):
            with pytest.raises(DriverLoadError, match=what):
                await registry.get(name)
        assert name in registry.refused
    with pytest.raises(DriverNotFound, match=r"'goof' not found.*good") as caught:
        await registry.get("goof")
    assert "good" in caught.value.available
    prepared: list[str] = []

    async def prepare(driver: Driver) -> None:
        await anyio.lowlevel.checkpoint()
        prepared.append(driver.name)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(registry.get, "good", prepare)
    assert prepared == ["good"]
    assert registry.loaded == ("good",)
    info = {each.name: each for each in registry.available}
    assert info["good"].loaded
    assert "two packages" in info["twice"].refused


async def test_given_drivers_hide_installed_ones() -> None:
    registry = DriverRegistry(NetworkDriver, {"bridge": Good})
    await anyio.to_thread.run_sync(registry.discover)
    driver = await registry.get("bridge")
    assert not driver.handles(cnm.events.NetworkCreated)
    info = next(each for each in registry.available if each.name == "bridge")
    assert (info.origin, info.distribution) == ("", "")


async def test_a_package_that_hangs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = f"slow_{uuid4().hex}"  # it is imported once for each backend
    (tmp_path / f"{module}.py").write_text(
        "import time\ntime.sleep(1)\n"
        "from tests.unit.core.test_plugins import Good as Driver\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("cnm.plugins.LOAD_TIMEOUT", 0.4)
    pairs = ("slow", f"{module}:Driver"), ("good", f"{__name__}:Good")
    monkeypatch.setattr("importlib.metadata.entry_points", entries(*pairs))
    registry = DriverRegistry(NetworkDriver)
    registry.discover()
    order: list[str] = []

    async def load(name: str) -> None:
        with suppress(DriverLoadError):
            await registry.get(name)
        order.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(load, "slow")
        await anyio.sleep(0.02)
        tasks.start_soon(load, "good")
    assert order == ["good", "slow"]
    with pytest.raises(DriverLoadError, match=r"it was not imported within 0\.4 s"):
        await registry.get("slow")
    assert registry.refused == {}
    monkeypatch.setattr("cnm.plugins.LOAD_TIMEOUT", 5)
    await registry.get("slow")
    assert registry.loaded == ("good", "slow")
