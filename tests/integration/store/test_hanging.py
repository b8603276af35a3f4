"""A disk that does not answer."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from cnm import Controller, SQLiteStore, StoreError
from cnm.store import Put
from tests.integration.system_calls import Faults

from .conftest import forget_table

SHORT = 0.2
NO_ANSWER = r"the disk has not answered within 0\.2 seconds; what was asked for"


async def test_the_event_loop_goes_on(path: Path, faults: Faults) -> None:
    store = SQLiteStore(path)
    await store.open()
    await faults.install(store)
    faults.hang()
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await anyio.sleep(0.001)
            longest = max(longest, time.monotonic() - before)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        async with anyio.create_task_group() as writers:
            for number in range(5):
                writers.start_soon(store.put, f"a/{number}", {})
            await anyio.to_thread.run_sync(faults.wait_until_it_hangs)
            await anyio.sleep(0.3)
            faults.go_on()
        tasks.cancel_scope.cancel()
    assert longest < 0.1
    assert len(await store.scan("a/")) == 5
    await store.close()


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
async def test_what_takes_too_long_is_undone(path: Path, call: str) -> None:
    store = SQLiteStore(path, timeout=SHORT)
    await store.open()
    await store.transaction(Put("a", {"v": 1}), Put("b", {"v": 1}))
    with Faults(call) as faults:
        await faults.install(store)
        faults.hang()
        changes = Put("a", {"v": 2}), Put("c", {}, durable=True)
        with pytest.raises(StoreError, match=NO_ANSWER):
            await store.transaction(*changes)
        # who comes afterwards is told at once
        with anyio.fail_after(SHORT / 2), pytest.raises(StoreError, match=NO_ANSWER):
            await store.put("b", {"v": 2})
        with anyio.fail_after(SHORT / 2), pytest.raises(StoreError, match=NO_ANSWER):
            await store.get("a")
        faults.go_on()
        with anyio.fail_after(30):
            while True:
                try:
                    records = await store.scan("")
                    break
                except StoreError:
                    await anyio.sleep(0.001)
        assert [(r.key, r.value, r.version) for r in records] == [
            ("a", {"v": 1}, 1),
            ("b", {"v": 1}, 1),
        ]
        await store.transaction(*changes)
        await store.close()
    await store.open()
    assert [(r.key, r.version) for r in await store.scan("")] == [
        ("a", 2),
        ("b", 1),
        ("c", 1),
    ]
    await store.close()


async def test_closing_while_it_hangs(path: Path, faults: Faults) -> None:
    store, other = SQLiteStore(path, timeout=SHORT), SQLiteStore(path)
    await store.open()
    await faults.install(store)
    faults.hang()
    with pytest.raises(StoreError, match=NO_ANSWER):
        await store.put("a", {})
    with anyio.fail_after(30), pytest.raises(StoreError, match="closed when it does"):
        await store.close()
    await store.close()
    with pytest.raises(StoreError, match="is not open"):
        await store.get("a")
    for again in (store, other):
        with pytest.raises(StoreError, match="already open in this process"):
            await again.open()
    faults.close()
    await other.open()
    assert await other.scan("") == ()
    await other.close()


async def test_closing_while_something_is_done(path: Path, faults: Faults) -> None:
    store = SQLiteStore(path)
    await store.open()
    await faults.install(store)
    faults.hang()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.put, "a", {})
        await anyio.to_thread.run_sync(faults.wait_until_it_hangs)
        tasks.start_soon(store.close)
        await anyio.sleep(0.1)
        faults.go_on()
    await store.open()
    assert await store.get("a")
    await store.close()


async def test_a_loop_that_has_ended_meanwhile(path: Path, faults: Faults) -> None:
    """What hangs comes back when nobody waits any more; it does not hurt."""
    store = SQLiteStore(path, timeout=SHORT)

    async def main() -> None:
        await store.open()
        await faults.install(store)
        faults.hang()
        with pytest.raises(StoreError, match=NO_ANSWER):
            await store.put("a", {})
        with pytest.raises(StoreError, match="closed when it does"):
            await store.close()

    await anyio.to_thread.run_sync(anyio.run, main)
    faults.close()
    await store.open()
    assert await store.get("a") is None
    await store.close()


async def test_cancelling_while_it_hangs(path: Path, faults: Faults) -> None:
    """A transaction that has begun is waited for; its time-out still counts."""
    store = SQLiteStore(path, timeout=SHORT)
    await store.open()
    await faults.install(store)
    faults.hang()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, faults.wait_until_it_hangs)
            scope.deadline = anyio.current_time() + SHORT / 4
            with pytest.raises(StoreError, match=NO_ANSWER):
                await store.put("a", {})
    faults.go_on()
    await store.close()
    await store.open()
    assert await store.get("a") is None
    await store.close()


async def test_a_thread_that_waits_is_told_as_well(path: Path, faults: Faults) -> None:
    store = SQLiteStore(path, timeout=SHORT)
    await store.open()
    await faults.install(store)
    faults.hang()
    for _ in range(2):  # the second one at once
        with pytest.raises(StoreError, match=NO_ANSWER):
            await anyio.to_thread.run_sync(store.write, Put("a", {}))
    faults.go_on()
    with anyio.fail_after(30):
        while True:
            try:
                assert await store.get("a") is None
                break
            except StoreError:
                await anyio.sleep(0.001)
    await store.close()


async def test_a_disk_is_not_taken_for_a_driver(path: Path, faults: Faults) -> None:
    """A plan is not given up because the disk takes longer than a driver may."""
    store = SQLiteStore(path)
    async with Controller(store=store, driver_timeout=SHORT) as controller:
        network = await controller.create_network("front")
        box = await controller.create_sandbox("box")
        await faults.install(store)
        faults.hang()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(network.connect, box)
            await anyio.to_thread.run_sync(faults.wait_until_it_hangs)
            await anyio.sleep(2 * SHORT)
            assert box.endpoints == ()
            faults.go_on()
        assert await controller.check() == ()
        await network.delete(force=True)
        await box.delete()
        await forget_table(controller)
