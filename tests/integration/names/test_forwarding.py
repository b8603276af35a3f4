"""What becomes of questions that are asked elsewhere."""

# ruff: noqa: ASYNC240 - tests may block

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import dns.message
import dns.rcode
import dns.rrset
import pytest

import cnm
from cnm.dns import resolver

from .ask import NameServer, ask, resolve

OTHER = "127.0.0.54"


@pytest.fixture
async def box(
    upstream: NameServer, host_file: Path, controller: cnm.Controller
) -> cnm.Sandbox:
    """A sandbox whose host has two name servers; the second one is ``upstream``."""
    host_file.write_text(f"nameserver {OTHER}\nnameserver 127.0.0.53\n")
    await anyio.lowlevel.checkpoint()
    network = await controller.create_network("front", subnets=["10.9.0.0/24"])
    box = await controller.create_sandbox("box")
    await network.connect(box)
    with anyio.fail_after(10):
        # the host's file has been read anew
        while await resolve(box, "warm.example") == "SERVFAIL":  # noqa: ASYNC110
            await anyio.sleep(0.1)
    upstream.asked.clear()
    return box


@pytest.mark.parametrize("code", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
async def test_a_server_that_fails(
    upstream: NameServer, box: cnm.Sandbox, code: dns.rcode.Rcode
) -> None:
    with NameServer(None, OTHER, code=code) as failing:
        assert await resolve(box, "known.example") == ["192.0.2.80"]
        assert failing.asked == ["known.example."]
        upstream.code = code
        assert await resolve(box, "another.example") == "SERVFAIL"
    assert upstream.asked == ["known.example.", "another.example."]


async def test_a_name_that_does_not_exist_is_no_failure(
    upstream: NameServer, box: cnm.Sandbox
) -> None:
    with NameServer(None, OTHER) as first:
        for _ in range(2):
            answer = await ask(box, "nobody.example")
            assert answer.rcode() == dns.rcode.NXDOMAIN
            assert answer.authority[0].rdtype == dns.rdatatype.SOA
        assert first.asked == ["nobody.example."]
    assert upstream.asked == []


async def test_forged_answers_are_not_heard(
    upstream: NameServer, box: cnm.Sandbox
) -> None:
    def forged(data: bytes) -> list[bytes]:
        question = dns.message.from_wire(data)
        evil = dns.message.make_response(question)
        name = question.question[0].name
        evil.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "6.6.6.6"))
        wrong_id = bytes((data[0] ^ 1, data[1])) + evil.to_wire()[2:]
        other = dns.message.make_response(dns.message.make_query("x.example", "A"))
        other.id = question.id
        return [b"", b"x", data, wrong_id, other.to_wire(), evil.to_wire()[:-1]]

    upstream.first = forged
    assert await resolve(box, "known.example") == ["192.0.2.80"]
    assert await resolve(box, "known.example") == ["192.0.2.80"]


async def test_only_the_answer_to_the_question_is_kept(
    upstream: NameServer, box: cnm.Sandbox
) -> None:
    """Other records of a message do not get into the cache."""
    upstream.records["one.example.", "CNAME"] = ["known.example."]
    assert await resolve(box, "one.example", "CNAME") == ["known.example."]
    assert await resolve(box, "known.example") == ["192.0.2.80"]
    assert upstream.asked == ["one.example.", "known.example."]


async def test_what_is_too_long_for_udp(upstream: NameServer, box: cnm.Sandbox) -> None:
    addresses = [f"10.{it // 250}.{it % 250}.1" for it in range(3500)]
    upstream.records["large.example.", "A"] = addresses
    whole = await ask(box, "large.example", tcp=True)
    assert len(whole.answer[0]) == 3500
    part = await ask(box, "large.example", edns=1232)
    assert part.flags & dns.flags.TC
    assert 60 < len(part.answer[0]) < 80
    assert len(part.to_wire()) <= 1232


async def test_the_same_question_is_asked_once_at_a_time(
    upstream: NameServer, box: cnm.Sandbox
) -> None:
    found = []

    async def one() -> None:
        found.append(await resolve(box, "known.example"))

    async with anyio.create_task_group() as tasks:
        for _ in range(30):
            tasks.start_soon(one)
    assert found == [["192.0.2.80"]] * 30
    assert upstream.asked == ["known.example."]


async def test_a_lost_datagram_is_sent_again(
    upstream: NameServer, box: cnm.Sandbox
) -> None:
    upstream.silent = True

    async def wake_up() -> None:
        await upstream.hears()
        upstream.silent = False

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wake_up)
        assert await resolve(box, "known.example") == ["192.0.2.80"]
    assert upstream.asked == ["known.example."] * 2


async def test_too_many_questions(
    upstream: NameServer, box: cnm.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "LIMIT", 3)
    upstream.silent = True
    found: list[object] = []

    async def one(number: int) -> None:
        found.append(await resolve(box, f"name{number}.example"))

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(one, number)
        while len(found) < 2:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        upstream.silent = False
    assert found[:2] == ["REFUSED"] * 2
    assert found[2:] == ["NXDOMAIN"] * 3
    assert box.name_statistics.limited == 2
    # our own names are not affected
    assert await resolve(box, "box") == ["10.9.0.2"]


async def test_a_sandbox_that_goes_while_it_asks(
    upstream: NameServer, box: cnm.Sandbox, controller: cnm.Controller
) -> None:
    other = await controller.create_sandbox("other")
    await controller.network("front").connect(other)
    upstream.silent = True
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, box, "slow.example")
        tasks.start_soon(ask, other, "slow.example")
        await upstream.hears()
        # one of the two asks for both, whichever goes
        await box.delete()
        upstream.silent = False
        while other.name_statistics.nxdomain == 0:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
