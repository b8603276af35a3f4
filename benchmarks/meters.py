"""Processor time, memory, and how late an event loop is."""

from __future__ import annotations

import gc
import os
import resource
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio

from cnm.linux import NetlinkSocket, dump_links, parse_link

from .figures import Figures

#: How often the loop's lateness is looked at, in s.
TICK = 0.001
_KTHREADD = "2"


def own_time() -> float:
    """Return the processor time of this process and its ended children, in s."""
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(it.ru_utime + it.ru_stime for it in map(resource.getrusage, both))


def process_time(pid: int) -> float:
    """Return the processor time of another process, in s."""
    fields = _fields(f"/proc/{pid}/stat")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def worker_times() -> dict[str, int]:
    """Return the processor time of each of the kernel's own threads, in ns.

    They work for the whole machine: what others do meanwhile is in it.
    """
    found = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        # a thread may end while it is looked at
        with suppress(FileNotFoundError, ProcessLookupError):
            if _fields(f"{entry.path}/stat")[1] == _KTHREADD:
                with open(f"{entry.path}/schedstat", encoding="ascii") as file:
                    found[entry.name] = int(file.read().split()[0])
    return found


def worker_time_since(before: dict[str, int]) -> float:
    """Return what the kernel's own threads have used meanwhile, in s.

    Those that have ended are not counted.
    """
    now = worker_times().items()
    return sum(used - before.get(name, 0) for name, used in now) / 1e9


def _fields(path: str) -> list[str]:
    """Return the fields of a stat file that follow the name (proc_pid_stat(5))."""
    return Path(path).read_text(encoding="utf-8").rpartition(")")[2].split()


@contextmanager
def processor(figures: Figures, what: str, each: int) -> Iterator[None]:
    """Take down the processor time that operations take, until the kernel has reaped.

    :param each: how many operations there are in the block
    """
    own, workers = own_time(), worker_times()
    yield
    wait_until_reaped()
    took = {
        f"{what}: CPU": own_time() - own,
        f"{what}: kernel workers' CPU": worker_time_since(workers),
    }
    for name, seconds in took.items():
        figures.add(name, seconds / each * 1000, "ms")


def ports() -> int:
    """Return how many veth ends there are in the host network."""
    with NetlinkSocket() as route:
        links = map(parse_link, route.dump(dump_links()))
        return sum(link.kind == "veth" for link in links)


def wait_until_reaped() -> None:
    """Wait until the kernel has removed the links of namespaces that are gone."""
    while ports():
        time.sleep(0.005)


def resident() -> float:
    """Return the memory of this process, in kB."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


def kernel_memory() -> float:
    """Return what the kernel has for its objects, in kB; the whole machine's."""
    wanted = {"Slab", "Percpu"}
    with open("/proc/meminfo", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    return float(sum(int(lines[name].split()[0]) for name in wanted & lines.keys()))


def memory() -> tuple[float, float]:
    """Return the memory of this process and of the kernel, in kB, when it is quiet."""
    # what is freed after an RCU grace period is not free at once
    time.sleep(0.5)
    return resident(), kernel_memory()


@asynccontextmanager
async def lateness(figures: Figures, what: str) -> AsyncIterator[None]:
    """Take down by how much the event loop is late at worst, during the block.

    It is late when others have the processor, too; so the processor time that it took
    itself meanwhile is taken down as well.
    """
    late = busy = 0.0

    async def watch() -> None:
        nonlocal late, busy
        while True:
            started, used = time.perf_counter(), time.thread_time()
            await anyio.sleep(TICK)
            late = max(late, time.perf_counter() - started - TICK)
            busy = max(busy, time.thread_time() - used)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        yield
        tasks.cancel_scope.cancel()
    figures.add(f"{what}: the loop late by at most", late * 1000, "ms")
    figures.add(f"{what}: its own CPU by then at most", busy * 1000, "ms")
