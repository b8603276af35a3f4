"""What processes do that are to be killed."""

from __future__ import annotations

import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import anyio

# of which the server that forks has what it imports, so that no process does
import anyio._backends._asyncio

from cnm import SQLiteStore
from cnm.store import Delete, Put


def write(path: Path, said: Connection) -> None:
    """Commit one transaction after the other, and say the number of each."""
    anyio.run(_write, path, said)


async def _write(path: Path, said: Connection) -> None:
    store = SQLiteStore(path)
    await store.open()
    record = await store.get("network/a")
    number = int(str(record.value["n"])) if record else 0
    said.send(0)
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
        said.send(number)


def open_it(path: Path, said: Connection) -> None:
    """Open a store, and say what time it is before and after that."""
    anyio.run(_open, path, said)


async def _open(path: Path, said: Connection) -> None:
    store = SQLiteStore(path)
    said.send(time.monotonic())
    await store.open()
    await store.put("a", {})
    said.send(time.monotonic())
    await anyio.sleep_forever()
