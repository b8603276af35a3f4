"""What one more of something needs, in Python and in the kernel."""

from __future__ import annotations

import anyio

import cnm

from .figures import Figures
from .floor.host import Host
from .floor.lives import BridgeLife
from .lives import FIRST_PORT
from .meters import memory
from .ways import Benchmark, Size, Way, backends

COUNT = 500
NETWORK, SANDBOX, ENDPOINT, PORT = "a network", "a sandbox", "an endpoint", "a port"


class _Growth:
    """Compares the memory before and after so many of something have been made."""

    def __init__(self, figures: Figures, count: int) -> None:
        self._figures, self._count = figures, count
        self._before = memory()

    def note(self, what: str) -> None:
        """Take down what one of them needs."""
        now = memory()
        places = ("process", "kernel")
        for where, before, after in zip(places, self._before, now, strict=True):
            self._figures.add(f"{what}: {where}", (after - before) / self._count, "kB")
        self._before = now


def _floor(figures: Figures, size: Size) -> None:
    host, count = Host(), size.of(COUNT)
    networks = [host.network(number) for number in range(count)]
    lives = [
        BridgeLife(host, networks[0], number, names=True, port=FIRST_PORT + number)
        for number in range(count)
    ]
    growth = _Growth(figures, count)
    for network in networks:
        network.begin()
    growth.note(NETWORK)
    for what, step in (
        (SANDBOX, BridgeLife.make),
        (ENDPOINT, BridgeLife.join),
        (PORT, BridgeLife.publish),
    ):
        for life in lives:
            step(life)
        growth.note(what)


async def _cnm(figures: Figures, size: Size) -> None:
    count, run = size.of(COUNT), anyio.to_thread.run_sync
    async with cnm.Controller() as controller:
        bench = await controller.create_network("bench", ipv6=True)
        first = await controller.create_sandbox("first")
        await bench.connect(first, ports=["8080:80"])
        growth = await run(_Growth, figures, count)
        for number in range(count):
            await controller.create_network(f"n{number}", ipv6=True)
        await run(growth.note, NETWORK)
        sandboxes = [
            await controller.create_sandbox(f"s{number}") for number in range(count)
        ]
        await run(growth.note, SANDBOX)
        endpoints = [await bench.connect(sandbox) for sandbox in sandboxes]
        await run(growth.note, ENDPOINT)
        for number, endpoint in enumerate(endpoints):
            await endpoint.publish(f"{FIRST_PORT + number}:80")
        await run(growth.note, PORT)


BENCHMARK = Benchmark(
    name="memory",
    title="What one more of something needs, in the process and in the kernel",
    rounds=2,
    ways=[Way(name="floor with names", measure=_floor), *backends(_cnm)],
    shown=[f"{what}: kernel" for what in (NETWORK, SANDBOX, ENDPOINT)],
    notes=[
        f"the mean of {COUNT}; endpoints are all on one bridge",
        "process: resident memory; kernel: slab and per-CPU memory, whole machine",
    ],
)
