"""Ctrl-C at any moment: what is committed is not undone, and nothing gets lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from cnm import Controller, MemoryStore, SQLiteStore
from cnm.store import Delete, Put
from cnm.workers import Workers

from ...conftest import BACKENDS
from .test_restore import remove_all

SUBNET = "10.9.0.0/24"
Act = Callable[[Controller], Awaitable[object]]


class Interrupting(SQLiteStore):
    """Ctrl-C comes when a record of a kind has been written.

    :ivar kind: prefix of its key, ``""`` for none
    """

    kind: str = ""

    async def transaction(self, *changes: Put | Delete) -> None:
        await super().transaction(*changes)
        if self.kind and any(it.key.startswith(self.kind) for it in changes):
            self.kind = ""
            raise KeyboardInterrupt


class InterruptingMemory(MemoryStore):
    async def transaction(self, *changes: Put | Delete) -> None:
        await super().transaction(*changes)
        if any(it.key.startswith("sandbox/") for it in changes):
            raise KeyboardInterrupt


def join(controller: Controller) -> Awaitable[object]:
    endpoint = controller.network("front").endpoint("ep")
    return endpoint.join(controller.sandbox("box"))


def publish(controller: Controller) -> Awaitable[object]:
    return controller.network("front").endpoint("there").publish("8080:80")


@pytest.mark.parametrize(
    ("kind", "act"),
    [
        ("sandbox/", lambda it: it.create_sandbox("new")),
        ("network/", lambda it: it.create_network("new")),
        ("endpoint/", lambda it: it.network("front").create_endpoint("new")),
        ("endpoint/", join),
        ("endpoint/", publish),
    ],
)
async def test_what_is_committed_is_not_undone(
    tmp_path: Path, kind: str, act: Act
) -> None:
    path = tmp_path / "journal.db"
    store = Interrupting(path)
    async with Controller(store=store) as controller:
        network = await controller.create_network("front", subnets=[SUBNET])
        await network.create_endpoint("ep")
        await network.connect(await controller.create_sandbox("box"), name="there")
        store.kind = kind
        with pytest.raises(KeyboardInterrupt):
            await act(controller)
    async with Controller(store=SQLiteStore(path)) as controller:
        outcomes = {entry.outcome for entry in controller.restored.entries}
        assert outcomes == {"kept"}
        assert await controller.check() == ()
    await remove_all(path)


async def test_nothing_is_left_of_what_does_not_last() -> None:
    async with Controller(store=InterruptingMemory()) as controller:
        directory = controller._services.run_dir
        with pytest.raises(KeyboardInterrupt):
            await controller.create_sandbox("box")
        assert os.listdir(f"{directory}/netns") == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_job_is_waited_for(backend: tuple[str, dict[str, bool]]) -> None:
    results: list[str] = []

    async def main() -> None:
        def work(context: None) -> str:
            os.kill(os.getpid(), signal.SIGINT)
            # the main thread is here when it has seen the signal
            seen = threading.Event()
            workers._notify(seen.set)
            seen.wait()
            return "done"

        workers = Workers("test", 1, lambda: None, lambda context: None)
        try:
            results.append(await workers.run(work))
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await workers.close()

    name, options = backend
    with pytest.raises(KeyboardInterrupt):
        anyio.run(main, backend=name, backend_options=options)
    assert results == ["done"]
