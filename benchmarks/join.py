"""Join, leave and network creation, against the kernel's floor in the same run.

Each way is measured in a host network of its own, and the ways take turns, because
the machine is not always equally quick.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial

import anyio

import cnm
from cnm.linux import NetlinkSocket, add_ifb, set_link
from cnm.testing import private_host

from . import floor

ROUNDS = 5
COUNT = 60
AT_ONCE = 100
WAYS = ("floor", "asyncio", "trio")


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    """Return how many seconds an operation takes."""
    started = time.perf_counter()
    await call()
    return time.perf_counter() - started


async def lateness(worst: list[float]) -> None:
    """Note by how much the event loop is late, at worst."""
    while True:
        started = time.perf_counter()
        await anyio.sleep(0.001)
        worst[0] = max(worst[0], time.perf_counter() - started - 0.001)


async def together(job: Callable[[str], Coroutine[object, object, None]]) -> None:
    """Do something with many sandboxes at once."""
    async with anyio.create_task_group() as tasks:
        for number in range(AT_ONCE):
            tasks.start_soon(job, f"t{number}")


async def measure() -> dict[str, list[float]]:
    """Return the seconds that each operation took."""
    results: dict[str, list[float]] = {}
    async with cnm.Controller() as controller:
        network = await controller.create_network("bench", ipv6=True)
        lines = await controller.create_network("lines", "ptp", ipv6=True)
        with NetlinkSocket() as route:
            route.call(add_ifb("ifb0"), set_link(name="ifb0", up=True))
        lan = await controller.create_network(
            "lan", "macvlan", ipv6=True, options={"parent": "ifb0"}
        )

        async def create(number: int) -> None:
            await controller.create_network(f"n{number}", ipv6=True)

        async def join(name: str, to: cnm.Network = network) -> None:
            sandbox = await controller.create_sandbox(name)
            await to.connect(sandbox)

        async def leave(name: str) -> None:
            await controller.sandbox(name).delete()

        results["network"] = [await timed(partial(create, n)) for n in range(20)]
        for suffix, to in (("", network), (" ptp", lines), (" macvlan", lan)):
            joins = results[f"join{suffix}"] = []
            leaves = results[f"leave{suffix}"] = []
            for number in range(COUNT):
                name = f"s{number}"
                joins.append(await timed(partial(join, name, to)))
                leaves.append(await timed(partial(leave, name)))
                for endpoint in to.endpoints:
                    await endpoint.delete()
        worst = [0.0]
        async with anyio.create_task_group() as watch:
            watch.start_soon(lateness, worst)
            for what, job in (("join", join), ("leave", leave)):
                whole = await timed(partial(together, job))
                results[f"{what} at once"] = [whole / AT_ONCE]
                results[f"loop late, {what}s at once"] = [worst[0]]
                worst[0] = 0.0
            watch.cancel_scope.cancel()
    return results


def child(way: str) -> None:
    """Measure one way, and print the results."""
    private_host()
    if way == "floor":
        results = floor.measure(COUNT)
    else:
        results = anyio.run(measure, backend=way)
    print(json.dumps(results))


def main() -> None:
    """Measure all ways in turn, and print medians and ratios."""
    found: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks", "join", way]
            output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            for what, values in json.loads(output).items():
                found[way].setdefault(what, []).append(statistics.median(values))
    print(f"median and best of {ROUNDS} rounds in ms; ratios to the floor's")
    print(f"{'':28}{'floor':>16}{'asyncio':>22}{'trio':>22}")
    for what in found["asyncio"]:
        base = found["floor"].get(what.removesuffix(" at once"))
        line = f"{what:28}"
        for way in WAYS:
            values = found[way].get(what) or (base if way == "floor" else None)
            if not values:
                line += f"{'':16}"
                continue
            median, best = statistics.median(values), min(values)
            line += f"{median * 1000:9.2f}{best * 1000:7.2f}"
            if way != "floor":
                ratio = median / statistics.median(base) if base else None
                line += f"{ratio:5.2f}x" if ratio else f"{'':6}"
        print(line)
