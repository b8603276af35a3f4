"""The rules for network drivers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread

from ... import (
    CNMError,
    Controller,
    DriverError,
    InvalidError,
    Network,
    SQLiteStore,
)
from ...errors import told
from ...events import (
    DriverEvent,
    EndpointDeleted,
    EndpointLeft,
    LeaveInfo,
    NetworkCreated,
    NetworkDeleted,
)
from ...types import JSON
from .. import faults
from ..stepping import Stepped
from .promises import planned, publishes
from .recording import recorded
from .report import ConformanceError, Violation, violation
from .subject import NAME, Subject, clear, left_behind, settled

Found = AsyncIterator[str]
#: Values that no option may take without a complaint that says why.
HOSTILE: tuple[Any, ...] = (
    *(-1, 2**70, 1.5, "", "\0", "../..", "x" * 5000),
    *([], {}, ["\n"], {"a": []}),
)
#: A handler that takes longer between two awaits keeps the application waiting.
BLOCKING = 0.25


async def _life(subject: Subject) -> Found:
    """Make, use and remove what there is to it."""
    async with subject.controller() as controller:
        before = await settled(controller)
        with recorded() as recording:
            network = await subject.network(controller)
            box = await subject.sandbox(controller)
            endpoint = await network.connect(box)
            for difference in await controller.check():
                yield f"after endpoint.joined, the kernel differs: {difference}"
            await endpoint.inspect()
            await endpoint.leave()
            await endpoint.join(box)
            await box.delete()
            await network.delete(force=True)
        if found := left_behind(before, await settled(controller)):
            yield f"after network.deleted: {found}"
        for name, seconds in recording.slow(BLOCKING):
            yield f"{name} blocked the event loop for {seconds:.1f} s"


async def _undo_twice(subject: Subject) -> Found:
    """Tell the driver again what it has undone already."""
    async with subject.controller() as controller:
        services = controller._services
        driver = await services.driver(NAME)

        async def again(*events: DriverEvent[Any]) -> Found:
            for event in events:
                try:
                    left = await driver.handle(event)
                    if isinstance(left, LeaveInfo) and left.plan is not None:
                        await services.kernel.run(left.plan)
                except Exception as exc:
                    yield f"{event.name} failed with nothing left to undo: {exc!r}"

        with recorded() as recording:
            await subject.build(controller)
            for network in controller.networks:
                for endpoint in network.endpoints:
                    await endpoint.leave()
                    await endpoint.delete()
        async for problem in again(*recording.of(EndpointLeft)):
            yield problem
        async for problem in again(*recording.of(EndpointDeleted)):
            yield problem
        with recorded() as recording:
            await clear(controller)
        async for problem in again(*recording.of(NetworkDeleted)):
            yield problem


async def _undo_nothing(subject: Subject) -> Found:
    """Tell the driver to undo what has been interrupted before it began."""
    async with subject.controller() as controller:
        with recorded() as recording:
            await subject.build(controller)
            await clear(controller)
        driver = await controller._services.driver(NAME)
        for event in recording.of(NetworkCreated):
            try:
                await driver.handle(NetworkDeleted(network=event.network))
            except Exception as exc:
                yield (
                    "network.deleted failed for a network that was never made, whose "
                    f"driver_state is that of the Requirements: {exc!r}"
                )


async def _failure_anywhere(subject: Subject) -> Found:
    """Have each step of a creation and a joining fail."""
    async with subject.controller() as controller:
        with faults.counting() as points:
            await subject.build(controller)
        await clear(controller)
        before = await settled(controller)
        for point in list(points):
            with faults.failing(point.number):
                try:
                    await subject.build(controller)
                except CNMError:
                    pass
                except Exception as exc:
                    yield f"failure at {point.what!r} becomes {exc!r}"
            async for problem in _as_before(subject, controller, before):
                yield f"after a failure at {point.what!r}: {problem}"


async def _cancellation_anywhere(subject: Subject) -> Found:
    """Cancel a creation and a joining at each await."""
    async with subject.controller() as controller:
        counted = Stepped(subject.build(controller))
        await counted
        await clear(controller)
        before = await settled(controller)
        for at in range(1, counted.number + 1):
            with anyio.CancelScope() as scope:
                await Stepped(subject.build(controller), at, scope.cancel)
            async for problem in _as_before(subject, controller, before):
                yield f"after a cancellation at await {at}: {problem}"


async def _as_before(
    subject: Subject, controller: Controller, before: dict[str, list[str]]
) -> Found:
    """Check that something interrupted is undone, and can be done again."""
    for difference in await controller.check():
        yield f"the kernel differs: {difference}"
    try:
        await clear(controller)
        if found := left_behind(before, await settled(controller)):
            yield found
        await subject.build(controller)
        await clear(controller)
    except Exception as exc:
        yield f"it cannot be removed and made again: {exc!r}"


async def _restart(subject: Subject) -> Found:
    """Have another instance of the driver take up what one has left."""
    directory = await anyio.to_thread.run_sync(tempfile.mkdtemp)
    path = f"{directory}/cnm.db"
    try:
        async with subject.controller(SQLiteStore(path), directory) as controller:
            before = await settled(controller)
            await subject.build(controller)
        async with subject.controller(SQLiteStore(path), directory) as controller:
            for entry in controller.restored.of("failed", "dropped", "remade"):
                yield f"after a restart: {entry}"
            for difference in await controller.check():
                yield f"after a restart, the kernel differs: {difference}"
            for network in controller.networks:
                for endpoint in network.endpoints:
                    await endpoint.leave()
                    await endpoint.join(controller.sandbox("box"))
            await clear(controller)
            if found := left_behind(before, await settled(controller)):
                yield f"after a restart and network.deleted: {found}"
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_disown, directory)
            async with subject.controller(run_dir=directory):
                pass  # it removes what the others have left
            await anyio.to_thread.run_sync(shutil.rmtree, directory)


def _disown(directory: str) -> None:
    """Have a controller without a store take whatever is left for rubbish."""
    for claim in Path(directory).glob("*/store"):
        claim.unlink()


async def _at_once(subject: Subject) -> Found:
    """Use several networks and endpoints at a time."""

    async def use(controller: Controller, network: Network) -> None:
        boxes = [
            await subject.sandbox(controller, f"{network.name}-{box}")
            for box in range(subject.endpoints)
        ]
        async with anyio.create_task_group() as tasks:
            for box in boxes:
                tasks.start_soon(network.connect, box)

    async with subject.controller() as controller:
        before = await settled(controller)
        problems: list[object] = []
        try:
            async with anyio.create_task_group() as tasks:
                for number in range(subject.networks):
                    name = f"net{number}" if number else "first"
                    tasks.start_soon(subject.network, controller, name)
            problems += await controller.check()
            if not problems:
                async with anyio.create_task_group() as tasks:
                    for network in controller.networks:
                        tasks.start_soon(use, controller, network)
                problems += await controller.check()
        except ExceptionGroup as group:
            problems += map(repr, group.exceptions)
            problems += await controller.check()
        for problem in problems:
            yield f"with several at once, {problem}"
        for first in controller.networks[:1]:
            await first.delete(force=True)
        for difference in await controller.check():
            yield f"network.deleted of one network damages others: {difference}"
        await clear(controller)
        if found := left_behind(before, await settled(controller)):
            yield f"after several at once: {found}"


async def _hostile_options(subject: Subject) -> Found:
    """Ask for what makes no sense."""
    names = ["no-such-option", "x" * 5000, *subject.options]
    async with subject.controller() as controller:
        before = await settled(controller)
        for name in names:
            for value in HOSTILE:
                try:
                    await subject.network(controller, options={name: value})
                except CNMError as exc:
                    if isinstance(exc, DriverError) or not str(exc):
                        yield f"option {name[:20]!r} {str(value)[:20]!r}: {exc}"
                else:
                    if name not in subject.options:
                        yield f"unknown option {name[:20]!r} was accepted, {value!r}"
                await clear(controller)
        try:
            network = await subject.network(controller)
            await network.create_endpoint("e", options={"no-such-option": 1})
            yield "unknown option of an endpoint was accepted"
        except InvalidError:
            await clear(controller)
        if found := left_behind(before, await settled(controller)):
            yield f"after options that were refused: {found}"


Rule = Callable[[Subject], Found]
RULES: Mapping[str, tuple[Rule, str]] = {
    "life": (
        _life,
        (
            "have each undo handler remove what its counterpart has made; block in "
            "plans only, which kernel.run() and JoinInfo take"
        ),
    ),
    "undo twice": (
        _undo_twice,
        "undo handlers succeed if there is nothing left: ignore ENODEV and ENOENT",
    ),
    "undo what never was": (
        _undo_nothing,
        "network.deleted may not rely on the state that network.created returns",
    ),
    "failure at every step": (
        _failure_anywhere,
        (
            "a handler that raises leaves nothing behind: use cnm.driver.Rollback, or "
            "make everything in one batch"
        ),
    ),
    "cancellation at every await": (
        _cancellation_anywhere,
        (
            "cancellation is a failure like any other: undo in `except BaseException` "
            "or with cnm.driver.Rollback, not in `except Exception`"
        ),
    ),
    "restart": (
        _restart,
        (
            "keep nothing in the driver object that network.restored does not bring "
            "back from driver_state"
        ),
    ),
    "several at once": (
        _at_once,
        "keep the state of networks and endpoints apart, by their ids",
    ),
    "hostile options": (
        _hostile_options,
        (
            "parse all options with cnm.driver.parse_options in network.requested and "
            "endpoint.created, and raise InvalidError"
        ),
    ),
    "ports": (
        publishes,
        "implement endpoint.published and endpoint.unpublished fully, or neither",
    ),
    "planned": (
        planned,
        "leave all changes for endpoints to plans, or do without Capability(planned=)",
    ),
}


async def check_network_driver(
    driver: Callable[[], object],
    *,
    options: Mapping[str, JSON] | None = None,
    subnets: Sequence[str] = ("10.77.0.0/24", "fd77::/64"),
    netns: Literal["host"] | None = None,
    networks: int = 3,
    endpoints: int = 3,
    timeout: float = 10.0,
) -> None:
    """Check that a network driver keeps to the contract.

    The driver makes real networks in the host network of the process: call
    :func:`cnm.testing.private_host` before. It takes some seconds.

    :param driver: the driver's class, or a function that makes one
    :param options: of the networks that are made
    :param subnets: of one of the networks; others get subnets that are free
    :param netns: ``"host"`` if sandboxes have to be on the host's own network
    :param networks: how many networks there can be at a time
    :param endpoints: how many endpoints a network can have at a time
    :param timeout: seconds that a handler may take
    :raises ConformanceError: with all rules that it breaks, and what to do about each
    """
    subject = Subject(
        driver=driver,
        options=options or {},
        subnets=subnets,
        netns=netns,
        networks=networks,
        endpoints=endpoints,
        timeout=timeout,
    )
    violations: list[Violation] = []
    for name, (rule, advice) in RULES.items():
        found = partial(_collect, rule, subject)
        problems = await _within(found)
        # what goes wrong at once goes wrong again and again
        violations += [
            violation(name, problem, advice) for problem in dict.fromkeys(problems[:5])
        ]
        if name == "life" and violations:
            break  # nothing else makes sense then
    if violations:
        raise ConformanceError(violations)


async def _collect(rule: Rule, subject: Subject) -> list[str]:
    return [problem async for problem in rule(subject)]


async def _within(work: Callable[[], Awaitable[list[str]]]) -> list[str]:
    try:
        return await work()
    except ExceptionGroup as exc:
        return [f"{type(exc).__name__}: {exc}: {told(exc)}"]
    except Exception as exc:
        return [f"{type(exc).__name__}: {exc}"]
