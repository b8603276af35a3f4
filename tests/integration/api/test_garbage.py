"""Removing what nobody needs any more."""

# ruff: noqa: ASYNC110, ASYNC240 - tests wait, and may block

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import cnm
from cnm import Controller, SQLiteStore, garbage
from cnm.lifecycle import remove_table
from cnm.linux import NetlinkSocket, add_bridge, add_veth, delete_link, set_link
from cnm.store import Delete, Put

from ...conftest import host_links
from .fakes import FailingStore, LastingStore, Slow
from .test_restore import remove_all
from .traffic import serving, tcp


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


async def gone(controller: Controller, name: str) -> None:
    """Wait until there is no sandbox of a name."""
    with anyio.fail_after(30):
        async with controller.subscribe(cnm.SandboxDeleted) as events:
            while name in [sandbox.name for sandbox in controller.sandboxes]:
                await anext(events)


async def test_what_is_not_live_is_removed(controller: Controller) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    boxes = [await controller.create_sandbox(f"box{number}") for number in range(5)]
    endpoints = [await front.connect(box) for box in boxes]
    stray = await front.create_endpoint("stray")
    removed = await controller.gc([boxes[0], "box1", boxes[2].id[:10]])
    assert removed == (boxes[3].info, boxes[4].info, stray.info)
    assert controller.sandboxes == tuple(boxes[:3])
    assert front.endpoints == tuple(endpoints[:3])
    assert [os.path.exists(box.key) for box in boxes] == [True] * 3 + [False] * 2
    # their addresses are free
    last = await front.create_endpoint("last", address="10.9.0.6")
    assert await controller.gc(boxes[:3]) == (last.info,)
    assert await controller.gc(boxes[:3]) == ()
    assert len(await controller.gc([])) == 3
    assert (controller.sandboxes, front.endpoints) == ((), ())


async def test_what_others_have_is_left_alone(tmp_path: Path) -> None:
    """What is ours is known by its mark, and not by what it is called."""
    path = tmp_path / "other.db"
    async with Controller("other", store=SQLiteStore(path)) as other:
        theirs = await other.create_network("front", subnets=["10.8.0.0/24"])
        one = await other.create_sandbox("one")
        await theirs.connect(one, ports=["9000:80"])
        await theirs.connect(await other.create_sandbox("two"))
    aliases = {
        "br-0123456789ab": "",
        "br-0123456789ac": f"cnm:cnm2:{'1' * 64}",
        "br-0123456789ad": f"cnm:{'1' * 64}",
    }
    with NetlinkSocket() as route:
        for name, alias in aliases.items():
            route.call(add_bridge(name), set_link(name=name, alias=alias))
        route.call(add_veth("veth0123456789a", "cnm1234"))
        before = host_links()
        async with Controller(store=SQLiteStore(tmp_path / "cnm.db")) as controller:
            assert controller.restored.entries == ()
            front = await controller.create_network("front", subnets=["10.9.0.0/24"])
            await front.connect(await controller.create_sandbox("one"))
            assert await controller.check() == await controller.repair() == ()
            assert len(await controller.gc([])) == 1
            await front.delete(force=True)
        assert host_links() == before
        for name in (*aliases, "cnm1234"):
            route.call(delete_link(name=name))
    async with Controller("other", store=SQLiteStore(path)) as other:
        assert set(other.restored.counts) == {"kept"}
        assert await other.check() == ()
        one, two = other.sandboxes
        async with serving(one, two):
            assert await tcp(one, "10.8.0.3") == "10.8.0.2"
            async with await anyio.connect_tcp("127.0.0.1", 9000) as stream:
                assert await stream.receive()
        await other.gc([])
        await other.network("front").delete()
        await other._services.kernel.run(remove_table, other._services)
    async with Controller(store=SQLiteStore(tmp_path / "cnm.db")) as controller:
        await controller._services.kernel.run(remove_table, controller._services)


async def test_nothing_is_removed_if_one_does_not_exist(
    controller: Controller,
) -> None:
    await controller.create_sandbox("box")
    live: list[Any]
    for live in (["nobody"], ["box", "nobody"]):
        with pytest.raises(cnm.SandboxNotFound, match="nobody"):
            await controller.gc(live)
    for wrong in ("box", b"box", 5, None):
        with pytest.raises(cnm.InvalidError, match=f"expected a list, not {wrong!r}"):
            await controller.gc(wrong)  # type: ignore[arg-type]
    with pytest.raises(cnm.InvalidError, match="invalid sandbox: 5"):
        await controller.gc([5])  # type: ignore[list-item]
    assert len(controller.sandboxes) == 1


async def test_what_is_being_made_is_left_alone(controller: Controller) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    boxes = [await controller.create_sandbox(f"box{number}") for number in range(20)]
    async with anyio.create_task_group() as tasks:
        for box in boxes:
            tasks.start_soon(front.connect, box)
        for _ in range(50):
            await controller.gc(boxes)
            await anyio.lowlevel.checkpoint()
    assert len(front.endpoints) == 20
    assert all(endpoint.joined for endpoint in front.endpoints)


async def test_to_delete_twice_is_no_error(controller: Controller) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    box = await controller.create_sandbox("box")
    endpoint = await front.connect(box)
    deletions: tuple[Callable[[], Awaitable[None]], ...]
    deletions = partial(endpoint.delete, force=True), box.delete, front.delete
    for delete in deletions:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(delete)
        await delete()
    assert (controller.networks, controller.sandboxes) == ((), ())
    # another one of the name is none of its business
    again = await controller.create_network("front", subnets=["10.9.0.0/24"])
    await front.delete(force=True)
    assert controller.networks == (again,)


