"""A procfs of one's own leads to the settings of whatever namespace one is in."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from cnm.linux import Kernel, Sockets, namespaces, procfs as procfs_module, sysctl
from cnm.linux.procfs import ProcFS

#: More look-ups than a mount is for.
MANY = 150
SETTING = "net.ipv4.conf.default.forwarding"


@pytest.fixture
def procfs() -> Iterator[ProcFS]:
    made = ProcFS()
    yield made
    made.close()


def in_many(procfs: ProcFS) -> None:
    """Write in many namespaces, and read in between; the others stay as they are."""
    opened: list[int] = []
    home = namespaces.open_namespace(namespaces.OWN)
    try:
        for number in range(MANY):
            namespaces.unshare(namespaces.CLONE_NEWNET)
            opened.append(namespaces.open_namespace(namespaces.OWN))
            assert sysctl.read(SETTING, procfs.path()) == "0"
            sysctl.write(SETTING, str(number % 2), procfs.path())
        for number, netns in enumerate(opened):
            namespaces.enter(netns)
            value = str(number % 2)
            assert sysctl.read(SETTING) == value
            assert sysctl.read(SETTING, procfs.path()) == value
    finally:
        namespaces.enter(home)
        for descriptor in (*opened, home):
            os.close(descriptor)


def mine() -> int:
    """Return how many file descriptors are open at a procfs of one's own."""
    root = os.stat("/proc").st_dev
    with os.scandir("/proc/self/fd") as entries:
        links = [(entry.path, os.readlink(entry.path)) for entry in entries]
    # a mount that is nowhere
    return sum(to == "/" and os.stat(path).st_dev != root for path, to in links)


async def test_settings_of_many_namespaces() -> None:
    before = mine()

    def plan(sockets: Sockets) -> int:
        in_many(sockets.procfs)
        return mine()

    async with Kernel() as kernel:
        assert await kernel.run(plan) == before + 1
        assert await kernel.run(lambda sockets: sysctl.read(SETTING)) == "0"
    assert mine() == before


async def test_where_none_may_be_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs_module, "_mount", lambda: -1)

    def plan(sockets: Sockets) -> str:
        in_many(sockets.procfs)
        return sockets.procfs.path()

    async with Kernel() as kernel:
        assert await kernel.run(plan) == "/proc"


def test_refusals_are_no_errors(
    procfs: ProcFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    # there is no file system of that name
    monkeypatch.setattr(procfs_module, "_NAME", b"nosuchfs")
    assert procfs.path() == "/proc"
