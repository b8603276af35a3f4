"""A process that is killed in the middle of its transactions."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import anyio
import pytest

from cnm import SQLiteStore

from . import writers
from .test_layouts import FIXTURES, load

ROUNDS = 30
# they are forked from a process that has imported everything
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([writers.__name__])


def killed(
    work: Callable[[Path, Connection], None], path: Path, seconds: float
) -> list[float]:
    """Kill a process so long after it has first said something; return all it said.

    :param seconds: 0 to wait until it has said something else
    """
    heard, said = PROCESSES.Pipe(duplex=False)
    with heard:
        process = PROCESSES.Process(target=work, args=(path, said))
        process.start()
        said.close()
        numbers = [heard.recv()]
        if not seconds:
            numbers.append(heard.recv())
        process.join(seconds)
        assert process.exitcode is None
        process.kill()
        with suppress(EOFError):
            while True:
                numbers.append(heard.recv())
    process.join()
    process.close()
    return numbers


def test_every_record_is_old_or_new(path: Path) -> None:
    chance = random.Random(1)
    written = 0
    for _ in range(ROUNDS):
        said = killed(writers.write, path, chance.random() * 0.08)
        # what the writer before had written, and could not say, counts as well
        written = anyio.run(_check, path, int(max(written, *said)))
    assert written > ROUNDS


@pytest.mark.parametrize("layout", [0, 1])
def test_killed_while_it_is_opened(path: Path, layout: int) -> None:
    """Also while the file is made, or brought to the newest layout."""
    chance = random.Random(1)
    known = opened = 0
    took = 0.0
    for _ in range(ROUNDS):
        if layout:
            known = _old(path)
        times = killed(writers.open_it, path, chance.random() * 2 * took)
        if len(times) > 1:
            opened += 1
            took = took or times[1] - times[0]
        anyio.run(_open, path, known)
        for each in path.parent.glob(f"{path.name}*"):
            each.unlink()
    assert 0 < opened < ROUNDS


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
