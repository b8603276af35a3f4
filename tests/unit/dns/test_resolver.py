"""How a resolver answers, without sockets."""

# ruff: noqa: ASYNC110 - tests wait

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import anyio
import anyio.lowlevel
import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from cnm.dns import forwarder as forwarder_module, resolver as resolver_module
from cnm.dns.cache import Cache
from cnm.dns.forwarder import Forwarder
from cnm.dns.messages import Question, answer
from cnm.dns.parsing import Message
from cnm.dns.policy import Answered
from cnm.dns.records import Found, NameServer
from cnm.dns.resolver import Kept, Resolver

from .world import (
    INSIDE,
    SERVER,
    Elsewhere,
    Policy,
    View,
    addresses,
    knows_all,
    resolve,
    resolver,
    wire,
)

JUNK = dns.edns.OptionType.make(65001)
THREE = ["10.9.0.2", "10.9.0.3", "10.9.0.4"]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    made = Elsewhere()
    monkeypatch.setattr(forwarder_module, "ask", made.ask)
    return made


class Clock:
    """The time, for the caches that are made."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(forwarder_module, "Cache", lambda size: Cache(size, made))
    return made


# --- names of our own -----------------------------------------------------------------


async def test_own_names_are_answered_at_once() -> None:
    box = resolver(View())
    answered = await resolve(box, wire("wEb."))
    assert addresses(answered) == ["10.9.0.2"]
    assert answered.question[0].name.labels[0] == b"wEb"
    assert answered.flags & dns.flags.AA
    assert addresses(await resolve(box, wire("web.", "AAAA"))) == []
    assert addresses(await resolve(box, wire("web.", "ANY"))) == []
    assert addresses(await resolve(box, wire("web."), tcp=True)) == ["10.9.0.2"]
    counted = box.counters.snapshot()
    assert (counted.queries, counted.own, counted.noerror, counted.tcp) == (4, 4, 4, 1)


def test_answers_are_kept_for_the_same_query() -> None:
    box = resolver(View({"web": ["10.9.0.2"], "shared": THREE}))
    first, second = wire("web."), wire("shared.")
    reply = box.begin(first, tcp=False)
    assert box.answers[first[2:]] == reply[2:] if isinstance(reply, bytes) else False
    box.begin(second, tcp=False)
    kept = box.answers[second[2:]]
    assert isinstance(kept, Kept)
    assert len(set(kept)) == 3
    box.begin(wire("web.", "AAAA"), tcp=True)
    assert len(box.answers) == 2
    box.forget()
    assert box.answers == {}


def test_not_too_much_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "KEPT", 3)
    box = resolver(View())
    for size in (512, 513, 514, 515):
        box.begin(wire(use_edns=0, payload=size), tcp=False)
    assert len(box.answers) == 1
    message = dns.message.make_query("web.", "A")
    message.use_edns(0, options=[dns.edns.GenericOption(JUNK, b"x" * 300)])
    assert isinstance(box.begin(message.to_wire(), tcp=False), bytes)
    assert len(box.answers) == 1


async def test_addresses_are_in_all_orders() -> None:
    for tcp in (False, True):
        firsts: Counter[str] = Counter()
        box = resolver(View({"shared": THREE}))
        for _ in range(200):
            box.forget()
            answered = await resolve(box, wire("shared."), tcp=tcp)
            assert sorted(addresses(answered)) == THREE
            firsts[addresses(answered)[0]] += 1
            # what programs ask at the same time does not make a pattern
            await resolve(box, wire("shared.", "AAAA"), tcp=tcp)
        assert min(firsts.values()) > 20
        assert len(firsts) == 3


@pytest.mark.parametrize("policy", [False, True])
async def test_a_dot_inside_of_a_label_is_none_between_labels(
    elsewhere: Elsewhere, policy: bool
) -> None:
    view = View({"a\\.web": ["10.9.0.9"], "\\000": ["10.9.0.8"]})
    box = resolver(view, SERVER)
    box.policy = Policy() if policy else None
    assert addresses(await resolve(box, wire("a\\.web."))) == ["192.0.2.53"]
    assert elsewhere.asked == ["a\\.web"]
    assert addresses(await resolve(box, wire("\\000."))) == ["10.9.0.8"]


async def test_without_other_servers() -> None:
    box = resolver(View())
    assert addresses(await resolve(box, wire("known.example."))) == ["SERVFAIL"]
    assert box.counters.servfail == 1


async def test_a_fault_of_a_view(caplog: pytest.LogCaptureFixture) -> None:
    box = resolver(View(error=RuntimeError("a bug")), SERVER)
    for _ in range(3):
        assert addresses(await resolve(box, wire())) == ["SERVFAIL"]
    assert caplog.text.count("a bug") == 1
    assert box.counters.servfail == 3


async def test_a_record_that_cannot_be_told(caplog: pytest.LogCaptureFixture) -> None:
    """A name that has become too long, say."""

    class Wrong(View):
        def find(self, name: str, kind: str) -> Found:
            return Found(names=(f"{'x' * 64}.front",))

    box = resolver(Wrong())
    reply = box.begin(wire("2.0.9.10.in-addr.arpa.", "PTR"), tcp=False)
    assert isinstance(reply, bytes)
    assert dns.message.from_wire(reply).rcode() == dns.rcode.SERVFAIL
    assert "LabelTooLong" in caplog.text
    assert box.counters.own == 0


async def test_truncated_answers_are_counted() -> None:
    view = View({"many": [f"10.9.0.{number}" for number in range(100)]})
    box = resolver(view)
    answered = await resolve(box, wire("many."))
    assert answered.flags & dns.flags.TC
    assert 20 < len(addresses(answered)) < 80
    assert box.counters.truncated == 1
    (kept,) = box.answers.values()
    assert isinstance(kept, Kept)
    assert kept.truncated
    assert len(addresses(await resolve(box, wire("many."), tcp=True))) == 100
    assert box.counters.truncated == 1


# --- names of others ------------------------------------------------------------------


async def test_answers_grow_old(elsewhere: Elsewhere, clock: Clock) -> None:
    box = resolver(View(), SERVER)
    assert (await resolve(box, wire("x."))).answer[0].ttl == 60
    clock.now += 20.5
    again = await resolve(box, wire("X."))
    assert again.answer[0].ttl == 40
    assert again.question[0].name.labels[0] == b"X"
    assert elsewhere.asked == ["x"]
    clock.now += 40
    assert (await resolve(box, wire("x."))).answer[0].ttl == 60
    assert elsewhere.asked == ["x", "x"]
    assert (box.counters.cached, box.counters.upstream) == (1, 2)


async def test_what_does_not_exist_is_kept_as_well(
    elsewhere: Elsewhere, clock: Clock
) -> None:
    async def nothing(server: NameServer, question: Question) -> Message:
        made = answer(question, dns.rcode.NXDOMAIN)
        if question.name != "none":
            soa = dns.rrset.from_text("x.", 60, "IN", "SOA", "a. b. 1 2 3 4 30")
            made.authority.append(soa)
        return made

    elsewhere.script = nothing
    box = resolver(View(), SERVER)
    for name in ("x.", "x.", "none.", "none."):
        answered = await resolve(box, wire(name))
        assert answered.rcode() == dns.rcode.NXDOMAIN
    assert elsewhere.asked == ["x", "none", "none"]
    clock.now += 29
    assert (await resolve(box, wire("x."))).authority[0].ttl == 31
    clock.now += 1
    await resolve(box, wire("x."))
    assert elsewhere.asked == ["x", "none", "none", "x"]


async def test_failures_are_not_kept(elsewhere: Elsewhere) -> None:
    async def fails(server: NameServer, question: Question) -> Message:
        return answer(question, dns.rcode.SERVFAIL)

    elsewhere.script = fails
    box = resolver(View(), SERVER)
    for _ in range(2):
        assert addresses(await resolve(box, wire("x."))) == ["SERVFAIL"]
    assert elsewhere.asked == ["x", "x"]
    assert (box.counters.failures, box.counters.servfail) == (2, 2)


async def test_a_sandboxs_own_servers_are_believed_by_nobody_else(
    elsewhere: Elsewhere,
) -> None:
    shared = Forwarder()
    outside = [resolver(View(), SERVER, forwarder=shared) for _ in range(2)]
    inside = [resolver(View(), INSIDE, forwarder=shared) for _ in range(2)]
    for box in (*outside, *inside, *outside, *inside):
        await resolve(box, wire("x."))
    assert elsewhere.asked == ["x"] * 3
    assert [box.counters.cached for box in (*outside, *inside)] == [1, 2, 1, 1]


@pytest.mark.parametrize("server", [SERVER, INSIDE])
async def test_without_a_cache(elsewhere: Elsewhere, server: NameServer) -> None:
    box = resolver(View(), server, forwarder=Forwarder(cache_size=0))
    for _ in range(2):
        assert addresses(await resolve(box, wire("x."))) == ["192.0.2.53"]
    assert elsewhere.asked == ["x", "x"]


async def test_a_large_answer_is_not_kept(elsewhere: Elsewhere) -> None:
    async def large(server: NameServer, question: Question) -> Message:
        made = answer(question)
        texts = [f"10.{it >> 8}.{it & 255}.1" for it in range(1000)]
        made.answer.append(dns.rrset.from_text_list("x.", 60, "IN", "A", texts))
        return made

    elsewhere.script = large
    box = resolver(View(), SERVER)
    for _ in range(2):
        assert len(addresses(await resolve(box, wire("x."), tcp=True))) == 1000
    assert elsewhere.asked == ["x", "x"]
    part = await resolve(box, wire("x.", use_edns=0))
    assert part.flags & dns.flags.TC
    assert 60 < len(addresses(part)) < 80


# --- many at a time -------------------------------------------------------------------


class Gate:
    """Holds answers back until it is opened."""

    def __init__(self) -> None:
        self.open = anyio.Event()

    async def script(self, server: NameServer, question: Question) -> Message:
        await self.open.wait()
        return await knows_all(server, question)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
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
        await anyio.sleep(0.05)
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
        await anyio.sleep(0.02)
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
        await anyio.sleep(0.02)
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


# --- those who have a say, and those who watch ----------------------------------------


async def test_a_policy_hears_of_addresses_first(elsewhere: Elsewhere) -> None:
    async def alias(server: NameServer, question: Question) -> Message:
        made = answer(question)
        for text in ("x. 60 CNAME y.", "y. 30 A 192.0.2.1", "y. 30 A 192.0.2.2"):
            name, ttl, kind, data = text.split()
            rrset = dns.rrset.from_text(name, int(ttl), "IN", kind, data)
            made.answer.append(rrset)
        return made

    elsewhere.script = alias
    policy = Policy()
    box = resolver(View(), SERVER)
    await resolve(box, wire())
    box.policy = policy
    assert box.answers == {}
    for _ in range(2):
        assert addresses(await resolve(box, wire())) == ["10.9.0.2"]
    await resolve(box, wire("x."))
    assert policy.told == [
        ("web", ("10.9.0.2",), 5),
        ("web", ("10.9.0.2",), 5),
        ("x", ("192.0.2.1", "192.0.2.2"), 30),
    ]


async def test_a_policy_refuses(elsewhere: Elsewhere) -> None:
    box = resolver(View({"bad": ["10.9.0.2"]}), SERVER)
    assert addresses(await resolve(box, wire("bad."))) == ["10.9.0.2"]
    box.policy = Policy()
    refused = await resolve(box, wire("BAD.", use_edns=0))
    assert refused.rcode() == dns.rcode.REFUSED
    assert refused.options[0].otype == dns.edns.OptionType.EDE
    assert elsewhere.asked == []
    assert box.counters.refused == 1
    box.policy = None
    assert addresses(await resolve(box, wire("bad."))) == ["10.9.0.2"]


@pytest.mark.parametrize("where", ["allows", "answered", "hangs"])
async def test_a_policy_that_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    monkeypatch.setattr(resolver_module, "POLICY_TIMEOUT", 0.1)

    async def wait() -> None:
        if where == "hangs":
            await anyio.sleep_forever()
        raise RuntimeError("a policy's bug")

    error = RuntimeError("a policy's bug") if where == "allows" else None
    box = resolver(View())
    box.policy = Policy(error=error, wait=wait)
    for _ in range(3):
        assert addresses(await resolve(box, wire())) == ["SERVFAIL"]
    text = "TimeoutError" if where == "hangs" else "a policy's bug"
    assert text in caplog.text
    assert len(caplog.records) == 1
    assert box.counters.servfail == 3


async def test_watching(elsewhere: Elsewhere) -> None:
    told: list[Answered] = []
    box = resolver(View({"web": THREE}), SERVER)
    await resolve(box, wire("web."))
    box.observe = told.append
    for name in ("WEB.", "x.", "x."):
        await resolve(box, wire(name), tcp=name == "x.")
    assert [(it.name, it.kind, it.code, it.source) for it in told] == [
        ("web", "A", "NOERROR", "own"),
        ("x", "A", "NOERROR", "upstream"),
        ("x", "A", "NOERROR", "cache"),
    ]
    assert sorted(map(str, told[0].addresses)) == THREE
    assert all(it.seconds > 0 and it.sandbox_id == "id" for it in told)
    box.observe = None
    await resolve(box, wire("web."))
    assert len(told) == 3


async def test_watching_is_not_in_the_way(caplog: pytest.LogCaptureFixture) -> None:
    def fails(answered: Answered) -> None:
        raise RuntimeError("a watcher's bug")

    box = resolver(View())
    box.observe = fails
    with caplog.at_level(logging.ERROR):
        assert addresses(await resolve(box, wire())) == ["10.9.0.2"]
    assert "a watcher's bug" in caplog.text
    assert (box.counters.noerror, box.counters.servfail) == (1, 0)
