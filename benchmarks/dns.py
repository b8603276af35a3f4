"""Answering queries for names of sandboxes.

The same records, and the same generator (dnsperf), which shares the machine with the
server.
"""

from __future__ import annotations

import os
import random
import re
import statistics
import subprocess
import tempfile
import time
from ipaddress import ip_interface
from pathlib import Path

import anyio
import anyio.lowlevel

import cnm
from cnm.linux import NetlinkSocket, add_address, set_link

from .figures import Figures
from .meters import own_time, process_time
from .peers import dockerd
from .ways import Benchmark, Size, Way, backends

AARDVARK = "/usr/lib/podman/aardvark-dns"
QUESTIONS = ("web A", "www A", "db A", "postgres A", "shared A")
SECONDS = 3
#: queries a second, at which latencies are looked at
RATE = 20_000
JOINS = 300
PACKETS = 200_000


def _generate(
    figures: Figures, size: Size, run: list[str], server: str, directory: str
) -> float:
    """Run dnsperf in both ways, and return how many queries that was."""
    seconds = 1 if size.quick else SECONDS
    questions = Path(directory, "questions")
    questions.write_text("\n".join(QUESTIONS) + "\n")
    base = [*run, "dnsperf", "-s", server, "-d", str(questions), "-l", str(seconds)]
    many = _output([*base, "-c", "4", "-q", "100"])
    rate = re.search(r"Queries per second:\s+([\d.]+)", many)
    lost = re.search(r"Queries lost:\s+(\d+)", many)
    if rate is None or lost is None:
        raise RuntimeError(f"dnsperf says something new: {many}")
    figures.add("queries a second", float(rate[1]), "1/s")
    figures.add("queries lost", float(lost[1]), "")
    paced = _output([*base, "-c", "1", "-q", "100", "-Q", str(RATE), "-v"])
    took = sorted(
        float(line.split()[-1]) * 1e6
        for line in paced.splitlines()
        if line.startswith("> NO")
    )
    what = f"a query at {RATE:,} a second"
    figures.add(f"{what}, median", statistics.median(took), "us")
    figures.add(f"{what}, 99th of 100", took[len(took) * 99 // 100], "us")
    return seconds * (float(rate[1]) + RATE)


def _output(command: list[str]) -> str:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def _aardvark(figures: Figures, size: Size) -> None:
    """Measure aardvark-dns, in a network of its own, as netavark starts it."""
    with NetlinkSocket() as route:
        route.call(set_link(1, up=True), add_address(1, ip_interface("10.9.0.1/24")))
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "config")
        config.mkdir()
        (config / "front").write_text(
            f"10.9.0.1\n{'1' * 64} 10.9.0.2  web,www,shared\n"
            f"{'2' * 64} 10.9.0.3  db,postgres,shared\n"
        )
        arguments = ["--config", str(config), "--port", "53", "run"]
        with subprocess.Popen([AARDVARK, *arguments], stderr=subprocess.DEVNULL):
            time.sleep(1)
            pid = int((config / "aardvark.pid").read_text())
            before = process_time(pid)
            queries = _generate(figures, size, [], "10.9.0.1", directory)
            _note_cost(figures, process_time(pid) - before, queries)
            os.kill(pid, 9)


def _dockerd(figures: Figures, size: Size) -> None:
    """Measure the resolver of a container."""
    with tempfile.TemporaryDirectory() as directory, dockerd.running() as daemon:
        daemon.network("front", "10.8.0.0/20", "fd08::/64")
        for name, alias in (("web", "www"), ("db", "postgres")):
            daemon.container(name, "front", aliases=[alias, "shared"])
            daemon.start(name)
        inside = ["nsenter", "-t", str(daemon.process("web")), "-n"]
        before = process_time(daemon.pid)
        queries = _generate(figures, size, inside, "127.0.0.11", directory)
        _note_cost(figures, process_time(daemon.pid) - before, queries)
        for name in ("web", "db"):
            daemon.remove(name)


def _note_cost(figures: Figures, seconds: float, queries: float) -> None:
    figures.add("CPU of a query", seconds / queries * 1e6, "us")


async def _cnm(figures: Figures, size: Size) -> None:
    async with cnm.Controller() as controller:
        network = await controller.create_network("front", subnets=["10.8.0.0/20"])
        web = await controller.create_sandbox("web")
        db = await controller.create_sandbox("db")
        await network.connect(web, aliases=["www", "shared"])
        await network.connect(db, aliases=["postgres", "shared"])
        with tempfile.TemporaryDirectory() as directory:
            enter = ["nsenter", f"--net={web.key}"]
            before = own_time()
            queries = await anyio.to_thread.run_sync(
                _generate, figures, size, enter, "127.0.0.11", directory
            )
            _note_cost(figures, own_time() - before, queries)
        failed = await _look_ups(controller, network, size.of(JOINS))
        figures.add("look-ups that fail right after joining", failed, "")
        await _mutated(figures, web, size.of(PACKETS))


async def _look_ups(
    controller: cnm.Controller, network: cnm.Network, joins: int
) -> int:
    """Look up each name when it has just been joined; return how many failed."""
    web = controller.sandbox("web")
    failed = 0
    with await web.socket(type=2) as asking:
        asking.connect(("127.0.0.11", 53))
        for number in range(joins):
            sandbox = await controller.create_sandbox(f"s{number}")
            await network.connect(sandbox)
            name = sandbox.name.encode()
            question = b"\0\1\1\0\0\1\0\0\0\0\0\0" + bytes((len(name),)) + name
            asking.send(question + b"\0\0\1\0\1")
            await anyio.wait_readable(asking)
            failed += asking.recv(512)[3] & 15 != 0
            if number % 100 == 99:
                for each in controller.sandboxes[2:]:
                    await each.delete()
    return failed


async def _mutated(figures: Figures, web: cnm.Sandbox, count: int) -> None:
    """Send mutated queries to a resolver, and see that it lives."""
    good = b"\0\1\1\0\0\1\0\0\0\0\0\1\3www\0\0\1\0\1\0\0\x29\4\xd0\0\0\0\0\0\0"
    dice = random.Random(1)
    before, answered = own_time(), web.name_statistics.queries
    with await web.socket(type=2) as asking:
        asking.connect(("127.0.0.11", 53))
        for number in range(1, count + 1):
            packet = bytearray(good)
            for _ in range(dice.randrange(1, 6)):
                packet[dice.randrange(len(packet))] = dice.randrange(256)
            asking.send(packet[: dice.randrange(len(packet) + 1)])
            # none of them is to be lost
            while number % 32 == 0 and web.name_statistics.queries < answered + number:
                await anyio.lowlevel.checkpoint()
    took = (own_time() - before) / count * 1e6
    figures.add("CPU of a mutated query, making it included", took, "us")
    answer = await web.run(["getent", "ahostsv4", "www"])
    if answer.stdout.split()[0] != b"10.8.0.2":
        raise RuntimeError(f"the resolver does not answer any more: {answer}")


BENCHMARK = Benchmark(
    name="dns",
    title="Answering queries for names of sandboxes, generated by dnsperf",
    rounds=3,
    shown=["queries a second", "CPU of a query"],
    ways=[
        *backends(_cnm, programs=["dnsperf"], install="dnsperf"),
        Way(
            name="aardvark-dns",
            measure=_aardvark,
            peer=True,
            programs=[AARDVARK, "dnsperf"],
            install="aardvark-dns dnsperf",
        ),
        dockerd.way(_dockerd, ["dnsperf"], "dnsperf"),
    ],
)
