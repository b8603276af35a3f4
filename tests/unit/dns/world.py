"""Questions, a view of names, and other name servers that are made up."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from socket import socket
from typing import TypeAlias

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset

from cnm import SandboxInfo
from cnm.dns.forwarder import Forwarder
from cnm.dns.messages import Question, answer, read_question
from cnm.dns.parsing import Message
from cnm.dns.records import Found, NameServer
from cnm.dns.resolver import Resolver
from cnm.dns.upstream import NoAnswer
from cnm.types import IPAddress

Script: TypeAlias = Callable[[NameServer, Question], Awaitable[Message]]
BOX = SandboxInfo(id="id", name="box", key="", created=datetime.now(UTC))
SERVER = NameServer(ip_address("192.0.2.53"))
THREE = ["10.9.0.2", "10.9.0.3", "10.9.0.4"]
INSIDE = NameServer(ip_address("192.0.2.53"), inside=True)


def question(
    name: str | dns.name.Name = "web.front.",
    kind: str = "A",
    *,
    tcp: bool = False,
    use_edns: int | None = None,
    want_dnssec: bool = False,
    flags: int = dns.flags.RD,
) -> Question:
    message = dns.message.make_query(
        name, kind, use_edns=use_edns, want_dnssec=want_dnssec, flags=flags
    )
    return read_question(message.to_wire(), tcp=tcp)


def wire(
    name: str = "web.",
    kind: str = "A",
    *,
    use_edns: int | None = None,
    payload: int = 1232,
) -> bytes:
    """Return a query in wire format."""
    return dns.message.make_query(
        name, kind, use_edns=use_edns, payload=payload
    ).to_wire()


def chained(size: int, *, qr: int = 0) -> bytes:
    """Return a message whose records are all called what a long chain leads to."""
    asked = b"\1a\0\0\1\0\1"
    chain = bytearray()
    target = 12
    at = 12 + len(asked) + 12
    while len(chain) < size // 4 and at < 1 << 14:
        chain += struct.pack(">H", 0xC000 | target)
        target, at = at, at + 2
    first = b"\xc0\x0c" + struct.pack(">HHIH", 65280, 1, 0, len(chain)) + chain
    count = (size - 12 - len(asked) - len(first)) // 12
    others = struct.pack(">HHHIH", 0xC000 | target, 65281, 1, 0, 0) * count
    header = struct.pack(">HBBHHHH", 7, qr | 1, qr, 1, count + 1, 0, 0)
    return header + asked + first + others


@dataclass
class View:
    """Knows some names.

    :ivar looked: what has been looked for
    """

    names: dict[str, list[str]] = field(default_factory=lambda: {"web": ["10.9.0.2"]})
    looked: list[tuple[str, str]] = field(default_factory=list)
    error: Exception | None = None

    def find(self, name: str, kind: str) -> Found | None:
        self.looked.append((name, kind))
        if self.error:
            raise self.error
        if name not in self.names:
            return None
        found = [ip_address(text) for text in self.names[name]]
        version = {"A": 4, "AAAA": 6}.get(kind)
        return Found(addresses=tuple(it for it in found if it.version == version))


class Elsewhere:
    """Stands in for all other name servers (``cnm.dns.forwarder.ask``).

    :ivar script: what they do
    :ivar asked: what they have been asked for
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script: Script = script or knows_all
        self.asked: list[str] = []
        self.at_a_time = 0
        self.most_at_a_time = 0

    async def ask(
        self, server: NameServer, question: Question, opener: object, again: float
    ) -> tuple[bytes, Message]:
        self.asked.append(question.name)
        self.at_a_time += 1
        self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
        try:
            made = await self.script(server, question)
        finally:
            self.at_a_time -= 1
        if made.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise NoAnswer(made.rcode())
        data = made.to_wire(max_size=65535)
        return data, dns.message.from_wire(data)


async def knows_all(server: NameServer, question: Question) -> Message:
    """Answer every question."""
    made = answer(question)
    text = str(server.address)
    made.answer.append(dns.rrset.from_text(question.section.name, 60, "IN", "A", text))
    return made


async def no_socket(inside: bool, family: int, type_: int) -> socket:
    """Make no socket: nobody may need one."""
    raise AssertionError


def resolver(
    view: View | None = None,
    *servers: NameServer,
    forwarder: Forwarder | None = None,
) -> Resolver:
    """Return a resolver that has no sockets."""
    return Resolver(
        BOX, view or View(), lambda: servers, no_socket, forwarder or Forwarder()
    )


async def resolve(
    resolver: Resolver, data: bytes, *, tcp: bool = False
) -> dns.message.Message:
    """Have a resolver answer a query."""
    reply = resolver.begin(data, tcp=tcp)
    if not isinstance(reply, bytes):
        reply = await resolver.finish(reply)
    answered = dns.message.from_wire(reply)
    assert answered.id == int.from_bytes(data[:2], "big")
    return answered


def addresses(message: dns.message.Message) -> list[str]:
    """Return the addresses of an answer, or its code if it is an error."""
    if message.rcode() != dns.rcode.NOERROR:
        return [dns.rcode.to_text(message.rcode())]
    return [rdata.to_text() for rrset in message.answer for rdata in rrset]


@dataclass
class Policy:
    """Refuses ``bad``, and remembers what it hears.

    :ivar wait: is awaited before an answer may leave
    """

    error: Exception | None = None
    wait: Callable[[], Awaitable[None]] | None = None
    told: list[tuple[str, tuple[str, ...], int]] = field(default_factory=list)

    def allows(self, sandbox_id: str, name: str, kind: str) -> bool:
        if self.error:
            raise self.error
        return name != "bad"

    async def answered(
        self, sandbox_id: str, name: str, addresses: Sequence[IPAddress], ttl: int
    ) -> None:
        if self.wait:
            await self.wait()
        self.told.append((name, tuple(map(str, addresses)), ttl))
