"""How a resolver answers, without sockets."""

from __future__ import annotations

from collections import Counter

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
from cnm.dns.records import Found, NameServer, Target
from cnm.dns.resolver import Kept

from .world import (
    INSIDE,
    SERVER,
    THREE,
    Elsewhere,
    Policy,
    View,
    addresses,
    resolve,
    resolver,
    wire,
)

JUNK = dns.edns.OptionType.make(65001)


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


@pytest.mark.parametrize(
    "name", [f"{'x' * 64}.front", "a..b.front", ".a.front", "x." * 127 + "front"]
)
async def test_a_name_that_dns_cannot_have(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The address is known, and has no name that could be told."""
    target = Target(host=name, port=80, priority=1, weight=2, addresses=())

    class Wrong(View):
        def find(self, name: str, kind: str) -> Found:
            return Found(names=(target.host,), services=(target,))

    box = resolver(Wrong())
    reply = box.begin(wire("2.0.9.10.in-addr.arpa.", "PTR"), tcp=False)
    assert isinstance(reply, bytes)
    made = dns.message.from_wire(reply)
    assert (made.rcode(), made.answer, made.additional) == (dns.rcode.NOERROR, [], [])
    assert caplog.text == ""
    assert box.counters.own == 1


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
