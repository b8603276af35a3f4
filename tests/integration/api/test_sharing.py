"""Namespaces that are somebody else's, or several sandboxes' at once."""

# ruff: noqa: ASYNC240, PT012 - tests may block

from __future__ import annotations

import errno
import os

import anyio
import anyio.to_thread
import pytest

import cnm
from cnm import Controller
from cnm.linux import namespaces

from ...conftest import host_tables
from ..lab import Namespace


async def test_host_sandboxes_that_go_at_once(controller: Controller) -> None:
    boxes = [await controller.create_sandbox(f"{n}", netns="host") for n in range(4)]
    async with anyio.create_task_group() as tasks:
        for box in boxes:
            tasks.start_soon(box.delete)
    assert not os.path.exists(boxes[0].key)


@pytest.mark.parametrize("first", ["delete", "create"])
async def test_host_sandboxes_that_come_and_go_at_once(
    controller: Controller, first: str
) -> None:
    box = await controller.create_sandbox("0", netns="host")
    for number in range(1, 10):

        async def create(name: str) -> None:
            await controller.create_sandbox(name, netns="host")

        async with anyio.create_task_group() as tasks:
            if first == "create":
                tasks.start_soon(create, str(number))
            tasks.start_soon(box.delete)
            if first == "delete":
                tasks.start_soon(create, str(number))
        (box,) = controller.sandboxes
        assert await controller.check() == ()
        assert (await box.run(["true"])).returncode == 0


async def test_a_namespace_is_gone_that_has_links_to_be_deleted() -> None:
    """It keeps nobody else's from being deleted."""
    with Namespace("one") as one, Namespace("two") as two:
        async with Controller(on_damage="report") as controller:
            network = await controller.create_network("front")
            boxes = []
            for mine in (one, two):
                path = f"/proc/{os.getpid()}/fd/{mine.netns}"
                name = mine.name
                boxes.append(await controller.create_sandbox(name, netns=path))
                await network.connect(boxes[-1])
            await network.endpoint("two").leave()
            services = controller._services
            services.kernel._kept.forget(boxes[1].key)
            services.reaper.want(boxes[1].key)
            await anyio.to_thread.run_sync(namespaces.unpin, boxes[1].key)
            await anyio.to_thread.run_sync(leave_a_file, boxes[1].key)
            await boxes[0].delete()
            assert controller.sandboxes == (boxes[1],)


def leave_a_file(path: str) -> None:
    with open(path, "x", encoding="ascii"):
        pass


@pytest.mark.parametrize("adopted", [False, True])
async def test_links_that_cannot_be_deleted(
    adopted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is done all the same, and the failure is told."""
    failure = cnm.KernelError(errno.ENOMEM, "delete links")

    async def fail() -> None:
        raise failure

    with Namespace("one") as one, pytest.raises(cnm.TeardownError) as caught:
        async with Controller() as controller:
            path = f"/proc/{os.getpid()}/fd/{one.netns}" if adopted else None
            box = await controller.create_sandbox("box", netns=path)
            network = await controller.create_network("front")
            await network.connect(box)
            monkeypatch.setattr(controller._services.reaper, "reap", fail)
            if adopted:
                with pytest.raises(cnm.TeardownError) as told:
                    await box.delete()
                assert told.value.exceptions == (failure,)
                assert (controller.sandboxes, network.endpoints) == ((), ())
    assert caught.value.exceptions == (failure,)
    assert host_tables() == []
    monkeypatch.undo()
    async with Controller():  # sweeps
        pass
