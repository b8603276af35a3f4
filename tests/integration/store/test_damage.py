"""Files that are damaged are moved aside; those of others are left alone."""

# ruff: noqa: ASYNC240 - tests may block

from __future__ import annotations

import os
import random
import re
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from cnm import Controller, SQLiteStore, StoreError
from cnm.store import Put

from .conftest import forget_table
from .test_layouts import FIXTURES, load

PAGE = 4096
RECORDS = 300


async def fill(path: Path, count: int = RECORDS) -> None:
    """Make a store with many records."""
    store = SQLiteStore(path)
    await store.open()
    keys = [f"endpoint/{number:04}" for number in range(count)]
    await store.transaction(*(Put(key, {"x": "x" * 1500}) for key in keys))
    await store.close()


def moved(path: Path, error: object) -> Path:
    """Return where the error says that the damaged file is now."""
    found = re.search(r"it is now (\S+\.corrupt-\d{8}T\d{6}Z(\.\d+)?),", str(error))
    assert found, error
    assert str(path) in str(error)
    return Path(found[1])


async def becomes(path: Path) -> Path:
    """Open a damaged store; return where it is afterwards."""
    store = SQLiteStore(path)
    content = path.read_bytes()
    with pytest.raises(StoreError, match=f"store {path} is damaged") as caught:
        await store.open()
    assert not path.exists()
    aside = moved(path, caught.value)
    assert aside.parent == path.parent
    assert aside.read_bytes() == content
    await store.open()
    assert await store.scan("") == ()
    await store.put("a", {})
    await store.close()
    return aside


def zero(content: bytearray, start: int) -> None:
    """Zero a page."""
    content[start : start + PAGE] = bytes(PAGE)


def scramble(content: bytearray, start: int) -> None:
    """Fill a page with garbage."""
    content[start : start + PAGE] = random.Random(start).randbytes(PAGE)


def cut(content: bytearray, start: int) -> None:
    """Truncate a file."""
    del content[start:]


HARMS: list[Callable[[bytearray, int], None]] = [zero, scramble, cut]


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("page", [0, 1, 2, 60, 299])
async def test_damaged_pages(
    path: Path, harm: Callable[[bytearray, int], None], page: int
) -> None:
    await fill(path)
    content = bytearray(path.read_bytes())
    assert len(content) >= 300 * PAGE
    harm(content, page * PAGE)
    path.write_bytes(content)
    await becomes(path)


@pytest.mark.parametrize("harm", [zero, scramble])
async def test_no_damaged_page_goes_unnoticed(
    path: Path, harm: Callable[[bytearray, int], None]
) -> None:
    await fill(path)
    whole = path.read_bytes()
    for start in range(0, len(whole), 5 * PAGE):
        content = bytearray(whole)
        harm(content, start)
        path.write_bytes(content)
        store = SQLiteStore(path)
        with pytest.raises(StoreError, match="is damaged") as caught:
            await store.open()
        moved(path, caught.value).unlink()


async def test_no_database_any_more(path: Path) -> None:
    await fill(path)
    path.write_bytes(b"no database" * 500)
    first = await becomes(path)
    path.write_bytes(b"no database" * 500)
    assert await becomes(path) != first


async def test_what_belongs_to_it_goes_along(path: Path) -> None:
    await fill(path)
    store = SQLiteStore(path)
    await store.open()
    await store.put("endpoint/0150", {"late": True})
    content = bytearray(path.read_bytes())
    log = Path(f"{path}-wal").read_bytes()
    await store.close()
    zero(content, 60 * PAGE)
    path.write_bytes(content)
    Path(f"{path}-wal").write_bytes(log)
    with pytest.raises(StoreError, match="is damaged") as caught:
        await store.open()
    aside = moved(path, caught.value)
    assert Path(f"{aside}-wal").read_bytes() == log
    names = {each.name for each in path.parent.iterdir()}
    assert names == {f"{path.name}-lock", aside.name, f"{aside.name}-wal"}
    # most of it can be saved, and all of what was written last
    with closing(sqlite3.connect(aside)) as connection:
        query = "SELECT value FROM record WHERE key = 'endpoint/0150'"
        assert connection.execute(query).fetchone() == ('{"late":true}',)


async def test_a_log_without_its_file(path: Path) -> None:
    """SQLite would throw it away."""
    store = SQLiteStore(path)
    await store.open()
    await store.put("a", {})
    log = Path(f"{path}-wal").read_bytes()
    await store.close()
    for remains in (None, b""):
        path.unlink()
        if remains is not None:
            path.write_bytes(remains)
        Path(f"{path}-wal").write_bytes(log)
        with pytest.raises(
            StoreError, match=r"is damaged .*but for s\.db-wal"
        ) as caught:
            await store.open()
        assert Path(f"{moved(path, caught.value)}-wal").read_bytes() == log
        await store.open()
        await store.close()


