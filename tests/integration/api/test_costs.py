"""What operations cost, in things that can be counted: a guard that needs no clock.

Who makes an operation cheaper lowers a number here; who raises one says why.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cnm import Controller, SQLiteStore
from cnm.lifecycle import remove_table
from cnm.linux import NetlinkSocket
from cnm.store.sqlite import SQLiteStore as Store
from cnm.workers import Workers

_counted: ContextVar[Counter[str] | None] = ContextVar("counted", default=None)
_thread = threading.local()


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count what this task causes, and nobody else: background tasks do not count."""
    counts: Counter[str] = Counter()
    run, call, dump = Workers.run, NetlinkSocket.call, NetlinkSocket.dump
    transaction = Store.transaction

    @wraps(run)
    async def counted_run(
        self: Workers[Any], work: Callable[[Any], Any], timeout: float = float("inf")
    ) -> Any:
        mine = _counted.get()
        if mine is None or self._name != "cnm-kernel":
            return await run(self, work, timeout)
        mine["trips"] += 1

        def counted_work(context: Any) -> Any:
            _thread.counts = mine
            try:
                return work(context)
            finally:
                _thread.counts = None

        return await run(self, counted_work, timeout)

    @wraps(call)
    def counted_call(
        self: NetlinkSocket, *requests: Any, acknowledged: int = -1
    ) -> Any:
        if (mine := getattr(_thread, "counts", None)) is not None and requests:
            mine["calls"] += 1
            mine["requests"] += len(requests)
        return call(self, *requests, acknowledged=acknowledged)

    @wraps(dump)
    def counted_dump(self: NetlinkSocket, request: Any) -> Any:
        if (mine := getattr(_thread, "counts", None)) is not None:
            mine["dumps"] += 1
        return dump(self, request)

    @wraps(transaction)
    async def counted_transaction(self: Store, *changes: Any) -> None:
        if (mine := _counted.get()) is not None:
            mine["commits"] += 1
        await transaction(self, *changes)

    with (
        patch.object(Workers, "run", counted_run),
        patch.object(NetlinkSocket, "call", counted_call),
        patch.object(NetlinkSocket, "dump", counted_dump),
        patch.object(Store, "transaction", counted_transaction),
    ):
        token = _counted.set(counts)
        try:
            yield counts
        finally:
            _counted.reset(token)


async def cost(operation: Callable[[], Awaitable[object]]) -> dict[str, int]:
    with counting() as counts:
        await operation()
    return dict(sorted(counts.items()))


async def test_costs(tmp_path: Path) -> None:
    async with Controller(store=SQLiteStore(tmp_path / "cnm.db")) as controller:
        # drivers are loaded, sockets open, forwarding is on
        first = await controller.create_network("first")
        await first.connect(await controller.create_sandbox("first"), ports=["80"])
        found: dict[str, dict[str, int]] = {}

        async def join() -> None:
            box = await controller.create_sandbox("box")
            await controller.network("net").connect(box)

        async def publish() -> None:
            await controller.network("net").endpoint("box").publish("8080:80/tcp")

        async def leave() -> None:
            await controller.network("net").endpoint("box").leave()

        async def delete() -> None:
            await controller.network("net").delete(force=True)

        operations: dict[str, Callable[[], Awaitable[object]]] = {
            "create network": lambda: controller.create_network("net", ipv6=True),
            "create sandbox and connect": join,
            "publish": publish,
            "leave": leave,
            "delete sandbox": lambda: controller.sandbox("first").delete(),
            "delete network and endpoint": lambda: controller.network("net").delete(
                force=True
            ),
        }
        for name, operation in operations.items():
            found[name] = await cost(operation)
        await controller.sandbox("box").delete()
        await first.delete(force=True)
        await controller._services.kernel.run(remove_table, controller._services)
    assert found == EXPECTED


EXPECTED = {
    "create network": {"calls": 5, "commits": 2, "requests": 21, "trips": 2},
    "create sandbox and connect": {
        "calls": 3,
        "commits": 6,
        "requests": 11,
        "trips": 2,
    },
    "publish": {"calls": 2, "commits": 2, "requests": 6, "trips": 1},
    "leave": {"calls": 3, "commits": 2, "requests": 10, "trips": 2},
    "delete sandbox": {"calls": 2, "commits": 2, "requests": 6, "trips": 2},
    "delete network and endpoint": {
        "calls": 2,
        "commits": 4,
        "requests": 12,
        "trips": 1,
    },
}
