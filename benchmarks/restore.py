"""Starting a controller that finds a thousand endpoints in its store."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import cnm

from .figures import Figures
from .lives import FIRST_PORT
from .meters import own_time
from .ways import Benchmark, Size, backends

MANY = 1000
STARTS = 3


async def _cnm(figures: Figures, size: Size) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for what, count in (("no endpoints", 0), ("many endpoints", size.of(MANY))):
            store = Path(directory, f"with-{count}.db")
            async with cnm.Controller(
                store.stem, store=cnm.SQLiteStore(store)
            ) as controller:
                await _fill(figures, controller, count)
            for _ in range(STARTS):
                await _start(figures, store, f"start with {what}", count)


async def _fill(figures: Figures, controller: cnm.Controller, count: int) -> None:
    network = await controller.create_network("bench", ipv6=True)
    for number in range(count):
        with figures.timing("sandbox + join + port, with SQLiteStore"):
            sandbox = await controller.create_sandbox(f"s{number}")
            await network.connect(sandbox, ports=[f"{FIRST_PORT + number}:80"])


async def _start(figures: Figures, store: Path, what: str, count: int) -> None:
    before = own_time()
    async with AsyncExitStack() as stack:
        with figures.timing(what):
            opened = cnm.Controller(store.stem, store=cnm.SQLiteStore(store))
            controller = await stack.enter_async_context(opened)
        figures.add(f"{what}: CPU", (own_time() - before) * 1000, "ms")
        if len(controller.network("bench").endpoints) != count:
            raise RuntimeError("endpoints have not been restored")


BENCHMARK = Benchmark(
    name="restore",
    title="Starting a controller that finds a thousand endpoints, each with a port",
    rounds=2,
    ways=backends(_cnm),
    told=["start with many endpoints", "start with many endpoints: CPU"],
    notes=[f"many endpoints: {MANY:,}, each of a sandbox, with a published port"],
)
