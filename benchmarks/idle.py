"""What a controller costs when nothing happens."""

from __future__ import annotations

import asyncio
import os
import resource
from collections import Counter

import anyio
import sniffio

import cnm

from .figures import Figures
from .meters import own_time, wait_until_reaped
from .ways import Benchmark, Size, backends

MANY = 1000
SECONDS = 10


async def _cnm(figures: Figures, size: Size) -> None:
    async with cnm.Controller() as controller:
        network = await controller.create_network("bench", ipv6=True)
        for what, count in (("one sandbox", 1), ("many sandboxes", size.of(MANY))):
            for number in range(len(controller.sandboxes), count):
                sandbox = await controller.create_sandbox(f"s{number}")
                await network.connect(sandbox)
            await _idle(figures, what, 1 if size.quick else SECONDS)
        for sandbox in controller.sandboxes:
            await sandbox.delete()
        await anyio.to_thread.run_sync(wait_until_reaped)
        await _idle(figures, "when they are gone", 1 if size.quick else SECONDS)


async def _idle(figures: Figures, what: str, seconds: int) -> None:
    """Let nothing happen, and see what it costs."""
    await anyio.sleep(min(seconds, 3))  # what is put off is done by then
    used, woken = own_time(), _waited()
    await anyio.sleep(seconds)
    figures.add(f"{what}: CPU in 1 s", (own_time() - used) * 1000 / seconds, "ms")
    figures.add(f"{what}: wake-ups in 1 s", (_waited() - woken) / seconds, "")
    figures.add(f"{what}: threads", len(os.listdir("/proc/self/task")), "")
    figures.add(f"{what}: tasks", _tasks(), "")
    for kind, count in _descriptors().items():
        figures.add(f"{what}: open {kind}", count, "")


def _waited() -> int:
    """Return how often threads of this process have begun to wait for something."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


def _tasks() -> int:
    if sniffio.current_async_library() == "asyncio":
        return len(asyncio.all_tasks())
    import trio

    return trio.lowlevel.current_statistics().tasks_living


def _descriptors() -> Counter[str]:
    """Count the open file descriptors: sockets and others."""
    found = Counter(sockets=0, others=0)
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that listed them
            continue
        found["sockets" if target.startswith("socket:") else "others"] += 1
    return found


BENCHMARK = Benchmark(
    name="idle",
    title="A controller when nothing happens",
    rounds=1,
    ways=backends(_cnm),
    told=["many sandboxes: CPU in 1 s"],
    notes=[
        f"many sandboxes: {MANY:,}, each with an interface",
        "the measuring itself costs a wake-up or two",
    ],
)