async def test_a_sandbox_ends_with_its_process(
    controller: Controller, process: subprocess.Popen[bytes]
) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    box = await controller.create_sandbox("box", bound_to=process.pid)
    other = await controller.create_sandbox("other")
    await front.connect(box)
    await front.connect(other)
    assert box.info.bound_to == process.pid
    async with controller.subscribe(cnm.SandboxDeleted) as events:
        process.kill()
        with anyio.fail_after(30):
            assert (await anext(events)).sandbox == box.info
    assert controller.sandboxes == (other,)
    assert not os.path.exists(box.key)
    process.wait()


class Undertaker(FailingStore):
    """Ends a process when a sandbox is recorded, and lets others notice that."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__()
        self._process = process

    async def transaction(self, *changes: Put | Delete) -> None:
        await super().transaction(*changes)
        if changes[0].key.startswith("sandbox/"):
            self._process.kill()
            await anyio.to_thread.run_sync(self._process.wait)
            for _ in range(10):
                await anyio.lowlevel.checkpoint()


async def test_a_process_that_ends_while_its_sandbox_is_made(
    process: subprocess.Popen[bytes],
) -> None:
    async with Controller(store=Undertaker(process)) as controller:
        box = await controller.create_sandbox("box", bound_to=process.pid)
        assert box.name == "box"
        await gone(controller, "box")


async def test_a_process_that_cannot_be_watched(
    controller: Controller,
    process: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full:
        def register(self, descriptor: int, events: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(controller._services.lifelines, "_epoll", Full())
        with pytest.raises(cnm.KernelError, match="watch a process"):
            await controller.create_sandbox("box", bound_to=process.pid)
    assert controller.sandboxes == ()
    await controller.create_sandbox("box", bound_to=process.pid)


async def test_a_process_that_ends_while_the_store_fails(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "PAUSE", 0.01)
    store = LastingStore()
    store.tolerates_intents = False
    async with Controller(store=store) as controller:
        await controller.create_sandbox("box", bound_to=process.pid)
        store.failing = True
        process.kill()
        with anyio.fail_after(30):
            while store.refused < 2:
                await anyio.sleep(0.01)
        assert len(controller.sandboxes) == 1
        store.failing = False
        await gone(controller, "box")
        await controller._services.kernel.run(remove_table, controller._services)


async def test_a_driver_that_hangs_keeps_no_other_sandbox(
    process: subprocess.Popen[bytes],
) -> None:
    slow = Slow()
    async with Controller(drivers={"slow": slow}) as controller:
        network = await controller.create_network("front", "slow")
        for name in ("one", "two"):
            await controller.create_sandbox(name, bound_to=process.pid)
        await network.connect(controller.sandbox("one"))
        async with slow.held("endpoint.left") as came:
            process.kill()
            await came.wait()
            await gone(controller, "two")
            assert [it.name for it in controller.sandboxes] == ["one"]
        await gone(controller, "one")


def pidfds() -> int:
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # threads come and go
            count += "pidfd" in os.readlink(f"/proc/self/fd/{name}")
    return count


async def test_a_sandbox_that_is_deleted_before_its_process_ends(
    controller: Controller, process: subprocess.Popen[bytes]
) -> None:
    before = await anyio.to_thread.run_sync(pidfds)
    box = await controller.create_sandbox("box", bound_to=process.pid)
    assert await anyio.to_thread.run_sync(pidfds) == before + 1
    await box.delete()
    again = await controller.create_sandbox("box")
    process.kill()
    process.wait()
    await anyio.sleep(0.05)
    assert controller.sandboxes == (again,)
    await again.delete()
    assert await anyio.to_thread.run_sync(pidfds) == before


@pytest.mark.parametrize("wrong", [0, -1, True, "1", 2**22 + 1])
async def test_no_such_process(controller: Controller, wrong: Any) -> None:
    with pytest.raises(cnm.InvalidError, match="bound_to: "):
        await controller.create_sandbox("box", bound_to=wrong)
    assert controller.sandboxes == ()
    await controller.create_sandbox("box")


@pytest.mark.parametrize("ends", [True, False])
async def test_while_no_controller_runs(
    tmp_path: Path, process: subprocess.Popen[bytes], ends: bool
) -> None:
    path = tmp_path / "journal.db"
    before = host_links()
    async with Controller(store=SQLiteStore(path)) as controller:
        front = await controller.create_network("front", subnets=["10.9.0.0/24"])
        await front.connect(
            await controller.create_sandbox("box", bound_to=process.pid)
        )
        await front.connect(await controller.create_sandbox("other"))
    if ends:
        process.kill()
        process.wait()
    async with Controller(store=SQLiteStore(path)) as controller:
        if not ends:
            await anyio.sleep(0.05)
            assert len(controller.sandboxes) == 2
            process.kill()
        await gone(controller, "box")
        assert [sandbox.name for sandbox in controller.sandboxes] == ["other"]
        assert len(controller.network("front").endpoints) == 1
    await remove_all(path)
    assert host_links() == before


async def test_what_cannot_be_swept_keeps_nobody_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Controller(store=SQLiteStore(path)) as controller:
        box = await controller.create_sandbox("box")
    obstacle, stray = f"{Path(box.key).parent}/a", f"{Path(box.key).parent}/b"
    os.mkdir(obstacle)
    Path(stray).touch()
    async with Controller(store=SQLiteStore(path)) as controller:
        assert controller.restored.counts == {"kept": 1, "swept": 1}
        assert (os.path.exists(obstacle), os.path.exists(stray)) == (True, False)
        os.rmdir(obstacle)
    await remove_all(path)
