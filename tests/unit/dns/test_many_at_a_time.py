"""How a resolver answers many questions at a time, without sockets."""

# ruff: noqa: ASYNC110 - tests wait

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from cnm.dns import forwarder as forwarder_module, resolver as resolver_module
from cnm.dns.forwarder import Forwarder
from cnm.dns.messages import Question
from cnm.dns.parsing import Message
from cnm.dns.records import NameServer
from cnm.dns.resolver import Resolver

from .world import (
    SERVER,
    Elsewhere,
    View,
    addresses,
    knows_all,
    resolve,
    resolver,
    wire,
)


class Gate:
    """Holds answers back until it is opened."""

    def __init__(self) -> None:
        self.open = anyio.Event()

    async def script(self, server: NameServer, question: Question) -> Message:
        await self.open.wait()
        return await knows_all(server, question)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not condition():
            await anyio.sleep(0.01)


async def test_the_same_question_is_asked_once(elsewhere: Elsewhere) -> None:
    gate = Gate()
    elsewhere.script = gate.script
    shared = Forwarder(cache_size=0)
    boxes = [resolver(View(), SERVER, forwarder=shared) for _ in range(3)]
    found: list[list[str]] = []

    async def one(box: Resolver, name: str) -> None:
        found.append(addresses(await resolve(box, wire(name))))

    async with anyio.create_task_group() as tasks:
        for box in boxes * 10:
            tasks.start_soon(one, box, "x.")
            tasks.start_soon(one, box, "X.")
        await until(lambda: len(elsewhere.asked) > 0)
        await anyio.wait_all_tasks_blocked()
        gate.open.set()
    assert found == [["192.0.2.53"]] * 60
    assert elsewhere.asked == ["x"]


async def test_one_who_asks_for_all_goes_away(elsewhere: Elsewhere) -> None:
    gate = Gate()
    elsewhere.script = gate.script
    box = resolver(View(), SERVER)
    found: list[list[str]] = []
    first = anyio.CancelScope()

    async def one(scope: anyio.CancelScope) -> None:
        with scope:
            found.append(addresses(await resolve(box, wire("x."))))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one, first)
        await until(lambda: len(elsewhere.asked) == 1)
        for _ in range(5):
            tasks.start_soon(one, anyio.CancelScope())
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        await until(lambda: len(elsewhere.asked) == 2)
        gate.open.set()
    assert found == [["192.0.2.53"]] * 5
    assert elsewhere.asked == ["x"] * 2


async def test_a_fault_in_asking_is_for_all_who_wait(
    elsewhere: Elsewhere, caplog: pytest.LogCaptureFixture
) -> None:
    gate = anyio.Event()

    async def fault(server: NameServer, question: Question) -> Message:
        await gate.wait()
        raise RuntimeError("a bug")

    elsewhere.script = fault
    box = resolver(View(), SERVER)
    found: list[list[str]] = []

    async def one() -> None:
        found.append(addresses(await resolve(box, wire("x."))))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(one)
        await until(lambda: len(elsewhere.asked) == 1)
        await anyio.wait_all_tasks_blocked()
        gate.set()
    assert found == [["SERVFAIL"]] * 5
    assert elsewhere.asked == ["x"]
    assert "a bug" in caplog.text


async def test_a_sandbox_may_wait_for_so_many_answers(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_module, "LIMIT", 3)
    gate = Gate()
    elsewhere.script = gate.script
    box = resolver(View(), SERVER)
    # they count before anything is done for them
    begun = [box.begin(wire(f"n{it}."), tcp=False) for it in range(5)]
    assert [isinstance(it, bytes) for it in begun] == [False] * 3 + [True] * 2
    assert (box.counters.limited, box.counters.refused) == (2, 2)
    assert addresses(await resolve(box, wire())) == ["10.9.0.2"]
    gate.open.set()
    for it in begun[:3]:
        assert isinstance(it, Question)
        await box.finish(it)
    assert addresses(await resolve(box, wire("n9."))) == ["192.0.2.53"]


async def test_one_sandbox_cannot_have_all_turns(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder_module, "QUEUE", 0.3)
    gate = Gate()

    async def slow(server: NameServer, question: Question) -> Message:
        if question.name.startswith("slow"):
            await gate.open.wait()
        return await knows_all(server, question)

    elsewhere.script = slow
    shared = Forwarder(limit=8)
    greedy, other = (resolver(View(), SERVER, forwarder=shared) for _ in range(2))
    found: list[list[str]] = []

    async def one(number: int) -> None:
        found.append(addresses(await resolve(greedy, wire(f"slow{number}."))))

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(one, number)
        await until(lambda: len(elsewhere.asked) > 1)
        assert addresses(await resolve(other, wire("x."))) == ["192.0.2.53"]
        await until(lambda: len(found) == 18)
        gate.open.set()
    assert found == [["REFUSED"]] * 18 + [["192.0.2.53"]] * 2
    assert greedy.counters.limited == 18
    assert elsewhere.most_at_a_time == 3
    assert other.counters.limited == 0
