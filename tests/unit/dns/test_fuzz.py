"""Messages of people who mean no good."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import dns.edns
import dns.flags
import dns.message
import dns.rrset
import pytest
from hypothesis import given, settings, strategies as st

from cnm.dns import forwarder as forwarder_module
from cnm.dns.messages import (
    HEADER,
    Question,
    addresses_of,
    answer,
    is_negative,
    lifetime,
    passed_on,
    read_answer,
    render,
)

from .world import SERVER, Elsewhere, View, question, resolver

Mutations: TypeAlias = list[tuple[int, int, bytes]]

# where, how many bytes go, and what comes instead
MUTATIONS: st.SearchStrategy[Mutations] = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.integers(0, 4),
        st.binary(max_size=4)
        | st.sampled_from([b"\xc0\x0c", b"\xc0\x00", b"\xff\xff", b"\x3f", b"\0"]),
    ),
    max_size=6,
)
VIEW = View({"web": [f"10.9.0.{it}" for it in range(50)], "": ["10.9.0.2"]})


def mutated(data: bytes, mutations: Mutations) -> bytes:
    for at, size, instead in mutations:
        at %= len(data) + 1
        data = data[:at] + instead + data[at + size :]
    return data


def queries() -> list[bytes]:
    option = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
    made = [
        dns.message.make_query("web.", "A"),
        dns.message.make_query("web.", "AAAA", use_edns=0, payload=4096),
        dns.message.make_query("x\\.y.web.", "A", want_dnssec=True, options=[option]),
        dns.message.make_query("2.0.9.10.in-addr.arpa.", "PTR", use_edns=0, pad=128),
        dns.message.make_query("other.example.", "TXT"),
    ]
    return [it.to_wire() for it in made]


async def replied(data: bytes, *, tcp: bool) -> bytes:
    box = resolver(VIEW, SERVER)
    kept = box.begin(data, tcp=tcp)
    reply = kept if isinstance(kept, bytes) else await box.finish(kept)
    if wires := box.answers.get(data[2:]):
        again = [wires] if isinstance(wires, bytes) else list(wires)
        assert all(len(it) <= len(reply) for it in again)
    return reply


@given(st.sampled_from(queries()), MUTATIONS, st.booleans())
@settings(max_examples=1000, deadline=None)
def test_queries(data: bytes, mutations: Mutations, tcp: bool) -> None:
    data = mutated(data, mutations)
    elsewhere = Elsewhere()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forwarder_module, "ask", elsewhere.ask)
        reply = asyncio.run(replied(data, tcp=tcp))
    if len(data) < HEADER or data[2] & 0x80:
        assert reply == b""
        return
    assert len(reply) <= (65535 if tcp else 1232)
    opcode = data[2] & 0x78
    message = dns.message.from_wire(reply, question_only=bool(opcode))
    assert message.id == int.from_bytes(data[:2], "big")
    assert message.flags & dns.flags.QR
    assert elsewhere.asked == [] or not opcode


def answers() -> list[tuple[Question, bytes]]:
    found = []
    for edns in (-1, 0):
        asked = question("web.front.", use_edns=edns)
        made = answer(asked)
        made.id = 99
        for text in (
            "web.front. CNAME x.front.",
            "x.front. A 10.0.0.1",
            "x.front. A 10.0.0.2",
            "x.front. TXT some",
        ):
            name, kind, data = text.split()
            made.answer.append(dns.rrset.from_text(name, 60, "IN", kind, data))
        soa = dns.rrset.from_text("front.", 60, "IN", "SOA", "a. b. 1 2 3 4 30")
        made.authority.append(soa)
        made.additional.append(dns.rrset.from_text("n.", 9, "IN", "AAAA", "fd00::1"))
        found.append((asked, made.to_wire()))
    return found


@given(st.sampled_from(answers()), MUTATIONS, st.integers(0, 100))
@settings(max_examples=1000, deadline=None)
def test_answers(case: tuple[Question, bytes], mutations: Mutations, age: int) -> None:
    asked, data = case
    theirs = read_answer(mutated(data, mutations), asked, 99)
    if theirs is None or not theirs.question:
        return
    assert theirs.question[0].name == asked.section.name
    assert lifetime(theirs) >= 0
    assert is_negative(theirs) in (True, False)
    assert len(addresses_of(theirs)) <= len(data)
    for limit in (asked.limit, 65535):
        wire = render(passed_on(asked, theirs, age), limit)
        assert len(wire) <= limit
        assert dns.message.from_wire(wire).id == asked.message.id


@given(st.binary(max_size=300))
@settings(max_examples=1000, deadline=None)
def test_noise(data: bytes) -> None:
    asked = question()
    assert read_answer(b"\0\x63\x81\x80" + data, asked, 99) is None or data
    reply = resolver(VIEW).begin(data, tcp=False)
    if isinstance(reply, bytes) and reply:
        assert reply[:2] == data[:2]
