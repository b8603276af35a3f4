"""What operations cost, in things that can be counted: a guard that needs no clock.

Who makes an operation cheaper lowers a number here; who raises one says why.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest

from cnm import Controller, SQLiteStore, lifecycle
from cnm.lifecycle import remove_table
from cnm.linux import Kernel, NetlinkSocket
from cnm.store.sqlite import SQLiteStore as Store
from cnm.workers import Workers
from tests.integration.system_calls import PLANNING, Faults

_counted: ContextVar[Counter[str] | None] = ContextVar("counted", default=None)
_thread = threading.local()


@contextmanager
def counting(system_calls: Faults) -> Iterator[Counter[str]]:
    """Count what this task causes, and nobody else: background tasks do not count.

    :param system_calls: counts those of the kernel's thread
    """
    counts: Counter[str] = Counter()
    run, call, dump = Workers.run, NetlinkSocket.call, NetlinkSocket.dump
    transaction, write = Store.transaction, Store.write

    @wraps(run)
    async def counted_run(
        self: Workers[Any], work: Callable[[Any], Any], *args: Any
    ) -> Any:
        mine = _counted.get()
        if mine is None or self._name != "cnm-kernel":
            return await run(self, work, *args)
        mine["trips"] += 1

        def counted_work(context: Any) -> Any:
            _thread.counts = mine
            system_calls.counts = True
            try:
                return work(context)
            finally:
                system_calls.counts = False
                _thread.counts = None

        return await run(self, counted_work, *args)

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

    @wraps(write)
    def counted_write(self: Store, *changes: Any) -> None:
        if (mine := getattr(_thread, "counts", None)) is not None:
            mine["noted"] += 1
        write(self, *changes)

    with (
        patch.object(Workers, "run", counted_run),
        patch.object(NetlinkSocket, "call", counted_call),
        patch.object(NetlinkSocket, "dump", counted_dump),
        patch.object(Store, "transaction", counted_transaction),
        patch.object(Store, "write", counted_write),
    ):
        token = _counted.set(counts)
        try:
            yield counts
        finally:
            _counted.reset(token)


class Cost(NamedTuple):
    """What an operation takes.

    :ivar commits: transactions of the store that take a trip of their own
    :ivar noted: transactions of the store from within plans
    """

    trips: int
    calls: int
    requests: int
    commits: int
    noted: int
    system_calls: int


async def cost(
    operation: Callable[[], Awaitable[object]], system_calls: Faults
) -> Cost:
    system_calls.calls.clear()
    with counting(system_calls) as counts:
        await operation()
    assert not counts.keys() - set(Cost._fields), counts
    # writing a setting starts anew while others configure links
    counts["system_calls"] = system_calls.calls.total() - system_calls.calls["write"]
    return Cost(**{name: counts[name] for name in Cost._fields})


@pytest.fixture
def system_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """The system calls of a controller's only thread for plans."""
    only_one = partial(Kernel, threads=1)
    monkeypatch.setattr(lifecycle, "Kernel", only_one)
    with Faults(*PLANNING) as faults:
        faults.counts = False
        yield faults


async def test_costs(tmp_path: Path, system_calls: Faults) -> None:
    store = SQLiteStore(tmp_path / "cnm.db")
    async with Controller(store=store, ready_namespaces=0) as controller:
        kernel = controller._services.kernel
        system_calls.start()
        await kernel.run(lambda sockets: system_calls.filter_thread())
        # drivers are loaded, sockets open, forwarding is on
        first = await controller.create_network("first")
        await first.connect(await controller.create_sandbox("first"), ports=["80"])
        found: dict[str, Cost] = {}

        async def join(*ports: str) -> None:
            box = await controller.create_sandbox("box")
            await controller.network("net").connect(box, ports=ports)

        async def publish() -> None:
            await controller.network("net").endpoint("box").publish("8080:80/tcp")

        async def leave() -> None:
            await controller.network("net").endpoint("box").leave()

        async def delete() -> None:
            await controller.network("net").delete(force=True)

        operations: dict[str, Callable[[], Awaitable[object]]] = {
            "create network": lambda: controller.create_network("net", ipv6=True),
            "create sandbox, connect and publish": lambda: join("8081:80"),
            "delete sandbox with port": lambda: controller.sandbox("box").delete(),
            "create sandbox and connect": join,
            "publish": publish,
            "leave": leave,
            "delete sandbox": lambda: controller.sandbox("first").delete(),
            "delete network and endpoint": lambda: controller.network("net").delete(
                force=True
            ),
        }
        for name, operation in operations.items():
            found[name] = await cost(operation, system_calls)
        await controller.sandbox("box").delete()
        await first.delete(force=True)
        await controller._services.kernel.run(remove_table, controller._services)
    assert found == EXPECTED


#: System calls are those of the kernel's threads (but for receiving: how many messages
#: tell of routes depends on who comes first; and for writing).
EXPECTED = {
    "create network": Cost(3, 7, 23, 2, 0, 31),
    "create sandbox, connect and publish": Cost(2, 6, 19, 0, 4, 41),
    "delete sandbox with port": Cost(1, 2, 8, 2, 0, 13),
    "create sandbox and connect": Cost(2, 4, 13, 0, 4, 36),
    "publish": Cost(1, 1, 5, 2, 0, 4),
    "leave": Cost(2, 3, 10, 2, 0, 4),
    "delete sandbox": Cost(1, 2, 6, 2, 0, 14),
    "delete network and endpoint": Cost(1, 2, 12, 4, 0, 2),
}
