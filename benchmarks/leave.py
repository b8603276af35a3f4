"""Leaving and removing: one sandbox, and a thousand."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import anyio

import cnm

from .figures import Figures
from .floor.host import Host
from .floor.lives import BridgeLife
from .lives import together
from .meters import (
    memory,
    own_time,
    wait_until_reaped,
    worker_time_since,
    worker_times,
)
from .ways import Benchmark, Size, Way, backends

MANY = 1000
DISCONNECTS = 40
DISCONNECT = "an endpoint leaves, its sandbox stays"
ONE_BY_ONE = "remove many, one by one, each"
AT_ONCE = "remove many, at once, each"


class _Teardown:
    """What removing many sandboxes takes, and what is left of them."""

    def __init__(self, figures: Figures, what: str, count: int) -> None:
        self._figures, self._what, self._count = figures, what, count
        self._before = sum(memory())

    def made(self) -> None:
        """Note that there are sandboxes now."""
        self._note("memory of one", sum(memory()) - self._before, "kB")
        self._started = own_time(), worker_times()

    def reaped(self) -> None:
        """Wait until the kernel has reaped, and see what has become of the memory."""
        started = time.perf_counter()
        wait_until_reaped()
        waited = (time.perf_counter() - started) * 1000
        self._figures.add(f"{self._what}: until the last is reaped", waited, "ms")
        own, workers = self._started
        self._note("CPU", (own_time() - own) * 1000, "ms")
        self._note("kernel workers' CPU", worker_time_since(workers) * 1000, "ms")
        self._note("memory that one leaves", sum(memory()) - self._before, "kB")

    def _note(self, what: str, value: float, unit: str) -> None:
        self._figures.add(f"{self._what}: {what}", value / self._count, unit)


def _floor(figures: Figures, size: Size, *, names: bool) -> None:
    host = Host()
    network = host.network(0)
    network.begin()
    life: Callable[[int], BridgeLife] = partial(BridgeLife, host, network, names=names)
    for number in range(size.of(DISCONNECTS)):
        one = life(number)
        one.begin()
        with figures.timing(DISCONNECT):
            one.leave()
        one.stop()
    teardown = _Teardown(figures, ONE_BY_ONE, size.of(MANY))
    lives = [life(number) for number in range(size.of(MANY))]
    for one in lives:
        one.begin()
    teardown.made()
    for one in lives:
        with figures.timing(ONE_BY_ONE):
            one.end()
    lives.clear()
    teardown.reaped()


async def _cnm(figures: Figures, size: Size) -> None:
    async with cnm.Controller() as controller:
        network = await controller.create_network("bench", ipv6=True)
        for number in range(size.of(DISCONNECTS)):
            sandbox = await _joined(network, controller, number)
            with figures.timing(DISCONNECT):
                await network.disconnect(sandbox)
            await sandbox.delete()
        await _remove_many(figures, size, controller, network, at_once=False)
        await _remove_many(figures, size, controller, network, at_once=True)


async def _joined(
    network: cnm.Network, controller: cnm.Controller, number: int
) -> cnm.Sandbox:
    sandbox = await controller.create_sandbox(f"s{number}")
    await network.connect(sandbox)
    return sandbox


async def _remove_many(
    figures: Figures,
    size: Size,
    controller: cnm.Controller,
    network: cnm.Network,
    *,
    at_once: bool,
) -> None:
    async def remove(number: int) -> None:
        await controller.sandbox(f"s{number}").delete()

    count = size.of(MANY)
    run = anyio.to_thread.run_sync
    await run(wait_until_reaped)
    what = AT_ONCE if at_once else ONE_BY_ONE
    teardown = await run(_Teardown, figures, what, count)
    for number in range(count):
        await _joined(network, controller, number)
    await run(teardown.made)
    if at_once:
        with figures.timing(AT_ONCE, count):
            await together(remove, count)
    else:
        for number in range(count):
            with figures.timing(ONE_BY_ONE):
                await remove(number)
    await run(teardown.reaped)


BENCHMARK = Benchmark(
    name="leave",
    title="Leaving a dual-stack bridge network, and removing sandboxes",
    rounds=3,
    ways=[
        Way(name="floor", measure=partial(_floor, names=False)),
        Way(name="floor with names", measure=partial(_floor, names=True)),
        *backends(_cnm),
    ],
    shown=[DISCONNECT, ONE_BY_ONE],
    against={AT_ONCE: ONE_BY_ONE},
    notes=[
        f"many: {MANY:,} sandboxes, each with an interface",
        "memory is that of the process and of the kernel's objects (whole machine)",
    ],
)
