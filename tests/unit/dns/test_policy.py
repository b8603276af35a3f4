"""Those who have a say in what a resolver answers, and those who watch."""

from __future__ import annotations

import logging

import anyio
import dns.edns
import dns.rcode
import dns.rrset
import pytest

from cnm.dns import resolver as resolver_module
from cnm.dns.messages import Question, answer
from cnm.dns.parsing import Message
from cnm.dns.policy import Answered
from cnm.dns.records import NameServer

from .world import (
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


async def test_records_of_other_classes_are_no_addresses(elsewhere: Elsewhere) -> None:
    async def odd(server: NameServer, question: Question) -> Message:
        made = answer(question)
        for kind in ("HS", "CLASS9"):
            data = r"\# 4 c0000201"
            made.answer.append(dns.rrset.from_text("x.", 60, kind, "A", data))
        made.answer.append(dns.rrset.from_text("x.", 60, "IN", "A", "192.0.2.2"))
        return made

    elsewhere.script = odd
    told: list[Answered] = []
    box = resolver(View(), SERVER)
    box.policy, box.observe = Policy(), told.append
    assert addresses(await resolve(box, wire("x.")))[-1] == "192.0.2.2"
    assert [str(it) for each in told for it in each.addresses] == ["192.0.2.2"]
    assert box.policy.told == [("x", ("192.0.2.2",), 60)]
