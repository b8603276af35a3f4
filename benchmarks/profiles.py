"""Where the time of a sandbox, its interface and its port goes."""

from __future__ import annotations

import cProfile
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from types import ModuleType
from unittest.mock import patch

import anyio

import cnm
from cnm import joining, naming, network

from .figures import Figures
from .lives import FIRST_PORT
from .ways import Benchmark, Size, Way

COUNT = 200
#: Functions that take no system call, by the modules by way of which they are called.
_FUNCTIONS: list[tuple[ModuleType, str]] = [
    (network, "endpoint_request"),
    (joining, "endpoint_record"),
    (naming, "situation"),
]
#: How many functions are shown.
MOST = 12
#: Parts of the kernel's work, each by the functions that do it, callees included.
_KERNEL = {
    "a new network namespace": ["copy_net_ns"],
    "links: make and change": ["rtnl_newlink", "rtnl_setlink"],
    "links: delete": ["rtnl_dellink"],
    "addresses": ["inet_rtm_newaddr", "inet6_rtm_newaddr"],
    "routes": ["inet_rtm_newroute", "inet6_rtm_newroute"],
    "nftables": ["nfnetlink_rcv_batch"],
    "walking through connections": ["ctnetlink_dump_table"],
    "telling listeners of netlink": ["netlink_broadcast", "rtmsg_ifinfo"],
    "reading from sockets": ["__sys_recvmsg", "__sys_recvfrom"],
    "packets": ["net_rx_action"],
    "mounting": ["__x64_sys_mount", "__x64_sys_umount"],
    "opening files": ["do_sys_openat2"],
    "waiting for other threads": ["__x64_sys_futex"],
}


async def _live(count: int) -> None:
    """Have sandboxes come and go, one after the other."""
    async with cnm.Controller() as controller:
        network = await controller.create_network("bench", ipv6=True)
        for number in range(count):
            sandbox = await controller.create_sandbox(f"s{number}")
            await network.connect(sandbox, ports=[f"{FIRST_PORT + number}:80"])
            await sandbox.delete()


def _perf(figures: Figures, size: Size) -> None:
    with tempfile.NamedTemporaryFile() as file:
        record = ["perf", "record", "-e", "cpu-clock", "-F", "2000", "-g"]
        record += ["-o", file.name, sys.executable, "-m", __name__]
        subprocess.run([*record, str(size.of(COUNT))], check=True)
        own = _report(file.name, "--no-children", "--sort=sym")
        for name, share in list(own.items())[:MOST]:
            figures.add(f"function: {name}", share, "%")
        below = _report(file.name, "--children", "--sort=sym")
        for what, names in _KERNEL.items():
            share = sum(below.get(f"[k] {name}", 0) for name in names)
            figures.add(f"kernel: {what}", share, "%")
        for name, share in _report(file.name, "--no-children", "--sort=dso").items():
            if share >= 1:
                figures.add(f"program: {name}", share, "%")


def _report(file: str, *options: str) -> dict[str, float]:
    """Return shares of the processor time, by what perf(1) sorts by."""
    command = ["perf", "report", "-i", file, "--stdio", "-g", "none", *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = {}
    for line in done.stdout.splitlines():
        words = line.split()
        shares = [word for word in words if word.endswith("%")]
        if shares and not line.startswith("#"):
            name = " ".join(words[len(shares) :])
            found.setdefault(name, float(shares[0].rstrip("%")))
    return found


def _python(figures: Figures, size: Size) -> None:
    """Profile the event loop's thread; the workers do not appear."""
    count = size.of(COUNT)
    profile = cProfile.Profile()
    profile.runcall(anyio.run, _live, count)
    found = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    by_time = sorted(found.items(), key=lambda item: -item[1][2])
    for (file, line, name), (_, calls, own, _, _) in by_time[:MOST]:
        place = f"{'/'.join(file.split('/')[-2:])}:{line} {name}" if line else name
        figures.add(
            f"loop: {place}, {calls / count:.0f} calls", own / count * 1e6, "us"
        )


def _caches(figures: Figures, size: Size) -> None:
    """Time functions where they are used, over and over, and after a pause."""
    last: dict[str, Callable[[], object]] = {}

    def timed(what: str, call: Callable[[], object]) -> object:
        started = time.perf_counter()
        result = call()
        figures.add(what, (time.perf_counter() - started) * 1e6, "us")
        return result

    def watched(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            last[name] = partial(function, *args, **kwargs)
            return timed(f"{name}: in a life", last[name])

        return call

    with ExitStack() as patches:
        for module, name in _FUNCTIONS:
            instead = watched(name, getattr(module, name))
            patches.enter_context(patch.object(module, name, instead))
        anyio.run(_live, size.of(COUNT))
    for name, call in last.items():
        for _ in range(size.of(COUNT)):
            timed(f"{name}: over and over", call)
        for _ in range(size.of(COUNT)):
            time.sleep(0.002)
            timed(f"{name}: after 2 ms of sleep", call)


BENCHMARK = Benchmark(
    name="profile",
    title="Where the time of a sandbox with a published port goes, and of its end",
    rounds=1,
    ways=[
        Way(name="perf", measure=_perf, programs=["perf"], install="linux-perf"),
        Way(name="cProfile", measure=_python),
        Way(name="caches", measure=_caches),
    ],
    notes=[
        "perf: shares of the processor time of all threads; kernel: callees included",
        "cProfile: the event loop's thread, by sandbox; it waits in poll",
        "caches: functions that take no system call",
    ],
)

if __name__ == "__main__":
    anyio.run(_live, int(sys.argv[1]))
