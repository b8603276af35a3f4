"""Messages that cost much, and answers in several forms."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from ipaddress import ip_address

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest

from cnm.dns.messages import (
    HEADER,
    LARGEST_QUERY,
    Malformed,
    Question,
    answer,
    is_negative,
    is_truncated,
    lifetime,
    own_answer,
    passed_on,
    query,
    read_answer,
    read_question,
    render,
    rotations,
)
from cnm.dns.parsing import parse
from cnm.dns.records import Found, Target

from .world import chained, question

JUNK = dns.edns.OptionType.make(65001)
SOA = "a. b. 1 2 3 4 30"


def test_a_query_is_not_parsed_that_has_many_records() -> None:
    for qr in (0, 0x80):
        data = chained(60_000, qr=qr)
        started = time.perf_counter()
        if qr:
            assert parse(data) is None
        else:
            with pytest.raises(Malformed) as caught:
                read_question(data, tcp=True)
            assert caught.value.code == dns.rcode.FORMERR
        assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("records", [0, 1, 2, 3])
def test_how_many_records_a_query_may_have(records: int) -> None:
    data = bytearray(dns.message.make_query("web.", "A").to_wire())
    data[11] = records
    data += (b"\0" + struct.pack(">HHIH", 1, 1, 0, 4) + b"abcd") * records
    if records > 2:
        with pytest.raises(Malformed):
            read_question(bytes(data), tcp=False)
    else:
        assert read_question(bytes(data), tcp=False).name == "web"


def test_how_long_a_query_may_be() -> None:
    def padded(size: int) -> bytes:
        message = dns.message.make_query("web.", "A", use_edns=0)
        spare = size - len(message.to_wire()) - 4
        junk = dns.edns.GenericOption(JUNK, b"x" * spare)
        message.use_edns(0, options=[junk])
        return message.to_wire(max_size=65535)

    assert read_question(padded(LARGEST_QUERY), tcp=True).name == "web"
    with pytest.raises(Malformed):
        read_question(padded(LARGEST_QUERY + 1), tcp=True)


def test_pointers_that_are_usual() -> None:
    """A message whose names all point to others, and each a bit further."""
    message = dns.message.make_query("web.", "A", id=7)
    message.flags |= dns.flags.QR
    name = "web."
    for number in range(15):
        name = f"n{number}.{name}"
        message.answer.append(dns.rrset.from_text(name, 1, "IN", "A", "10.0.0.1"))
    again = parse(message.to_wire())
    assert again is not None
    assert len(again.answer) == 15


@pytest.mark.parametrize("kind", ["AXFR", "IXFR", "OPT", "TKEY"])
def test_types_that_are_none(kind: str) -> None:
    data = dns.message.make_query("web.", "A").to_wire()
    number = dns.rdatatype.from_text(kind)
    with pytest.raises(Malformed) as caught:
        read_question(data[:-4] + struct.pack(">HH", number, 1), tcp=True)
    assert caught.value.code == dns.rcode.NOTIMP


@pytest.mark.parametrize("kind", ["ANY", "TYPE65280", "HTTPS", "NULL"])
def test_types_that_are_rare(kind: str) -> None:
    assert question(kind=kind).kind == kind


def addresses_in(wire: bytes) -> list[str]:
    message = dns.message.from_wire(wire)
    return [rdata.to_text() for rrset in message.answer for rdata in rrset]


@pytest.mark.parametrize("edns", [-1, 0])
@pytest.mark.parametrize(
    "addresses",
    [
        ["10.0.0.1"],
        ["10.0.0.1", "10.0.0.2", "10.0.0.3"],
        ["fd00::1", "fd00::2"],
        [f"10.0.0.{number}" for number in range(100)],
    ],
)
def test_an_answer_in_several_orders(addresses: Sequence[str], edns: int) -> None:
    kind = "AAAA" if ":" in addresses[0] else "A"
    asked = question("wEb.Front", kind, use_edns=edns)
    found = Found(addresses=tuple(ip_address(it) for it in addresses))
    wire = render(own_answer(asked, found), asked.limit)
    wires = list(rotations(asked, found, wire))
    assert wires[0] == wire
    assert len(wires) == min(len(addresses), 8)
    whole = addresses_in(wire)
    assert whole == list(addresses[: len(whole)])
    for turn, other in enumerate(wires):
        assert addresses_in(other) == whole[turn:] + whole[:turn]
        message = dns.message.from_wire(other)
        assert message.edns == edns
        assert message.question[0].name.labels[0] == b"wEb"


@pytest.mark.parametrize("found", [Found(), Found(texts=("x",))])
def test_an_answer_without_addresses_has_one_order(found: Found) -> None:
    asked = question(kind="TXT")
    wire = render(own_answer(asked, found), asked.limit)
    assert list(rotations(asked, found, wire)) == [wire]


def test_further_records_are_left_out_first() -> None:
    """A client does not ask again by TCP for them."""
    addresses = tuple(ip_address(f"10.0.0.{number}") for number in range(60))
    target = Target(host="web.front", port=80, addresses=addresses)
    asked = question("_http._tcp.web", "SRV")
    wire = render(own_answer(asked, Found(services=(target,))), asked.limit)
    message = dns.message.from_wire(wire)
    assert not is_truncated(wire)
    assert len(message.answer) == 1
    assert message.additional == []


def test_a_client_that_pads_its_query_gets_no_more_for_it() -> None:
    message = dns.message.make_query("web.", "A", use_edns=0, payload=512, pad=468)
    asked = read_question(message.to_wire(), tcp=False)
    found = Found(addresses=tuple(ip_address(f"10.0.0.{it}") for it in range(28)))
    assert len(render(own_answer(asked, found), asked.limit)) <= 512


def test_answers_say_whether_dnssec_was_wanted() -> None:
    assert answer(question(want_dnssec=True)).ednsflags & dns.flags.DO
    assert not answer(question(use_edns=0)).ednsflags & dns.flags.DO
    assert answer(question()).edns == -1


def test_the_flags_that_are_passed_on() -> None:
    for flags, sent in (
        (0, dns.flags.RD),
        (dns.flags.RD | dns.flags.AD, dns.flags.RD | dns.flags.AD),
        (dns.flags.CD, dns.flags.RD | dns.flags.CD),
        (dns.flags.TC | dns.flags.AA | dns.flags.RA, dns.flags.RD),
    ):
        asked = question(flags=flags)
        assert dns.message.from_wire(query(asked, 1, edns=False)).flags == sent
    assert question(flags=dns.flags.AD).key != question(flags=0).key


@pytest.mark.parametrize("code", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
def test_a_server_that_fails_need_not_repeat_the_question(code: int) -> None:
    asked = question()
    assert read_answer(bytes((0, 9, 0x80, code)) + bytes(8), asked, 9) is not None
    good = bytes((0, 9, 0x80, dns.rcode.NXDOMAIN)) + bytes(8)
    assert read_answer(good, asked, 9) is None


def test_an_answer_to_something_else_than_a_query() -> None:
    asked = question()
    made = answer(asked)
    made.id = 9
    wire = made.to_wire()
    assert read_answer(wire, asked, 9) is not None
    for opcode in (1, 4, 5):
        other = wire[:2] + bytes((wire[2] | opcode << 3,)) + wire[3:]
        assert read_answer(other, asked, 9) is None


def reply(asked: Question, *records: str, code: int = 0) -> dns.message.Message:
    """Return an answer; an SOA record goes to where it belongs."""
    made = answer(asked, dns.rcode.Rcode(code))
    for record in records:
        name, ttl, kind, text = record.split(" ", 3)
        rrset = dns.rrset.from_text(name, int(ttl), "IN", kind, text)
        (made.authority if kind == "SOA" else made.answer).append(rrset)
    return made


@pytest.mark.parametrize(
    ("records", "code", "negative", "seconds"),
    [
        ((), 0, True, 0),
        ((f"front. 60 SOA {SOA}",), 3, True, 30),
        ((f"front. 20 SOA {SOA}",), 0, True, 20),
        (("web.front. 90 A 10.0.0.1",), 0, False, 90),
        (("web.front. 90 A 10.0.0.1", f"front. 60 SOA {SOA}"), 0, False, 90),
        (("web.front. 90 CNAME x.", "x. 40 A 10.0.0.1"), 0, False, 40),
        # an alias of what does not exist: that is not known for longer than usual
        (("web.front. 9000 CNAME x.", f"front. 60 SOA {SOA}"), 3, True, 30),
        (("web.front. 9000 CNAME x.", f"front. 60 SOA {SOA}"), 0, True, 30),
        (("web.front. 20 CNAME x.", f"front. 60 SOA {SOA}"), 0, True, 20),
        (("web.front. 9000 CNAME x.",), 3, True, 0),
    ],
)
def test_how_long_answers_are_kept(
    records: Sequence[str], code: int, negative: bool, seconds: int
) -> None:
    made = reply(question("web.front"), *records, code=code)
    assert is_negative(made) == negative
    assert lifetime(made) == seconds


def test_what_any_type_gives_is_something() -> None:
    made = reply(question("web.front", "ANY"), "web.front. 90 MX 1 x.")
    assert not is_negative(made)
    alias = reply(question("web.front", "CNAME"), "web.front. 90 CNAME x.")
    assert not is_negative(alias)


def test_an_answer_is_shared_by_those_who_wait_for_it() -> None:
    """Nothing of one client's answer changes what the next one gets."""
    asked = question("web.front")
    theirs = reply(asked, *(f"web.front. 90 A 10.0.0.{it}" for it in range(100)))
    for _ in range(2):
        wire = render(passed_on(asked, theirs, 0), asked.limit)
        assert is_truncated(wire)
        assert len(wire) > asked.limit - 16
    whole = render(passed_on(asked, theirs, 0), 65535)
    assert not is_truncated(whole)
    assert int.from_bytes(whole[6:8], "big") == 100


def test_the_longest_name() -> None:
    name = dns.name.Name([b"x" * 63] * 3 + [b"y" * 61, b""])
    asked = question(name, use_edns=0)
    assert len(asked.section.name.to_wire() or b"") == 255
    addresses = tuple(ip_address(f"10.0.0.{it}") for it in range(8))
    wire = render(own_answer(asked, Found(addresses=addresses)), asked.limit)
    assert len(addresses_in(wire)) == 8
    assert wire[HEADER] == 63