@pytest.mark.parametrize("size", [0, 100, PAGE])
async def test_a_truncated_file_is_not_taken_for_a_new_one(
    path: Path, size: int
) -> None:
    await fill(path)
    os.truncate(path, size)
    await becomes(path)


async def zeros_behind_its_back(path: Path) -> SQLiteStore:
    """Return an open store of whose pages some have become zeros."""
    await fill(path, 2000)
    store = SQLiteStore(path)
    await store.open()
    with path.open("r+b") as file:
        # these are not in SQLite's cache any more
        file.seek(20 * PAGE)
        file.write(bytes(20 * PAGE))
    return store


async def a_list_for_a_mapping(path: Path) -> SQLiteStore:
    """Return an open store with a value that is none."""
    await fill(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE record SET value = '[1]' WHERE key > 'endpoint/01'")
        connection.commit()
    store = SQLiteStore(path)
    await store.open()
    return store


@pytest.mark.parametrize("damaged", [zeros_behind_its_back, a_list_for_a_mapping])
async def test_damage_that_shows_later(
    path: Path, damaged: Callable[[Path], Awaitable[SQLiteStore]]
) -> None:
    store = await damaged(path)
    await store.put("a", {})
    with pytest.raises(StoreError, match="is damaged") as caught:
        await store.scan("")
    aside = moved(path, caught.value)
    assert not path.exists()
    assert aside.exists()
    # nothing is put into a new file behind the controller's back
    for _ in range(2):
        with pytest.raises(StoreError, match=f"it is now {aside}"):
            await store.put("c", {})
        with pytest.raises(StoreError, match=f"it is now {aside}"):
            await store.get("b")
    with pytest.raises(StoreError, match="already open"):
        await SQLiteStore(path).open()
    await store.close()
    assert not path.exists()


async def test_what_cannot_be_encoded_is_no_damage(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    circle: dict[str, object] = {}
    circle["self"] = circle
    with pytest.raises(ValueError, match="Circular"):
        await store.put("a", circle)  # type: ignore[arg-type]
    with pytest.raises(UnicodeEncodeError):
        await store.put("\ud800", {})
    await store.put("a", {})
    assert len(await store.scan("")) == 1
    await store.close()


async def test_a_controller_does_not_start_with_it(path: Path) -> None:
    load(FIXTURES[0], path)
    with path.open("r+b") as file:
        file.seek(PAGE)
        file.write(bytes(PAGE))
    with pytest.raises(StoreError, match="is damaged") as caught:
        async with Controller(store=SQLiteStore(path)):
            raise AssertionError("it has started")
    assert moved(path, caught.value).exists()
    async with Controller(store=SQLiteStore(path)) as controller:
        assert controller.networks == ()
        await forget_table(controller)


async def test_it_cannot_be_moved(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(path)
    with path.open("r+b") as file:
        file.write(bytes(PAGE))
    content = path.read_bytes()

    def fail(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        for _ in range(2):
            with pytest.raises(StoreError, match=r"damaged \(.*cannot be moved away"):
                await SQLiteStore(path).open()
    assert path.read_bytes() == content
    await becomes(path)


def _other(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)


OTHERS = {
    "its own table": ["CREATE TABLE t (a)"],
    "a log": ["PRAGMA journal_mode = WAL", "CREATE TABLE t (a)"],
    "an application": ["PRAGMA application_id = 77"],
    "a version": ["PRAGMA user_version = 7"],
    "a table called record": ["CREATE TABLE record (a)", "PRAGMA user_version = 1"],
}


@pytest.mark.parametrize("statements", OTHERS.values(), ids=OTHERS)
async def test_the_database_of_another_program(
    path: Path, statements: list[str]
) -> None:
    _other(path, *statements)
    before = path.read_bytes(), path.stat()
    for _ in range(2):
        with pytest.raises(StoreError, match=f"{path} is the database of another"):
            await SQLiteStore(path).open()
    assert (path.read_bytes(), path.stat()) == before
    assert os.listdir(path.parent) == [path.name]


async def test_the_database_of_a_program_that_runs(path: Path) -> None:
    """Nor are its locks disturbed, if it is this very program."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (a)")
        with pytest.raises(StoreError, match=r"of another program|is already open"):
            await SQLiteStore(path).open()
        connection.execute("INSERT INTO t VALUES (1)")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT a FROM t").fetchall() == [(1,)]
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    "content",
    [b"no database" * 500, b"root:x:0:0\n", bytes(PAGE), b"SQLite format 3\0"],
)
async def test_a_file_that_never_was_a_store(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(StoreError, match=f"{path} is no store .* left as it is"):
            await SQLiteStore(path).open()
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == [path.name]


async def test_what_is_no_file(path: Path, tmp_path: Path) -> None:
    os.mkfifo(path)
    for place in (path, tmp_path, Path("/dev/null")):
        with pytest.raises(StoreError, match=f"store {place}: .* no file"):
            await SQLiteStore(place).open()


async def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    store = SQLiteStore(path)
    await store.open()
    await store.put("a", {})
    await store.close()
