"""A store belongs to one at a time."""

# ruff: noqa: ASYNC221 - tests may block

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cnm import Controller, SQLiteStore, StoreError

from .conftest import forget_table

HOLDER = """
import sys
import anyio
from cnm import SQLiteStore

async def main() -> None:
    store = SQLiteStore(sys.argv[1])
    await store.open()
    await store.put("a", {"v": 1})
    print("open", flush=True)
    await anyio.sleep_forever()

anyio.run(main)
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that has a store open."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        try:
            yield process
        finally:
            process.kill()


async def test_another_process_is_named(path: Path) -> None:
    store = SQLiteStore(path)
    with holder(path) as process:
        text = f"^store {path} is already open in process {process.pid}$"
        for _ in range(2):
            with pytest.raises(StoreError, match=text):
                await store.open()
        process.send_signal(signal.SIGKILL)
        process.wait()
        await store.open()
    record = await store.get("a")
    assert record is not None
    assert record.value == {"v": 1}
    await store.close()


async def test_a_link_leads_to_the_same_store(path: Path) -> None:
    link = path.parent / "link.db"
    link.symlink_to(path)
    with holder(path), pytest.raises(StoreError, match="already open in process"):
        await SQLiteStore(link).open()
    store = SQLiteStore(link)
    await store.open()
    await store.put("b", {})
    await store.close()
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "link.db",
        "s.db",
        "s.db-lock",
    ]


async def test_an_attempt_in_the_same_process_takes_no_lock_away(path: Path) -> None:
    """Closing any descriptor of a file ends a process's POSIX locks on it."""
    first, second = SQLiteStore(path), SQLiteStore(path)
    await first.open()
    for _ in range(2):
        with pytest.raises(StoreError, match="already open in this process"):
            await second.open()
    program = (
        "import sqlite3, sys; sqlite3.connect(sys.argv[1], 0).execute(sys.argv[2])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path, "DELETE FROM record"],
        capture_output=True,
        check=False,
    )
    assert b"database is locked" in done.stderr
    await first.close()


async def test_two_controllers(path: Path) -> None:
    async with Controller("one", store=SQLiteStore(path)) as one:
        with pytest.raises(StoreError, match="already open in this process"):
            async with Controller("two", store=SQLiteStore(path)):
                pass
        await forget_table(one)
    async with Controller("two", store=SQLiteStore(path)) as two:
        await forget_table(two)


async def test_a_program_that_looks_into_the_file(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    await store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO record VALUES ('a', '{}', 1)")
        with pytest.raises(StoreError, match=f"store {path} is already open"):
            await store.open()
        connection.execute("COMMIT")
    await store.open()
    assert await store.get("a")
    await store.close()
