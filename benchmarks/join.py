"""A sandbox, its interface and a published port: the operation that counts."""

from __future__ import annotations

from functools import partial

import anyio

import cnm
from cnm.linux import NetlinkSocket, add_ifb, choose_index, set_link

from .figures import Figures
from .floor.host import Host
from .floor.lives import BridgeLife, LineLife, ParentLife
from .lives import COUNT, FIRST_PORT, JOIN, PUBLISH, measure, repeat, together
from .meters import lateness, processor, wait_until_reaped
from .peers import joins
from .ways import Benchmark, Size, Way, awaited, backends

AT_ONCE = 100
TOGETHER = f"many at once, each: {PUBLISH}"
APART = f"many at once, each: end of {PUBLISH}"


def _floor(figures: Figures, size: Size, *, names: bool) -> None:
    host = Host()
    network = host.network(0)
    network.begin()
    count = size.of(COUNT)
    make = partial(BridgeLife, host, network, names=names)
    measure(figures, count, lambda number, port: make(number, port=port))
    parent = host.network(1)
    parent.index = _parent()
    line = partial(LineLife, host, network, names=names)
    repeat(figures, count, f"{JOIN}, ptp", line)
    other = partial(ParentLife, host, parent, names=names)
    repeat(figures, count, f"{JOIN}, macvlan", other)


async def _floor_awaited(figures: Figures, size: Size) -> None:
    """Make each change in a thread, so that the event loop is free meanwhile."""
    run = anyio.to_thread.run_sync
    host = Host()
    network = host.network(0)
    network.begin()
    count = size.of(COUNT)
    for what, first in ((JOIN, 0), (PUBLISH, FIRST_PORT)):
        lives = [
            BridgeLife(host, network, number, names=True, port=first and first + number)
            for number in range(count)
        ]
        with processor(figures, f"{what}, and its end", count):
            for life in lives:
                with figures.timing(what):
                    await run(life.make)
                    await run(life.connect)
                with figures.timing(f"end of {what}"):
                    await run(life.end)


def _parent() -> int:
    """Make a link that others can be made on; return its index."""
    index = choose_index()
    with NetlinkSocket() as route:
        route.call(add_ifb("ifb0", index=index), set_link(index, up=True))
    return index


async def _cnm(figures: Figures, size: Size) -> None:
    async with cnm.Controller() as controller:
        network = await controller.create_network("bench", ipv6=True)
        lines = await controller.create_network("lines", "ptp", ipv6=True)
        _parent()
        lan = await controller.create_network(
            "lan", "macvlan", ipv6=True, options={"parent": "ifb0"}
        )
        with figures.timing(f"{PUBLISH}, the first of a process"):
            sandbox = await controller.create_sandbox("first")
            await network.connect(sandbox, ports=[f"{FIRST_PORT}:80"])
        await sandbox.delete()
        count = size.of(COUNT)
        for what, to, port in (
            (JOIN, network, 0),
            (PUBLISH, network, FIRST_PORT),
            (f"{JOIN}, ptp", lines, 0),
            (f"{JOIN}, macvlan", lan, 0),
        ):
            await _one_by_one(figures, count, what, controller, to, port)
        await _at_once(figures, size, controller, network)


async def _one_by_one(
    figures: Figures,
    count: int,
    what: str,
    controller: cnm.Controller,
    network: cnm.Network,
    port: int,
) -> None:
    """Make sandboxes and remove them, one after the other."""
    with processor(figures, f"{what}, and its end", count):
        for number in range(count):
            ports = [f"{port + number}:80"] if port else []
            with figures.timing(what):
                sandbox = await controller.create_sandbox(f"s{number}")
                await network.connect(sandbox, ports=ports)
            with figures.timing(f"end of {what}"):
                await sandbox.delete()
        await anyio.to_thread.run_sync(wait_until_reaped)


async def _at_once(
    figures: Figures, size: Size, controller: cnm.Controller, network: cnm.Network
) -> None:
    """Make many sandboxes at once, and see that the loop goes on meanwhile."""

    async def join(number: int) -> None:
        sandbox = await controller.create_sandbox(f"t{number}")
        await network.connect(sandbox, ports=[f"{FIRST_PORT + number}:80"])

    async def leave(number: int) -> None:
        await controller.sandbox(f"t{number}").delete()

    async with lateness(figures, "nothing to do"):
        await anyio.sleep(1)
    for what, job in ((TOGETHER, join), (APART, leave)):
        async with lateness(figures, what):
            with figures.timing(what, size.of(AT_ONCE)):
                await together(job, size.of(AT_ONCE))
    await anyio.to_thread.run_sync(wait_until_reaped)


BENCHMARK = Benchmark(
    name="join",
    title="A sandbox joins a dual-stack bridge network, with a published port",
    ways=[
        Way(name="floor", measure=partial(_floor, names=False)),
        Way(name="floor with names", measure=partial(_floor, names=True)),
        Way(name="floor awaited", measure=awaited(_floor_awaited)),
        *backends(_cnm),
        *joins.WAYS,
    ],
    shown=[PUBLISH, f"end of {PUBLISH}"],
    told=[TOGETHER, f"{TOGETHER}: the loop late by at most"],
    against={TOGETHER: PUBLISH, APART: f"end of {PUBLISH}"},
    notes=[
        "CPU is the process's, user and kernel",
        "the kernel workers' CPU is the whole machine's, and so a hint only",
        *joins.NOTES,
        f"many at once: {AT_ONCE}; compared with one at a time",
    ],
)
