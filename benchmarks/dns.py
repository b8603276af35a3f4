"""Answering queries for names of sandboxes, against other resolvers in the same run.

The same records, the same generator (dnsperf), which shares the machine with the
server. The ways take turns, because the machine is not always equally quick.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from ipaddress import ip_interface
from pathlib import Path

import anyio
import anyio.lowlevel

import cnm
from cnm.linux import NetlinkSocket, add_address, set_link
from cnm.testing import private_host

ROUNDS = 3
AARDVARK = "/usr/lib/podman/aardvark-dns"
QUESTIONS = ("web A", "www A", "db A", "postgres A", "shared A")
SECONDS = 3
#: queries a second, at which latencies are looked at
RATE = 20_000
JOINS = 1000
PACKETS = 1_000_000


def generate(run: list[str], server: str, directory: str) -> dict[str, float]:
    """Run dnsperf in both ways, and return what it found."""
    questions = Path(directory, "questions")
    questions.write_text("\n".join(QUESTIONS) + "\n")
    base = [*run, "dnsperf", "-s", server, "-d", str(questions), "-l", str(SECONDS)]
    many = output([*base, "-c", "4", "-q", "100"])
    rate = re.search(r"Queries per second:\s+([\d.]+)", many)
    lost = re.search(r"Queries lost:\s+(\d+)", many)
    assert rate is not None
    assert lost is not None
    paced = output([*base, "-c", "1", "-q", "100", "-Q", str(RATE), "-v"])
    took = sorted(
        float(line.split()[-1])
        for line in paced.splitlines()
        if line.startswith("> NO")
    )
    return {
        "queries per second": float(rate[1]),
        "queries lost": float(lost[1]),
        f"us, median at {RATE} a second": statistics.median(took) * 1e6,
        f"us, 99th of 100 at {RATE} a second": took[len(took) * 99 // 100] * 1e6,
    }


def output(command: list[str]) -> str:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


# --- aardvark-dns, as netavark starts it ----------------------------------------------


def measure_aardvark() -> dict[str, float]:
    """Return what aardvark-dns does, in a network of its own."""
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
            before = processor_time(pid)
            results = generate([], "10.9.0.1", directory)
            used = processor_time(pid) - before
            os.kill(pid, 9)
    return with_cost(results, used)


# --- dockerd, in a network and with directories of its own ----------------------------


def measure_dockerd() -> dict[str, float]:
    """Return what the resolver of a container does."""
    with tempfile.TemporaryDirectory() as directory:
        options = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        arguments = [f"--{name}={directory}/{it}" for name, it in options.items()]
        host = f"unix://{directory}/socket"
        start = "mount -t tmpfs none /run && exec dockerd --storage-driver=vfs"
        command = ["unshare", "-n", "-m", "sh", "-c", f'{start} "$@"', "-", *arguments]
        with subprocess.Popen(
            [*command, "-H", host], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as daemon:
            try:
                inside = start_containers(["docker", "-H", host], directory)
                before = processor_time(daemon.pid)
                results = generate(inside, "127.0.0.11", directory)
                used = processor_time(daemon.pid) - before
                output(["docker", "-H", host, "rm", "-f", "web", "db"])
            finally:
                daemon.terminate()
    return with_cost(results, used)


def start_containers(docker: list[str], directory: str) -> list[str]:
    """Start two containers; return what runs a program in the network of one."""
    deadline = time.monotonic() + 30
    while subprocess.run([*docker, "version"], capture_output=True).returncode:
        if time.monotonic() > deadline:
            raise TimeoutError("dockerd does not answer")
        time.sleep(0.2)
    source, program = Path(directory, "pause.c"), Path(directory, "pause")
    source.write_text("int pause(void); int main(void) { return pause(); }\n")
    output(["gcc", "-static", "-o", str(program), str(source)])
    image = f"{directory}/image.tar"
    output(["tar", "-C", directory, "-cf", image, "pause"])
    output([*docker, "import", image, "pause"])
    output([*docker, "network", "create", "front"])
    for name, alias in (("web", "www"), ("db", "postgres")):
        run = [*docker, "run", "-d", "--name", name, "--network", "front"]
        aliases = ["--network-alias", alias, "--network-alias", "shared"]
        output([*run, *aliases, "pause", "/pause"])
    pid = output([*docker, "inspect", "-f", "{{.State.Pid}}", "web"]).strip()
    return ["nsenter", "-t", pid, "-n"]


def processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def with_cost(results: dict[str, float], used: float) -> dict[str, float]:
    """Add the processor time of a query."""
    queries = SECONDS * (results["queries per second"] + RATE)
    return {**results, "us of processor time a query": used / queries * 1e6}


# --- cnm ------------------------------------------------------------------------------


async def measure() -> dict[str, float]:
    """Return what the resolver of a sandbox does."""
    async with cnm.Controller() as controller:
        network = await controller.create_network("front", subnets=["10.8.0.0/20"])
        web = await controller.create_sandbox("web")
        db = await controller.create_sandbox("db")
        await network.connect(web, aliases=["www", "shared"])
        await network.connect(db, aliases=["postgres", "shared"])
        with tempfile.TemporaryDirectory() as directory:
            enter = ["nsenter", f"--net={web.key}"]
            before = own_time()
            results = await anyio.to_thread.run_sync(
                generate, enter, "127.0.0.11", directory
            )
            results = with_cost(results, own_time() - before)
        results[f"failed look-ups in {JOINS} joins"] = await look_ups(
            controller, network
        )
        return results


def own_time() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def look_ups(controller: cnm.Controller, network: cnm.Network) -> int:
    """Look up each name when it has just been joined; return how many failed."""
    web = controller.sandbox("web")
    failed = 0
    with await web.socket(type=2) as asking:
        asking.connect(("127.0.0.11", 53))
        for number in range(JOINS):
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


async def mutate() -> dict[str, float]:
    """Send mutated queries to a resolver, and see that it lives; return their cost."""
    async with cnm.Controller() as controller:
        network = await controller.create_network("front", subnets=["10.8.0.0/20"])
        web = await controller.create_sandbox("web")
        await network.connect(web, aliases=["www"])
        cost = await mutated(web)
        answer = await web.run(["getent", "ahostsv4", "www"])
        assert answer.stdout.split()[0] == b"10.8.0.2"
        print(web.name_statistics)
    return {f"us, one of {PACKETS} mutated packets": cost}


async def mutated(web: cnm.Sandbox) -> float:
    """Return the processor time of a mutated query, in us."""
    good = b"\0\1\1\0\0\1\0\0\0\0\0\1\3www\0\0\1\0\1\0\0\x29\4\xd0\0\0\0\0\0\0"
    before = own_time()
    dice = random.Random(1)
    with await web.socket(type=2) as asking:
        asking.connect(("127.0.0.11", 53))
        for number in range(1, PACKETS + 1):
            packet = bytearray(good)
            for _ in range(dice.randrange(1, 6)):
                packet[dice.randrange(len(packet))] = dice.randrange(256)
            asking.send(packet[: dice.randrange(len(packet) + 1)])
            # none of them is to be lost
            while number % 32 == 0 and web.name_statistics.queries < number:
                await anyio.lowlevel.checkpoint()
    return (own_time() - before) / PACKETS * 1e6


def child(way: str) -> None:
    """Measure one way, and print the results."""
    if way != "dockerd":  # which needs the machine's /sys, and has a network of its own
        private_host()
    if way == "aardvark":
        results = measure_aardvark()
    elif way == "dockerd":
        results = measure_dockerd()
    elif way == "mutated":
        results = anyio.run(mutate)
    else:
        results = anyio.run(measure, backend=way)
    print(json.dumps(results))


def main() -> None:
    """Measure all ways in turn, and print medians."""
    if shutil.which("dnsperf") is None:
        sys.exit("dnsperf is not installed (Debian: apt install dnsperf)")
    ways = ["asyncio", "trio", *(["aardvark"] if os.path.exists(AARDVARK) else [])]
    ways += ["dockerd"] if shutil.which("dockerd") else []
    found: dict[str, dict[str, list[float]]] = {way: {} for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            command = [sys.executable, "-m", "benchmarks", "dns", way]
            whole = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            for what, value in json.loads(whole).items():
                found[way].setdefault(what, []).append(value)
    print(f"median of {ROUNDS} rounds")
    print(f"{'':40}" + "".join(f"{way:>14}" for way in ways))
    for what in found["asyncio"]:
        line = f"{what:40}"
        for way in ways:
            values = found[way].get(what)
            line += f"{statistics.median(values):14.1f}" if values else f"{'':14}"
        print(line)
    if "aardvark" not in ways:
        print("aardvark-dns is not installed (Debian: apt install aardvark-dns)")
    if "dockerd" not in ways:
        print("dockerd is not installed (Debian: apt install docker.io)")
    subprocess.run([sys.executable, "-m", "benchmarks", "dns", "mutated"], check=True)
