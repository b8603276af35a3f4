"""What reaches the disk when, and what is left after a loss of power."""

# ruff: noqa: ASYNC240 - tests may block

from __future__ import annotations

import errno
import random
import shutil
from pathlib import Path

import pytest

import cnm
from cnm import SQLiteStore, StoreError
from cnm.store import Delete, Put
from tests.integration.system_calls import Faults

from .conftest import forget_table


async def test_only_durable_transactions_wait_for_the_disk(
    path: Path, faults: Faults
) -> None:
    store = SQLiteStore(path)
    await store.open()
    await store.put("a", {"v": 0}, durable=True)
    await faults.install(store)
    for value in range(20):
        await store.put("a", {"v": value})
        await store.delete("b")
    assert faults.calls["pwrite64"] >= 40
    assert faults.calls["fdatasync"] == 0
    durable: list[Put | Delete]
    durable = [Put("a", {}, durable=True), Delete("a", durable=True)]
    for count, change in enumerate(durable, 1):
        await store.transaction(Put("c", {}), change)
        assert faults.calls["fdatasync"] == count
    await store.put("a", {})
    assert faults.calls["fdatasync"] == 2
    await store.close()


async def test_definitions_of_networks_are_durable(path: Path, faults: Faults) -> None:
    """The disk fails when it is waited for: this tells who waits for it."""
    store = SQLiteStore(path)
    async with cnm.Controller(store=store) as controller:
        network = await controller.create_network("front", subnets=["10.9.0.0/24"])
        await faults.install(store)
        faults.fail = {"fdatasync": errno.EIO}
        box = await controller.create_sandbox("box")
        endpoint = await network.connect(box)
        await endpoint.leave()
        await endpoint.delete()
        await box.delete()
        assert not faults.calls["fdatasync"]
        with pytest.raises(StoreError, match="disk I/O error"):
            await controller.create_network("conf", config_only=True)
        with pytest.raises(StoreError, match="disk I/O error"):
            await controller.create_network("back", subnets=["10.8.0.0/24"])
        with pytest.raises(StoreError, match="disk I/O error"):
            await network.services.add("_a._tcp", target="box", port=1)
        assert [each.name for each in controller.networks] == ["front"]
        await network.delete()  # the intent is there, and waits for nobody
        faults.fail = {}
        assert await store.scan("network/") != ()
        await controller.create_network("conf", config_only=True)
        assert [it.value["name"] for it in await store.scan("network/")] == ["conf"]
        await controller.network("conf").delete()
        await forget_table(controller)


async def test_after_power_loss_what_is_durable_is_there(path: Path) -> None:
    """Whatever of the later writing has not reached the disk is missing, or zeros."""
    store = SQLiteStore(path)
    await store.open()
    for number in range(30):
        await store.put(f"network/{number}", {"n": number}, durable=True)
        await store.put(f"endpoint/{number}", {"n": number, "x": "x" * 600})
    await store.put("network/last", {}, durable=True)
    wal = Path(f"{path}-wal")
    synced = wal.stat().st_size
    for number in range(100, 160):
        await store.put(f"endpoint/{number}", {"n": number, "x": "x" * 600})
    content, log = path.read_bytes(), wal.read_bytes()
    assert len(log) > synced + 50_000
    chance = random.Random(1)
    for round_ in range(40):
        copy = path.parent / f"copy-{round_}"
        copy.write_bytes(content)
        tail = bytearray(log[synced : chance.randrange(synced, len(log))])
        if round_ % 2 and tail:
            start = chance.randrange(len(tail))
            tail[start : start + 4096] = bytes(len(tail[start : start + 4096]))
        Path(f"{copy}-wal").write_bytes(log[:synced] + tail)
        left = SQLiteStore(copy)
        await left.open()
        networks = {record.key for record in await left.scan("network/")}
        assert networks == {f"network/{n}" for n in (*range(30), "last")}
        numbers = {int(r.key[9:]) for r in await left.scan("endpoint/")}
        late = sorted(numbers - set(range(30)))
        assert late == list(range(100, 100 + len(late)))
        await left.close()
    await store.close()


async def test_a_commit_that_failed_does_not_come_back(
    path: Path, faults: Faults
) -> None:
    store = SQLiteStore(path)
    await store.open()
    await store.put("a", {"v": 1}, durable=True)
    await faults.install(store)
    faults.fail, faults.times = {"fdatasync": errno.EIO}, 1
    with pytest.raises(
        StoreError, match=f"store {path}: disk I/O error: the disk fails"
    ):
        await store.put("a", {"v": 2}, durable=True)
    crashed = path.parent / "crashed.db"
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{crashed}{suffix}")
    for left in (store, SQLiteStore(crashed)):
        if left is not store:
            await left.open()
        record = await left.get("a")
        assert record is not None
        assert (record.value, record.version) == ({"v": 1}, 1)
        await left.put("a", {"v": 3}, durable=True)
        await left.close()
