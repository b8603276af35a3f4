"""The tests have a host network of their own, and check that nothing leaks there."""

from __future__ import annotations

import gc
import inspect
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

import cnm
from cnm.linux import NETLINK_NETFILTER, NetlinkSocket, dump_links, parse_link
from cnm.linux.nftables import list_tables
from cnm.testing import private_host

from . import features

#: What must not block the event loop.
MODULES = [
    "cnm",
    *(path.name for path in Path(__file__).parents[1].glob("cnm_drivers_*")),
]
BACKENDS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("trio", {}), id="trio"),
]


def pytest_configure(config: pytest.Config) -> None:
    """Leave the machine's network alone."""
    config.addinivalue_line("markers", "needs(*features): of the kernel")
    if uid := os.getuid():
        # root in its user namespace, and yet not the owner of root's directory
        root = os.path.join(tempfile.gettempdir(), f"cnm-tests-{uid}")
        os.makedirs(root, mode=0o700, exist_ok=True)
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", root)
    private_host()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs more than the kernel has."""
    features.check(item)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many points have been walked through, and steps taken at random."""
    passed = terminalreporter.getreports("passed")
    properties = [it for report in passed for it in report.user_properties]
    for name, what in (
        ("walked", "faults at the steps of operations"),
        ("steps", "steps of the state machine"),
    ):
        if counts := [int(str(count)) for key, count in properties if key == name]:
            terminalreporter.write_line(f"{sum(counts)} {what}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have two processes for each processor: a third of the time tests wait."""
    return len(os.sched_getaffinity(0)) * 2


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> None:
    """Have every async test run on every backend."""
    if inspect.iscoroutinefunction(obj) and collector.istestfunction(obj, name):
        pytest.mark.anyio(obj)


def pytest_collection_finish() -> None:
    """Have no test look through what is imported, when it looks for what leaks."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let others look through it: Hypothesis does, when it is imported."""
    gc.unfreeze()


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def host_links() -> list[str]:
    """Return the names of the links in the host network of the tests."""
    with NetlinkSocket() as route:
        return sorted(parse_link(link).name for link in route.dump(dump_links()))


def host_tables() -> list[str]:
    """Return the names of the nftables tables in the host network of the tests."""
    with NetlinkSocket(NETLINK_NETFILTER) as nft:
        return sorted(list_tables(nft))


def _files() -> list[str]:
    return sorted(
        os.path.join(directory, name)
        for directory, names, files in os.walk("/run/cnm")
        for name in (*names, *files)
    )


def _descriptors() -> int:
    """Return how many namespaces and netlink sockets are open."""
    with open("/proc/net/netlink", encoding="ascii") as file:
        inodes = {line.split()[-1] for line in file}
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        count += target.startswith("net:[")
        count += target.removeprefix("socket:[").rstrip("]") in inodes
    return count


def _forwarding() -> list[str]:
    names = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"]
    # kernels from 6.17 on
    names += [f"ipv6/conf/{scope}/force_forwarding" for scope in ("all", "default")]
    values = []
    for name in names:
        with (
            suppress(FileNotFoundError),
            open(f"/proc/sys/net/{name}", encoding="ascii") as file,
        ):
            values.append(f"{name}={file.read().strip()}")
    return values


def state() -> dict[str, object]:
    """Return what a test may not change for good."""
    return {
        "links": host_links(),
        "tables": host_tables(),
        "files": _files(),
        "namespaces and netlink sockets": _descriptors(),
        "threads": sorted(t.name for t in threading.enumerate() if "cnm" in t.name),
        "forwarding": _forwarding(),
    }


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Fail a test that leaves something behind."""
    before = state()
    yield
    gc.collect()
    gc.freeze()  # the next test's collection looks through what is new
    after = state()
    leaked = {key: (before[key], after[key]) for key in before}
    assert {k: v for k, v in leaked.items() if v[0] != v[1]} == {}


@pytest.fixture(autouse=True)
def loop_is_not_blocked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which cnm blocks asyncio's event loop."""
    if "anyio_backend" not in request.fixturenames:
        yield
        return
    with blockbuster_ctx(scanned_modules=MODULES):
        yield


@pytest.fixture
async def controller() -> AsyncIterator[cnm.Controller]:
    """A running controller that removes what it makes."""
    async with cnm.Controller() as running:
        yield running


@pytest.fixture
async def reporting_controller() -> AsyncIterator[cnm.Controller]:
    """The same, but rules that a test takes away stay away."""
    async with cnm.Controller(on_damage="report") as running:
        yield running
