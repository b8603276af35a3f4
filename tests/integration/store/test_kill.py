"""A process that is killed in the middle of its transactions."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from cnm import SQLiteStore

from .test_layouts import FIXTURES, load

ROUNDS = 30
WRITER = """
import random, sys
import anyio
from cnm import SQLiteStore
from cnm.store import Delete, Put

async def main() -> None:
    store = SQLiteStore(sys.argv[1])
    await store.open()
    record = await store.get("network/a")
    number = record.value["n"] if record else 0
    print("open", flush=True)
    while True:
        number += 1
        durable = number % 7 == 0
        size = random.choice((10, 1000, 20_000))
        changes = [
            Put(f"network/{name}", {"n": number, "x": "x" * size}, durable=durable)
            for name in "abc"
        ]
        odd, even = ("endpoint/odd", "endpoint/even")[:: 1 if number % 2 else -1]
        await store.transaction(*changes, Put(odd, {"n": number}), Delete(even))
        print(number, flush=True)

anyio.run(main)
"""


def test_every_record_is_old_or_new(path: Path) -> None:
    chance = random.Random(1)
    written = 0
    for _ in range(ROUNDS):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            try:
                process.wait(chance.random() * 0.08)
            except subprocess.TimeoutExpired:
                process.kill()
            said = process.stdout.read().split("\n")
        # what the writer before had written, and could not say, counts as well
        acknowledged = max([written, *(int(n) for n in said[:-1])])
        written = anyio.run(_check, path, acknowledged)
    assert written > ROUNDS


@pytest.mark.parametrize("layout", [0, 1])
def test_killed_while_it_is_opened(path: Path, layout: int) -> None:
    """Also while the file is made, or brought to the newest layout."""
    chance = random.Random(1)
    opened = known = 0
    for _ in range(ROUNDS):
        if layout:
            known = _old(path)
        with subprocess.Popen(
            [sys.executable, "-c", OPENER, path], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(chance.random() * (0.1 if layout else 0.02))
            except subprocess.TimeoutExpired:
                process.kill()
            opened += b"open" in process.stdout.read()
        anyio.run(_open, path, known)
        for each in path.parent.glob(f"{path.name}*"):
            each.unlink()
    assert 0 < opened < ROUNDS


OPENER = """
import sys
import anyio
from cnm import SQLiteStore

async def main() -> None:
    store = SQLiteStore(sys.argv[1])
    print("ready", flush=True)
    await store.open()
    await store.put("a", {})
    print("open", flush=True)
    await anyio.sleep_forever()

anyio.run(main)
"""


def _old(path: Path) -> int:
    """Make a file of the first layout; return how many records it has."""
    count = len(load(FIXTURES[0], path))
    with closing(sqlite3.connect(path)) as connection:
        connection.executemany(
            "INSERT INTO record VALUES (?, '{}', 1)",
            [(f"network/{number}",) for number in range(2000)],
        )
        connection.commit()
    return count + 2000


async def _open(path: Path, known: int) -> None:
    store = SQLiteStore(path)
    await store.open()
    records = [record for record in await store.scan("") if record.key != "a"]
    assert len(records) == known
    assert all("services" in r.value for r in records if r.key.startswith("network/"))
    await store.put("a", {})
    await store.close()


async def _check(path: Path, acknowledged: int) -> int:
    """Check the file that a writer has left; return how far it has come."""
    store = SQLiteStore(path)
    await store.open()
    networks = await store.scan("network/")
    endpoints = await store.scan("endpoint/")
    await store.close()
    if not networks:
        assert (acknowledged, endpoints) == (0, ())
        return 0
    numbers = {record.value["n"] for record in networks}
    assert [record.key for record in networks] == [f"network/{n}" for n in "abc"]
    assert len(numbers) == 1
    number = numbers.pop()
    assert isinstance(number, int)
    assert number in (acknowledged, acknowledged + 1)
    assert [(r.key, r.value["n"]) for r in endpoints] == [
        ("endpoint/odd" if number % 2 else "endpoint/even", number)
    ]
    return number
