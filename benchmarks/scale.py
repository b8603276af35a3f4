"""Whether the n-th of something costs more than the 10th."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

import anyio

import cnm

from .figures import Figures
from .floor.host import Host
from .floor.lives import BridgeLife
from .lives import FIRST_PORT, Life
from .meters import wait_until_reaped
from .ways import Benchmark, Size, Way, backends

MANY = 1000
PORTS = 10_000
#: Ports of one endpoint, so that no endpoint is a strange one.
PORTS_EACH = 1000
NETWORKS_EACH = 4
#: How many are looked at, around the 10th and at the end.
WINDOW = 10
ENDPOINT = "sandbox + join, all on one bridge"
NETWORK = "network"
SANDBOX = f"sandbox with {NETWORKS_EACH} networks"
PORT = "one more port"


class _Growth:
    """What each of many operations takes."""

    def __init__(self, figures: Figures, what: str) -> None:
        self._figures, self._what = figures, what
        self._took: list[float] = []
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._took.append((time.perf_counter() - self._started) * 1000)

    def note(self) -> None:
        """Take down what the first and the last ones took."""
        first = statistics.median(self._took[WINDOW // 2 : WINDOW * 3 // 2])
        last = statistics.median(self._took[-WINDOW:])
        self._figures.add(f"{self._what}: the 10th", first, "ms")
        self._figures.add(f"{self._what}: the last", last, "ms")
        self._figures.add(f"{self._what}: the last to the 10th", last / first, "times")


def _floor(figures: Figures, size: Size) -> None:
    host = Host()
    network = host.network(0)
    network.begin()
    _grow(figures, ENDPOINT, _lives(size, partial(BridgeLife, host, network)))
    growth = _Growth(figures, NETWORK)
    for number in range(size.of(MANY)):
        made = host.network(1 + number)
        with growth:
            made.begin()
    growth.note()


def _lives(size: Size, make: Callable[..., Life]) -> list[Life]:
    return [make(number, names=True) for number in range(size.of(MANY))]


def _grow(figures: Figures, what: str, lives: list[Life]) -> None:
    growth = _Growth(figures, what)
    for life in lives:
        with growth:
            life.begin()
    growth.note()
    for life in lives:
        life.end()


async def _cnm(figures: Figures, size: Size) -> None:
    count = size.of(MANY)
    for what, step in (
        (ENDPOINT, partial(_endpoints, figures, count)),
        (NETWORK, partial(_networks, figures, count)),
        (PORT, partial(_ports, figures, size)),
        (SANDBOX, partial(_sandboxes, figures, count)),
    ):
        async with AsyncExitStack() as stack:
            controller = await stack.enter_async_context(cnm.Controller())
            await step(controller)
            with figures.timing(f"{what}: remove all when the controller closes"):
                await stack.aclose()
        await anyio.to_thread.run_sync(wait_until_reaped)


async def _endpoints(figures: Figures, count: int, controller: cnm.Controller) -> None:
    network = await controller.create_network("bench", ipv6=True)
    await _join_many(figures, ENDPOINT, count, controller, [network])


async def _sandboxes(figures: Figures, count: int, controller: cnm.Controller) -> None:
    """Have sandboxes that are all on several networks."""
    networks = [
        await controller.create_network(f"n{number}", ipv6=True)
        for number in range(NETWORKS_EACH)
    ]
    await _join_many(figures, SANDBOX, count, controller, networks)


async def _join_many(
    figures: Figures,
    what: str,
    count: int,
    controller: cnm.Controller,
    networks: list[cnm.Network],
) -> None:
    growth = _Growth(figures, what)
    for number in range(count):
        with growth:
            sandbox = await controller.create_sandbox(f"s{number}")
            for network in networks:
                await network.connect(sandbox)
    growth.note()


async def _networks(figures: Figures, count: int, controller: cnm.Controller) -> None:
    growth = _Growth(figures, NETWORK)
    for number in range(count):
        with growth:
            await controller.create_network(f"n{number}", ipv6=True)
    growth.note()


async def _ports(figures: Figures, size: Size, controller: cnm.Controller) -> None:
    """Publish one port, over and over, while there are few others, and many."""
    network = await controller.create_network("bench", ipv6=True)
    medians = []
    for others in (WINDOW, size.of(PORTS)):
        await _publish_others(controller, network, others)
        sandbox = await controller.create_sandbox(f"with-{others}")
        endpoint = await network.connect(sandbox)
        took = []
        for number in range(2 * WINDOW):
            started = time.perf_counter()
            await endpoint.publish(f"{FIRST_PORT - 1 - number}:80")
            took.append((time.perf_counter() - started) * 1000)
            await endpoint.unpublish()
        medians.append(statistics.median(took))
    first, last = medians
    figures.add(f"{PORT}: the 10th", first, "ms")
    figures.add(f"{PORT}: the last", last, "ms")
    figures.add(f"{PORT}: the last to the 10th", last / first, "times")


async def _publish_others(
    controller: cnm.Controller, network: cnm.Network, count: int
) -> None:
    """Publish ports of endpoints that nobody looks at, instead of those that are."""
    for sandbox in controller.sandboxes:
        await sandbox.delete()
    for start in range(0, count, PORTS_EACH):
        last = min(start + PORTS_EACH, count) - 1
        ports = f"{FIRST_PORT + start}-{FIRST_PORT + last}:1-{last - start + 1}"
        sandbox = await controller.create_sandbox(f"other-{start}")
        await network.connect(sandbox, ports=[ports])


BENCHMARK = Benchmark(
    name="scale",
    title="Whether the n-th costs more than the 10th",
    rounds=1,
    ways=[Way(name="floor with names", measure=_floor), *backends(_cnm)],
    shown=[f"{what}: the last to the 10th" for what in (ENDPOINT, NETWORK)],
    notes=[
        f"the last: of {MANY:,} sandboxes, {MANY:,} networks, {PORTS:,} ports",
        f"a window of {WINDOW} around the 10th, and of the last {WINDOW}",
    ],
)
