"""Questions and answers in wire format."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings, strategies as st

from cnm.dns.messages import (
    HEADER,
    LARGEST_DATAGRAM,
    OWN_TTL,
    Malformed,
    Question,
    answer,
    lifetime,
    own_answer,
    passed_on,
    query,
    read_answer,
    read_question,
    refusal,
    rejection,
    render,
    turns,
)
from cnm.dns.records import Found, Target


def question(name: str = "Web.Front.", kind: str = "A", **options: Any) -> Question:
    tcp = options.pop("tcp", False)
    message = dns.message.make_query(name, kind, **options)
    return read_question(message.to_wire(), tcp=tcp)


def test_a_question() -> None:
    asked = question()
    assert (asked.name, asked.kind, asked.limit) == ("web.front", "A", 512)
    assert not asked.has_edns
    assert question(tcp=True).limit == 65535
    for payload, limit in ((100, 512), (1000, 1000), (4096, LARGEST_DATAGRAM)):
        assert question(use_edns=0, payload=payload).limit == limit
    assert question(".", "NS").name == "."
    # a dot inside of a label is none between labels
    assert question("a\\.b.c").name == "a\\.b.c"


def test_the_same_question() -> None:
    assert question("WEB", "A").key == question("web", "A").key
    others = [
        question("web", "AAAA"),
        question("web2", "A"),
        question("web", "A", want_dnssec=True),
        question("web", "A", flags=dns.flags.RD | dns.flags.CD),
    ]
    assert len({it.key for it in (question("web", "A"), *others)}) == 5


GOOD = dns.message.make_query("web.", "A", id=7).to_wire()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", dns.rcode.NOERROR),
        (GOOD[: HEADER - 1], dns.rcode.NOERROR),
        (GOOD[:2] + b"\x80" + GOOD[3:], dns.rcode.NOERROR),  # an answer
        (GOOD[:2] + b"\x28" + GOOD[3:], dns.rcode.NOTIMP),  # an update
        (GOOD[:HEADER], dns.rcode.FORMERR),
        (GOOD[:-1], dns.rcode.FORMERR),
        (GOOD + b"x", dns.rcode.FORMERR),
        (GOOD[:4] + b"\0\0" + GOOD[6:HEADER], dns.rcode.FORMERR),
        (GOOD[:4] + b"\0\2" + GOOD[6:] + GOOD[HEADER:], dns.rcode.FORMERR),
        (GOOD[:HEADER] + b"\xc0\x0c\0\1\0\1", dns.rcode.FORMERR),  # a loop
        (GOOD[:-2] + b"\0\3", dns.rcode.REFUSED),  # class CHAOS
        (
            dns.message.make_query("web.", "A", id=7, use_edns=1).to_wire(),
            dns.rcode.BADVERS,
        ),
    ],
)
def test_what_is_no_question(data: bytes, code: dns.rcode.Rcode) -> None:
    with pytest.raises(Malformed) as caught:
        read_question(data, tcp=False)
    assert caught.value.code == code
    rejected = rejection(data, code)
    if code == dns.rcode.NOERROR:
        assert rejected == b""
        return
    parsed = dns.message.from_wire(rejected, question_only=True)
    assert parsed.id == 7
    assert parsed.flags & dns.flags.QR
    if code != dns.rcode.NOTIMP:
        assert dns.message.from_wire(rejected).rcode() == code


def test_own_answers() -> None:
    four = [ip_address(f"10.9.0.{number}") for number in range(3)]
    found = Found(addresses=tuple(four))
    asked = question("wEb.FrOnT.")
    assert turns(found) == 3
    for turn in range(3):
        wire = render(own_answer(asked, found, turn), asked.limit)
        made = dns.message.from_wire(wire)
        assert made.id == asked.message.id
        assert made.question[0].name.labels[:2] == (b"wEb", b"FrOnT")
        assert made.flags & (dns.flags.AA | dns.flags.RA | dns.flags.QR)
        assert made.answer[0].ttl == OWN_TTL
        addresses = [rdata.address for rdata in made.answer[0]]
        assert addresses == [str(four[(turn + it) % 3]) for it in range(3)]
        assert made.edns == -1
    empty = dns.message.from_wire(render(own_answer(asked, Found()), 512))
    assert (empty.rcode(), empty.answer) == (dns.rcode.NOERROR, [])
    assert turns(Found(addresses=tuple(four * 9))) == 8


def test_services_and_texts() -> None:
    target = Target(
        host="web.front",
        port=80,
        priority=1,
        weight=2,
        addresses=(ip_address("10.9.0.2"), ip_address("fd00::2")),
    )
    made = own_answer(question("_http._tcp.web", "SRV"), Found(services=(target,)))
    made = dns.message.from_wire(render(made, 512))
    assert str(made.answer[0][0]) == "1 2 80 web.front."
    assert [str(rrset[0]) for rrset in made.additional] == ["10.9.0.2", "fd00::2"]
    text = 'a "quoted" \\ \x00 ünder'
    made = own_answer(question("x", "TXT"), Found(texts=(text,)))
    made = dns.message.from_wire(render(made, 512))
    assert made.answer[0][0].strings == (text.encode(),)
    made = own_answer(question("2.0.9.10.in-addr.arpa", "PTR"), Found(names=("a.b",)))
    assert str(made.answer[0][0]) == "a.b."


@pytest.mark.parametrize("count", [1, 20, 28, 29, 30, 100, 1000, 4000])
@pytest.mark.parametrize("limit", [512, 1232, 65535])
def test_an_answer_has_as_many_records_as_fit(count: int, limit: int) -> None:
    texts = [f"10.{it >> 16}.{it >> 8 & 255}.{it & 255}" for it in range(count)]
    made = answer(question(tcp=True))
    section = dns.rrset.from_text_list("web.front.", 60, "IN", "A", texts)
    made.answer.append(section)
    made.authority.append(dns.rrset.from_text("front.", 60, "IN", "NS", "ns.front."))
    wire = render(made, limit)
    assert len(wire) <= limit
    parsed = dns.message.from_wire(wire)
    fits = (limit - HEADER - 15) // 16
    if count * 16 + HEADER + 15 + 30 <= limit:
        assert not parsed.flags & dns.flags.TC
        assert len(parsed.answer[0]) == count
        assert len(parsed.authority) == 1
    elif count > fits:
        assert parsed.flags & dns.flags.TC
        assert len(parsed.answer[0]) == fits
        assert parsed.authority == []


def test_a_record_that_is_too_long_for_any_answer() -> None:
    made = answer(question())
    made.answer.append(
        dns.rrset.from_text("web.front.", 60, "IN", "TXT", " ".join(["x" * 255] * 3))
    )
    parsed = dns.message.from_wire(render(made, 512))
    assert parsed.flags & dns.flags.TC
    assert parsed.answer == []


def test_what_is_asked_elsewhere_has_nothing_of_the_client_but_the_question() -> None:
    client = dns.message.make_query("wEb.", "A", use_edns=0, payload=4096)
    client.use_edns(
        0,
        dns.flags.DO,
        4096,
        options=[dns.edns.GenericOption(dns.edns.OptionType.PADDING, b"x")],
    )
    client.additional.append(dns.rrset.from_text("junk.", 1, "IN", "A", "10.0.0.1"))
    asked = read_question(client.to_wire(), tcp=False)
    sent = dns.message.from_wire(query(asked, 99, edns=True))
    assert sent.id == 99
    assert sent.question[0].name.labels == (b"wEb", b"")
    assert sent.additional == []
    assert (sent.payload, sent.options) == (LARGEST_DATAGRAM, ())
    assert sent.ednsflags & dns.flags.DO
    assert dns.message.from_wire(query(asked, 99, edns=False)).edns == -1


def reply(asked: Question, identity: int = 99, **changes: Any) -> bytes:
    made = dns.message.make_response(asked.message)
    made.id = identity
    made.answer.append(dns.rrset.from_text("web.front.", 60, "IN", "A", "10.0.0.1"))
    for name, value in changes.items():
        setattr(made, name, value)
    return made.to_wire()


def test_only_answers_to_the_question_are_heard() -> None:
    asked = question()
    assert read_answer(reply(asked), asked, 99) is not None
    other = question("web.back.")
    wrong_kind = question(kind="AAAA")
    for wrong in (
        b"",
        b"x" * 11,
        reply(asked, 98),
        reply(asked, flags=0),  # a question
        reply(asked)[:-1],
        reply(asked) + b"x",
        reply(other),
        reply(wrong_kind),
        reply(asked, question=[]),
        reply(asked, question=[asked.section, asked.section]),
    ):
        assert read_answer(wrong, asked, 99) is None
    # a server that does not know EDNS may not repeat the question
    refused = bytes((0, 99, 0x80, dns.rcode.FORMERR)) + bytes(8)
    assert read_answer(refused, asked, 99) is not None


def test_what_is_passed_on() -> None:
    asked = question("wEb.FRONT.")
    theirs = read_answer(reply(asked), asked, 99)
    assert theirs is not None
    theirs.flags |= dns.flags.AA
    theirs.authority.append(dns.rrset.from_text("front.", 30, "IN", "NS", "ns.front."))
    made = dns.message.from_wire(render(passed_on(asked, theirs, 40), 512))
    assert made.id == asked.message.id
    assert made.question[0].name.labels[0] == b"wEb"
    assert made.flags & dns.flags.RA
    assert not made.flags & dns.flags.AA
    assert [made.answer[0].ttl, made.authority[0].ttl] == [20, 0]


def test_how_long_an_answer_is_valid() -> None:
    asked = question()
    made = answer(asked)
    assert lifetime(made) == 0
    soa = dns.rrset.from_text("front.", 60, "IN", "SOA", "a. b. 1 2 3 4 30")
    made.authority.append(soa)
    assert lifetime(made) == 30
    made.answer.append(dns.rrset.from_text("web.", 7, "IN", "CNAME", "x."))
    made.answer.append(dns.rrset.from_text("x.", 9, "IN", "A", "10.0.0.1"))
    assert lifetime(made) == 7


def test_a_refusal_says_why_to_those_who_understand() -> None:
    assert dns.message.from_wire(refusal(question()).to_wire()).options == ()
    said = dns.message.from_wire(refusal(question(use_edns=0)).to_wire())
    assert said.rcode() == dns.rcode.REFUSED
    assert said.options[0].to_text() == "EDE 15 (Blocked)"


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=8),
    st.integers(0, 80),
    st.booleans(),
)
@settings(max_examples=500, deadline=None)
def test_mutated_questions(
    changes: list[tuple[int, int]], length: int, tcp: bool
) -> None:
    data = bytearray(dns.message.make_query("web.front.", "A", use_edns=0).to_wire())
    for position, value in changes:
        data[position % len(data)] = value
    mutated = bytes(data[:length])
    try:
        asked = read_question(mutated, tcp=tcp)
    except Malformed as exc:
        rejected = rejection(mutated, exc.code)
        assert len(rejected) <= max(23, len(mutated))
        assert rejected[:2] in (b"", mutated[:2])
    else:
        made = own_answer(asked, Found(addresses=(ip_address("10.0.0.1"),)))
        wire = render(made, asked.limit)
        assert len(wire) <= asked.limit
        assert dns.message.from_wire(wire).id == asked.message.id
        assert query(asked, 1, edns=asked.has_edns)


@given(
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=8),
    st.integers(0, 90),
)
@settings(max_examples=500, deadline=None)
def test_mutated_answers(changes: list[tuple[int, int]], length: int) -> None:
    asked = question()
    data = bytearray(reply(asked))
    for position, value in changes:
        data[position % len(data)] = value
    theirs = read_answer(bytes(data[:length]), asked, 99)
    if theirs is not None:
        wire = render(passed_on(asked, theirs, 1), 512)
        assert len(wire) <= 512
        assert dns.message.from_wire(wire).id == asked.message.id
        assert lifetime(theirs) >= 0
