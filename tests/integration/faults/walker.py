"""Walks through operations with a fault at every step, each in a host of its own.

It is run as a program, which has one thread only, and forks for every step: the child
has a private host network. Lines of JSON tell it what to walk through; at the end of
each walk it says what it has found.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio._backends._asyncio  # children would import it anew, and what follows
import anyio._backends._trio

import cnm
import cnm.dns.server
import cnm.ipam.default
import cnm_drivers_bridge  # noqa: F401
from cnm import Controller, SQLiteStore
from cnm.lifecycle import remove_table
from cnm.linux import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    dump_addresses,
    dump_links,
    parse_address,
    parse_link,
)
from cnm.linux.nftables import list_tables
from cnm.testing import faults, private_host
from cnm.testing.stepping import Stepped
from tests.integration.api.traffic import serving, tcp
from tests.integration.faults.operations import OPERATIONS, Operation

State = dict[str, Any]
T = TypeVar("T")
#: Steps that are tried at a time.
AT_A_TIME = 3


def controller(path: Path) -> Controller:
    return Controller(
        store=SQLiteStore(path),
        on_damage="report",
        ready_namespaces=0,  # they are made in the background, at any time
    )


async def surroundings(running: Controller) -> None:
    """Make what no operation may touch."""
    others = await running.create_network("others", subnets=["10.99.0.0/24"])
    a = await running.create_sandbox("a")
    b = await running.create_sandbox("b")
    await others.connect(a, ports=["9000:80"])
    await others.connect(b)


def state(running: Controller) -> State:
    """Return what is of interest of the model."""
    networks = {
        network.name: {
            "endpoints": {
                each.name: [
                    each.interface,
                    str(each.address),
                    sorted(map(str, each.ports)),
                ]
                for each in network.endpoints
            },
            "services": len(network.services),
        }
        for network in running.networks
    }
    sandboxes = sorted(sandbox.name for sandbox in running.sandboxes)
    return {"networks": networks, "sandboxes": sandboxes}


def without_ports(given: State) -> State:
    networks = {
        name: [each[:2] for each in network["endpoints"].values()]
        for name, network in given["networks"].items()
    }
    return {"networks": networks, "sandboxes": given["sandboxes"]}


def host() -> State:
    """Return what is of interest of the host."""
    with NetlinkSocket() as route, NetlinkSocket(NETLINK_NETFILTER) as nft:
        return {
            "links": sorted(
                link.name for link in map(parse_link, route.dump(dump_links()))
            ),
            "addresses": sorted(
                str(address.interface)
                for address in map(parse_address, route.dump(dump_addresses()))
                if not address.interface.is_link_local
            ),
            "tables": sorted(list_tables(nft)),
            "files": sorted(
                os.path.join(directory, name)
                for directory, names, files in os.walk("/run/cnm")
                for name in (*names, *files)
            ),
        }


class Walk:
    """An operation in a directory of its own."""

    def __init__(self, operation: Operation, directory: str, backend: str) -> None:
        self.operation = operation
        self.path = Path(directory) / "journal.db"
        self.backend = backend

    def act(self, running: Controller) -> Awaitable[object]:
        assert self.operation.act is not None
        return self.operation.act(running)

    def run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        return anyio.run(work, backend=self.backend)

    async def prepare(self) -> None:
        async with controller(self.path) as running:
            await surroundings(running)
            await self.operation.prepare(running)

    async def count(self) -> tuple[list[faults.Point], State, State]:
        if self.operation.act is None:
            with faults.counting() as points:
                async with controller(self.path) as running:
                    return list(points), state(running), state(running)
        async with controller(self.path) as running:
            before = state(running)
            with faults.counting() as points:
                await self.act(running)
            return points, before, state(running)

    async def count_awaits(self) -> int:
        async with controller(self.path) as running:
            stepped = Stepped(self.act(running))
            await stepped
            return stepped.number

    # --- the faults -------------------------------------------------------------------

    async def kill(self, at: int) -> None:
        if self.operation.act is None:
            with faults.killing(at):
                async with controller(self.path):
                    os._exit(0)
        async with controller(self.path) as running:
            with faults.killing(at):
                await self.act(running)
            os._exit(0)

    async def fail(
        self, at: int, before: State, after: State, *, late: bool = False
    ) -> None:
        if self.operation.act is None:
            with faults.failing(at, after=late), suppress(cnm.CNMError):
                async with controller(self.path):
                    pass
            async with controller(self.path) as running:
                await join_again(running, before)
            await self.restarted(before, after)
            return
        async with controller(self.path) as running:
            error: Exception | None = None
            with faults.failing(at, after=late) as walk:
                try:
                    await self.act(running)
                except Exception as exc:
                    error = exc
            assert walk.reached is not None, "the point was not reached"
            assert error is None or isinstance(error, cnm.CNMError), repr(error)
            wanted = [after] if error is None else [before, after]
            if error is not None and (late or state(running) == after):
                # it is removed, but something was in the way; or nobody knows
                await running.repair()
            await self.settled(running, wanted, before)

    async def cancel(self, at: int, before: State, after: State) -> None:
        async with controller(self.path) as running:
            with anyio.CancelScope() as scope:
                await Stepped(self.act(running), at, scope.cancel)
            await self.settled(running, [before, after], before)

    # --- what must hold then ----------------------------------------------------------

    async def restarted(self, before: State, after: State) -> None:
        async with controller(self.path) as running:
            assert running.restored.of("failed") == ()
            await self.settled(running, [before, after], before)
            intents = await running._services.store.scan("intent/")
            assert [it.key for it in intents] == []

    async def settled(
        self, running: Controller, wanted: list[State], before: State
    ) -> None:
        now = state(running)
        if self.operation.tolerant:
            now, *wanted = map(without_ports, [now, *wanted])
        assert now in wanted, f"between old and new: {now}, not of {wanted}"
        problems = [str(it) for it in await running.check()]
        assert problems == [], problems
        await others_work(running)
        if now == before and self.operation.act is not None:
            await self.act(running)

    async def tidy(self) -> None:
        """Remove all: nothing may be in the way."""
        async with controller(self.path) as running:
            for sandbox in running.sandboxes:
                await sandbox.delete()
            for network in running.networks:
                await network.delete(force=True)
            records = await running._services.store.scan("")
            assert [record.key for record in records] == ["controller/identity"]
            await running._services.kernel.run(remove_table, running._services)


async def join_again(running: Controller, before: State) -> None:
    """Join what has lost its interface for good: it says so."""
    for network in running.networks:
        known = before["networks"][network.name]["endpoints"]
        for endpoint in network.endpoints:
            if known[endpoint.name][0] and not endpoint.joined:
                await endpoint.join(running.sandbox("box"))


async def others_work(running: Controller) -> None:
    """Check what no operation may touch by traffic."""
    a, b = running.sandbox("a"), running.sandbox("b")
    async with serving(a, b):
        assert await tcp(a, "10.99.0.3") == "10.99.0.2"
        with anyio.fail_after(5):
            async with await anyio.connect_tcp("127.0.0.1", 9000) as stream:
                assert await stream.receive() == b"10.99.0.1"


def fork(work: Callable[[], None]) -> int:
    """Do something in a child process; return its id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


