"""Names of others: whom a resolver asks, and whom it believes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence

import anyio
import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from tests.integration.lab import until

from .world import (
    Elsewhere,
    Message,
    Script,
    World,
    framed,
    known,
    lateness,
    many_records,
    receive,
    says,
    silent,
    texts,
)

FIRST, SECOND, THIRD, FOURTH = (f"127.0.0.{number}" for number in (53, 54, 55, 56))
GOOD = ["192.0.2.1"]
EVIL = "6.6.6.6"


@pytest.fixture
def first(world: World) -> Iterator[Elsewhere]:
    with Elsewhere(world.there, FIRST, says(*GOOD)) as made:
        world.asks(FIRST)
        yield made


@pytest.fixture
def second(world: World) -> Iterator[Elsewhere]:
    with Elsewhere(world.there, SECOND, says(*GOOD)) as made:
        yield made


def without_question(question: Message, tcp: bool) -> Sequence[bytes]:
    """Say only that something is wrong, as some servers do."""
    return [struct.pack(">HHHHHH", question.id, 0x8005, 0, 0, 0, 0)]


# --- one after the other --------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        says(code=dns.rcode.SERVFAIL),
        says(code=dns.rcode.REFUSED),
        says(code=dns.rcode.NOTIMP),
        says(code=dns.rcode.FORMERR),
        without_question,
        None,
    ],
)
async def test_the_next_server_is_asked_at_once(
    world: World, first: Elsewhere, second: Elsewhere, script: Script | None
) -> None:
    if script is None:
        first.close()  # the kernel says that nobody is there
    else:
        first.script = script
    world.asks(FIRST, SECOND)
    before = anyio.current_time()
    assert await world.resolve("x.example.") == GOOD
    assert anyio.current_time() - before < 0.9
    assert len(second.asked) == 1
    assert world.box.counters.failures == 1


async def test_all_fail(world: World, first: Elsewhere, second: Elsewhere) -> None:
    first.script = second.script = says(code=dns.rcode.SERVFAIL)
    world.asks(FIRST, SECOND, THIRD)
    before = anyio.current_time()
    assert await world.resolve("x.example.") == ["SERVFAIL"]
    assert anyio.current_time() - before < 0.9
    assert world.box.counters.failures == 3


@pytest.mark.parametrize("code", [dns.rcode.NXDOMAIN, dns.rcode.NOERROR])
async def test_that_there_is_nothing_is_an_answer(
    world: World, first: Elsewhere, second: Elsewhere, code: dns.rcode.Rcode
) -> None:
    def nothing(question: Message, tcp: bool) -> Sequence[bytes]:
        answer = known(question, code=code)
        soa = dns.rrset.from_text("example.", 60, "IN", "SOA", "a. b. 1 2 3 4 30")
        answer.authority.append(soa)
        return [answer.to_wire()]

    first.script = nothing
    world.asks(FIRST, SECOND)
    answer = await world.ask("x.example.")
    assert answer.rcode() == code
    assert answer.authority[0].rdtype == dns.rdatatype.SOA
    assert answer.flags & dns.flags.RA
    assert second.asked == []


async def test_at_most_three_servers_are_asked(world: World) -> None:
    world.asks(FIRST, SECOND, THIRD, FOURTH)
    with Elsewhere(world.there, FOURTH, says(*GOOD)) as fourth:
        assert await world.resolve("x.example.") == ["SERVFAIL"]
        assert fourth.asked == []
        world.asks(FOURTH)
        assert await world.resolve("x.example.") == GOOD


async def test_a_slow_server_is_still_heard(
    world: World, first: Elsewhere, second: Elsewhere
) -> None:
    first.script = second.script = silent
    world.asks(FIRST, SECOND)
    found = []

    async def ask() -> None:
        found.append(await world.resolve("x.example."))

    before = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await until(lambda: bool(second.asked))
        assert 0.8 < anyio.current_time() - before < 1.8
        (asked,) = first.asked
        first.udp.sendto(known(asked.message, *GOOD).to_wire(), asked.client)
    assert found == [GOOD]
    assert anyio.current_time() - before < 1.9


async def test_nobody_answers(
    world: World, first: Elsewhere, second: Elsewhere
) -> None:
    """They are asked again, from the same port: it is no use to have more of them."""
    first.script = second.script = silent
    world.asks(FIRST, SECOND)
    before = anyio.current_time()
    assert await world.resolve("x.example.") == ["SERVFAIL"]
    assert 4 < anyio.current_time() - before < 5
    for server in (first, second):
        assert len(server.asked) >= 2
        assert len({(it.client, it.message.id) for it in server.asked}) == 1
    assert world.opened == 2
    assert world.box.counters.failures == 2


async def test_a_lost_datagram(world: World, first: Elsewhere) -> None:
    def at_last(question: Message, tcp: bool) -> Sequence[bytes]:
        return [known(question, *GOOD).to_wire()] if len(first.asked) == 3 else []

    first.script = at_last
    assert await world.resolve("x.example.") == GOOD


# --- what is sent ---------------------------------------------------------------------


async def test_each_question_has_an_id_and_a_port_of_its_own(
    world: World, first: Elsewhere
) -> None:
    for number in range(40):
        assert await world.resolve(f"n{number}.example.") == GOOD
    assert len({it.message.id for it in first.asked}) > 35
    assert len({it.client[1] for it in first.asked}) > 35


async def test_nothing_of_the_client_is_sent_on_but_its_question(
    world: World, first: Elsewhere
) -> None:
    query = dns.message.make_query("sEcret.Example.", "A", id=77)
    cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
    query.use_edns(0, payload=4000, options=[cookie])
    answer = dns.message.from_wire(await world.exchange(query.to_wire()))
    assert answer.id == 77
    sent = first.asked[0].message
    assert sent.question[0].name.labels[:2] == (b"sEcret", b"Example")
    assert (sent.payload, sent.options) == (1232, ())
    assert answer.options == ()


@pytest.mark.parametrize("code", [dns.rcode.FORMERR, dns.rcode.NOTIMP])
async def test_a_server_that_does_not_know_edns(
    world: World, first: Elsewhere, code: dns.rcode.Rcode
) -> None:
    def old(question: Message, tcp: bool) -> Sequence[bytes]:
        if question.edns >= 0:
            return [framed(known(question, code=code).to_wire(), tcp)]
        answer = known(question, *GOOD)
        if not tcp:
            answer.flags |= dns.flags.TC
        return [framed(answer.to_wire(), tcp)]

    first.script = old
    answer = await world.ask("x.example.", edns=0)
    assert texts(answer) == GOOD
    assert answer.edns == 0
    # it is not asked with EDNS by TCP again, which would fail
    assert [(it.tcp, it.message.edns) for it in first.asked] == [
        (False, 0),
        (False, -1),
        (True, -1),
    ]


# --- what is believed -----------------------------------------------------------------


async def test_forged_answers(world: World, first: Elsewhere) -> None:
    def forger(question: Message, tcp: bool) -> Sequence[bytes]:
        evil = known(question, EVIL).to_wire()
        other_name = dns.message.make_query("y.example.", "A", id=question.id)
        other_kind = dns.message.make_query("x.example.", "AAAA", id=question.id)
        two = known(question, EVIL)
        two.question = two.question * 2
        with world.there.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
            elsewhere.connect(first.asked[-1].client)
            elsewhere.send(evil)
        return [
            b"",
            b"x",
            evil[:11],
            bytes((evil[0] ^ 1,)) + evil[1:],  # another id
            evil[:2] + bytes((evil[2] & 0x7F,)) + evil[3:],  # a question
            evil[:2] + bytes((evil[2] | 0x28,)) + evil[3:],  # an update
            evil[:-1],
            evil + b"x",
            known(other_name, EVIL).to_wire(),
            known(other_kind, EVIL).to_wire(),
            two.to_wire(),
            known(question, *GOOD).to_wire(),
            evil,
        ]

    first.script = forger
    before = anyio.current_time()
    for _ in range(2):
        assert await world.resolve("x.example.") == GOOD
    assert anyio.current_time() - before < 0.9
    assert world.box.counters.failures == 0


async def test_an_answer_with_other_letters(world: World, first: Elsewhere) -> None:
    def shouts(question: Message, tcp: bool) -> Sequence[bytes]:
        name = question.question[0].name.to_text().upper()
        other = dns.message.make_query(name, "A", id=question.id)
        return [known(other, *GOOD).to_wire()]

    first.script = shouts
    answer = await world.ask("x.eXample.")
    assert answer.question[0].name.labels[1] == b"eXample"
    assert answer.answer[0].name.labels[1] == b"eXample"


async def test_a_sandboxs_own_server_is_believed_by_it_alone(
    world: World, first: Elsewhere, second: Elsewhere
) -> None:
    second.script = says(EVIL)
    other = world.resolver()
    world.listen(other, "127.0.0.12")
    world.asks(SECOND, inside=True)
    assert await world.resolve("x.example.") == [EVIL]
    world.asks(FIRST)
    assert texts(await world.ask("x.example.", server="127.0.0.12")) == GOOD


async def test_other_records_of_an_answer_are_not_believed(
    world: World, first: Elsewhere
) -> None:
    def generous(question: Message, tcp: bool) -> Sequence[bytes]:
        answer = known(question, *GOOD)
        for section in (answer.answer, answer.additional):
            section.append(dns.rrset.from_text("y.example.", 60, "IN", "A", EVIL))
        return [answer.to_wire()]

    first.script = generous
    await world.ask("x.example.")
    first.script = says(*GOOD)
    assert await world.resolve("y.example.") == GOOD


# --- long answers ---------------------------------------------------------------------


def by_tcp_only(script: Script) -> Script:
    def truncates(question: Message, tcp: bool) -> Sequence[bytes]:
        if tcp:
            return script(question, tcp)
        answer = known(question)
        answer.flags |= dns.flags.TC
        return [answer.to_wire()]

    return truncates


MANY = [f"10.{it >> 8}.{it & 255}.1" for it in range(200)]


async def test_a_truncated_answer_is_asked_for_by_tcp(
    world: World, first: Elsewhere
) -> None:
    first.script = by_tcp_only(says(*MANY))
    part = await world.ask("x.example.")
    assert part.flags & dns.flags.TC
    assert len(texts(part)) > 25
    whole = await world.ask("x.example.", tcp=True)
    assert sorted(texts(whole)) == sorted(MANY)
    assert [it.tcp for it in first.asked] == [False, True]


async def test_a_long_answer_by_udp_without_edns(
    world: World, first: Elsewhere
) -> None:
    first.script = says(*MANY)
    whole = await world.ask("x.example.", tcp=True)
    assert sorted(texts(whole)) == sorted(MANY)
    assert (await world.ask("x.example.")).flags & dns.flags.TC
    assert len(first.asked) == 1


@pytest.mark.parametrize(
    "sent",
    [b"", b"\0", b"\0\0", b"\0\x20abc", b"\xff\xff" + b"x" * 100, b"\0\3abc", None],
)
async def test_nonsense_by_tcp(
    world: World, first: Elsewhere, second: Elsewhere, sent: bytes | None
) -> None:
    def script(question: Message, tcp: bool) -> Sequence[bytes]:
        evil = framed(known(question, EVIL).to_wire(), tcp=True)
        # the right form, and another id
        return [evil[:2] + bytes((evil[2] ^ 1,)) + evil[3:] if sent is None else sent]

    first.script = by_tcp_only(script)
    world.asks(FIRST, SECOND)
    assert await world.resolve("x.example.") == GOOD


async def test_many_records_do_not_keep_the_loop_from_others(
    world: World, first: Elsewhere
) -> None:
    first.script = by_tcp_only(lambda question, tcp: [framed(many(question), tcp)])

    def many(question: Message) -> bytes:
        return many_records(question, 4000)

    await world.ask("warm.example.")
    async with lateness() as late:
        for number in range(3):
            part = await world.ask(f"x{number}.example.", edns=0)
            assert part.flags & dns.flags.TC
            assert len(texts(part)) > 70
    # in the loop, it would be 150 ms
    # the loop has run while the messages were parsed
    assert len(late) > 3


async def test_pointers_to_pointers(world: World, first: Elsewhere) -> None:
    def chain(question: Message, tcp: bool) -> Sequence[bytes]:
        """Return an answer that takes old parsers twenty seconds."""
        asked = question.question[0]
        name = asked.name.to_wire() or b""
        at = 12 + len(name) + 4 + 12
        pointers, target = b"", 12
        while at < 16_000:
            pointers += struct.pack(">H", 0xC000 | target)
            target, at = at, at + 2
        opaque = struct.pack(">HHHIH", 0xC00C, 65280, 1, 0, len(pointers)) + pointers
        record = struct.pack(">HHHIH", 0xC000 | target, 65281, 1, 0, 0)
        head = struct.pack(">HHHHHH", question.id, 0x8180, 1, 4001, 0, 0)
        body = name + struct.pack(">HH", 1, 1) + opaque + record * 4000
        return [framed(head + body, tcp)]

    first.script = by_tcp_only(chain)
    before = anyio.current_time()
    assert await world.resolve("x.example.") == ["SERVFAIL"]
    assert anyio.current_time() - before < 2


async def test_a_query_by_tcp_is_forwarded(world: World, first: Elsewhere) -> None:
    async with world.client(tcp=True) as made:
        for number in range(3):
            data = dns.message.make_query(f"x{number}.example.", "A").to_wire()
            made.send(len(data).to_bytes(2, "big") + data)
        received = b""
        while len(received) < 3 * (2 + 28 + 16):
            received += await receive(made)
    assert [it.tcp for it in first.asked] == [False] * 3
