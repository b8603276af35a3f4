"""Network namespaces that are made in advance."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from cnm import Controller, KernelError
from cnm.linux import (
    Kernel,
    SandboxSockets,
    Sockets,
    dump_links,
    namespaces,
    parse_link,
    ready as ready_module,
    sysctl,
)
from cnm.linux.procfs import ProcFS
from cnm.linux.ready import Ready
from cnm.linux.sandboxes import make_sandbox


@pytest.fixture
def home() -> Iterator[int]:
    descriptor = namespaces.open_namespace(namespaces.OWN)
    yield descriptor
    os.close(descriptor)


def filler() -> list[threading.Thread]:
    return [it for it in threading.enumerate() if it.name == "cnm-ready"]


def take(ready: Ready) -> SandboxSockets:
    """Take one as soon as there is one."""
    waited = threading.Event()
    for _ in range(1000):
        if taken := ready.take():
            return taken
        waited.wait(0.01)
    raise AssertionError("none is made")


def test_none_before_one_is_asked_for(home: int) -> None:
    ready = Ready(home, 4)
    assert filler() == []
    assert ready.take() is None
    assert len(filler()) == 1
    take(ready).close()
    ready.close()
    assert filler() == []
    assert ready.take() is None


def test_none_at_all(home: int) -> None:
    ready = Ready(home, 0)
    assert ready.take() is None
    assert filler() == []
    ready.close()


def test_never_more_than_the_limit(home: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SandboxSockets] = []

    def make(home: int, procfs: ProcFS) -> SandboxSockets:
        made.append(original(home, procfs))
        return made[-1]

    original = make_sandbox
    monkeypatch.setattr(ready_module, "make_sandbox", make)
    ready = Ready(home, 3)
    taken = [it for _ in range(20) if (it := ready.take())]  # more than it can make
    taken += [take(ready) for _ in range(3)]
    with ready._changed:
        ready._changed.notify()
    ready.close()
    assert 0 <= len(made) - len(taken) <= 3
    for it in taken:
        assert it.route.fileno() >= 0
        it.close()
    # the rest is closed
    assert all(it.route.fileno() == -1 for it in made)


def test_whoever_cannot_have_one_makes_it(
    home: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(home: int, procfs: ProcFS) -> SandboxSockets:
        raise KernelError(28, "make a network namespace")

    ready = Ready(home, 3)
    with monkeypatch.context() as patched:
        patched.setattr(ready_module, "make_sandbox", fail)
        assert ready.take() is None
        for thread in filler():
            thread.join()
    assert "no network namespaces are kept ready" in caplog.text
    # it is tried again when the next one is needed
    take(ready).close()
    ready.close()


@pytest.mark.parametrize("spare", [0, 2])
async def test_what_a_namespace_is_like(tmp_path: Path, spare: int) -> None:
    """It is the same whether or not it has been ready."""

    def look(sockets: Sockets, key: str) -> tuple[list[str], str]:
        with sockets.sandbox(key) as sandbox, sockets.inside(sandbox.netns):
            links = map(parse_link, sandbox.route.dump(dump_links()))
            up = [link.name for link in links if link.up]
            return up, sysctl.read("net.ipv6.conf.default.accept_ra")

    seen = set()
    async with Kernel(ready=spare) as kernel:
        for number in range(4):
            key = str(tmp_path / str(number))
            await kernel.run(Sockets.create, key)
            seen.add(await anyio.to_thread.run_sync(namespaces.identity, key))
            assert await kernel.run(look, key) == (["lo"], "0")
            with pytest.raises(FileExistsError):
                await kernel.run(Sockets.create, key)
        for number in range(4):
            await kernel.run(Sockets.remove, str(tmp_path / str(number)))
    assert len(seen) == 4


async def test_a_controller_makes_them_when_it_needs_them() -> None:
    async with Controller() as controller:
        assert filler() == []
        await controller.create_sandbox("one")
        assert len(filler()) == 1
    assert filler() == []
    async with Controller(ready_namespaces=0) as controller:
        await controller.create_sandbox("one")
        assert filler() == []


def identities(keys: list[str]) -> set[tuple[int, int]]:
    return {namespaces.identity(key) for key in keys}


async def test_many_at_once() -> None:
    async with Controller(ready_namespaces=5) as controller:
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(partial(controller.create_sandbox, f"box{number}"))
        keys = [it.key for it in controller.sandboxes]
        found = await anyio.to_thread.run_sync(identities, keys)
        assert len(found) == 30