class Child:
    """A process that does something in a host network of its own."""

    def __init__(self, work: Callable[[Walk], object], name: str, backend: str) -> None:
        self._answer, send = os.pipe()

        def main() -> None:
            private_host()
            with tempfile.TemporaryDirectory() as directory:
                result = work(Walk(OPERATIONS[name], directory, backend))
            os.write(send, json.dumps(result).encode())

        self._process = fork(main)
        os.close(send)

    def result(self) -> Any:
        """Return what it returns, when it has ended."""
        with open(self._answer, "rb") as pipe:
            answer = pipe.read()
        if status := os.waitpid(self._process, 0)[1]:
            raise RuntimeError(f"exit status {status}")
        return json.loads(answer)


def survey(walk: Walk) -> object:
    walk.run(walk.prepare)
    points, before, after = walk.run(walk.count)
    return [[(it.number, it.kind, it.what) for it in points], before, after]


def survey_awaits(walk: Walk) -> object:
    walk.run(walk.prepare)
    return walk.run(walk.count_awaits)


def step(walk: Walk, mode: str, at: int, before: State, after: State) -> list[str]:
    bare = host()
    foreign = walk.operation.prepare.__name__ == "host_bridge"
    walk.run(walk.prepare)
    if mode == "kill":
        _, status = os.waitpid(fork(lambda: walk.run(lambda: walk.kill(at))), 0)
        assert os.WIFSIGNALED(status), f"not killed: {status}"
        assert os.WTERMSIG(status) == signal.SIGKILL
        walk.run(lambda: walk.restarted(before, after))
    elif mode in ("fail", "lose"):
        walk.run(lambda: walk.fail(at, before, after, late=mode == "lose"))
    else:
        walk.run(lambda: walk.cancel(at, before, after))
    walk.run(walk.tidy)
    left = host()
    if foreign:
        bare["links"] = sorted([*bare["links"], "lan0"])
        bare["addresses"] = sorted([*bare["addresses"], "192.0.2.1/24"])
    assert left == bare, f"left behind: {left}, not {bare}"
    return []


@cache
def surveyed(name: str, backend: str) -> tuple[list[Any], State, State]:
    points, before, after = Child(survey, name, backend).result()
    return points, before, after


@cache
def awaits(name: str, backend: str) -> int:
    return int(Child(survey_awaits, name, backend).result())


def overlapping(children: Iterable[T]) -> Iterator[T]:
    """Have a few be at work at a time: the kernel keeps each of them waiting."""
    running: deque[T] = deque()
    for child in children:
        running.append(child)
        if len(running) == AT_A_TIME:
            yield running.popleft()
    yield from running


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def go(name: str, mode: str, backend: str, share: str) -> None:
    """Walk; ``share`` is ``part/parts`` of the steps."""
    points, before, after = surveyed(name, backend)
    part, parts = map(int, share.split("/"))
    count = awaits(name, backend) if mode == "cancel" else len(points)
    chosen = [
        at
        for at in range(1, count + 1)
        if at % parts == part % parts
        and (mode != "lose" or points[at - 1][1] == "kernel")
    ]
    work = partial(step, mode=mode, before=before, after=after)
    failed = 0
    for at, child in overlapping(
        (at, Child(partial(work, at=at), name, backend)) for at in chosen
    ):
        try:
            child.result()
        except RuntimeError as exc:
            failed += 1
            what = f"await {at}" if mode == "cancel" else points[at - 1]
            say(f"FAILED {name}: {mode} at {what}: {exc}")
    kinds = sorted({kind for _, kind, _ in points})
    totals = {"steps": count, "kinds": kinds, "walked": len(chosen), "failed": failed}
    say(json.dumps(totals))


if __name__ == "__main__":
    gc.freeze()  # no child has to look through what has been imported
    for asked in sys.stdin:
        go(*json.loads(asked))
