"""One contract for all stores, and what only SQLite has."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from cnm import JSON, InvalidError, MemoryStore, SQLiteStore, StoreConflict, StoreError
from cnm.journal import Journal
from cnm.store import Delete, Put, Store


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = (
        MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "s.db")
    )
    await made.open()
    yield made
    await made.close()


async def test_get_put_delete(store: Store) -> None:
    assert await store.get("a") is None
    value: dict[str, JSON] = {"s": "é", "n": 5, "l": [1, None, True], "m": {"k": 1.5}}
    await store.put("a", value)
    record = await store.get("a")
    assert record is not None
    assert (record.key, record.value, record.version) == ("a", value, 1)
    await store.put("a", {})
    record = await store.get("a")
    assert record is not None
    assert (record.value, record.version) == ({}, 2)
    await store.delete("a")
    await store.delete("a")
    assert await store.get("a") is None
    await store.put("a", {})
    record = await store.get("a")
    assert record is not None
    assert record.version == 1


async def test_scan(store: Store) -> None:
    for key in ("n/b", "n/a", "m/x", "n%", "n_", "o", "n"):
        await store.put(key, {"k": key})
    assert [r.key for r in await store.scan("n/")] == ["n/a", "n/b"]
    assert [r.key for r in await store.scan("n_")] == ["n_"]
    assert len(await store.scan("")) == 7
    assert await store.scan("zzz") == ()


async def test_transactions_are_atomic(store: Store) -> None:
    await store.put("a", {"v": 1})
    with pytest.raises(StoreConflict, match="a has version 1, not 7"):
        await store.transaction(Put("b", {}), Delete("a", version=7))
    with pytest.raises(StoreConflict, match="c has version 0, not 1"):
        await store.transaction(Put("b", {}), Put("c", {}, version=1))
    with pytest.raises(StoreConflict, match="a has version 1, not 0"):
        await store.transaction(Put("b", {}), Put("a", {}, version=0))
    assert [r.key for r in await store.scan("")] == ["a"]
    await store.transaction(Put("a", {"v": 2}, version=1), Put("b", {}, version=0))
    await store.transaction(Delete("b", version=1), Put("c", {}))
    assert [(r.key, r.version) for r in await store.scan("")] == [("a", 2), ("c", 1)]
    await store.transaction()


async def test_durable_changes(store: Store) -> None:
    await store.put("a", {"v": 1}, durable=True)
    await store.transaction(Put("b", {}, 0, durable=True), Put("c", {}))
    await store.transaction(Put("b", {}), Delete("c", 1, durable=True))
    await store.delete("a", durable=True)
    assert [(r.key, r.version) for r in await store.scan("")] == [("b", 2)]
    with pytest.raises(StoreConflict, match="b has version 2, not 1"):
        await store.transaction(Put("b", {}, 1, durable=True))


async def test_a_key_twice_in_a_transaction(store: Store) -> None:
    await store.transaction(Put("a", {"v": 1}), Put("a", {"v": 2}), Delete("b"))
    await store.transaction(Put("b", {}), Delete("b"), Delete("a"), Put("a", {"v": 3}))
    assert [(r.key, r.value) for r in await store.scan("")] == [("a", {"v": 3})]


async def test_many_at_once(store: Store) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(store.put, "a", {})
    record = await store.get("a")
    assert record is not None
    assert record.version == 50


async def test_a_cancelled_transaction_is_not_begun(store: Store) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.put("a", {})
    assert await store.get("a") is None


async def test_reopening(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "s.db"
    store = SQLiteStore(path)
    for expected in (None, 1):
        await store.open()
        record = await store.get("a")
        assert (record.version if record else None) == expected
        await store.put("a", {})
        await store.delete("a")
        await store.put("a", {})
        await store.close()
        await store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(StoreError, match="is not open"):
        await store.get("a")


async def test_only_one_has_it_open(tmp_path: Path) -> None:
    first, second = (SQLiteStore(tmp_path / "s.db") for _ in range(2))
    await first.open()
    with pytest.raises(StoreError, match="already open"):
        await second.open()
    with pytest.raises(StoreError, match="already open"):
        await first.open()
    await first.put("a", {})
    await first.close()
    await second.open()
    assert await second.get("a")
    await second.close()


async def test_what_is_no_store(tmp_path: Path) -> None:
    corrupt = tmp_path / "corrupt.db"
    corrupt.write_bytes(b"no database" * 500)
    for path in (corrupt, tmp_path):
        with pytest.raises(StoreError, match=str(path)):
            await SQLiteStore(path).open()
    assert corrupt.read_bytes() == b"no database" * 500


@pytest.mark.parametrize("timeout", [0, -1, "soon", float("nan"), float("inf"), None])
def test_a_timeout_is_a_positive_number(timeout: float) -> None:
    with pytest.raises(InvalidError, match="timeout: expected seconds, more than 0"):
        SQLiteStore("s.db", timeout=timeout)


async def test_writing_in_a_thread(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db")
    with pytest.raises(StoreError, match="is not open"):
        store.write(Put("a", {}))
    await store.open()
    await anyio.to_thread.run_sync(store.write, Put("a", {"v": 1}), Put("b", {}))
    with pytest.raises(StoreConflict):
        await anyio.to_thread.run_sync(store.write, Delete("a"), Put("b", {}, 7))
    assert [(r.key, r.value) for r in await store.scan("")] == [
        ("a", {"v": 1}),
        ("b", {}),
    ]
    await store.close()


def test_what_a_store_says_holds_for_its_own_transactions() -> None:
    class Counting(SQLiteStore):
        async def transaction(self, *changes: Put | Delete) -> None:
            await super().transaction(*changes)

    assert (SQLiteStore.prompt, SQLiteStore.writes) == (True, True)
    assert (Counting.prompt, Counting.writes) == (False, False)
    assert not MemoryStore.writes


class Slow(MemoryStore):
    fails = False

    async def transaction(self, *changes: Put | Delete) -> None:
        if self.fails:
            raise StoreError("disk full")
        await anyio.sleep(0.01)
        await super().transaction(*changes)


async def test_what_was_postponed_is_not_written_over_what_came_later() -> None:
    store = Slow()
    journal = Journal(store)
    store.fails = True
    await journal.write_or_postpone(Put("a", {"v": 1}), Put("b", {"v": 1}))
    store.fails = False
    async with anyio.create_task_group() as tasks:
        for key in ("a", "c"):
            tasks.start_soon(journal.write, Put(key, {"v": 2}))
            await anyio.lowlevel.checkpoint()
    found = {record.key: record.value["v"] for record in await store.scan("")}
    assert found == {"a": 2, "b": 1, "c": 2}
