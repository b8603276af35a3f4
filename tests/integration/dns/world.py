"""A server of resolvers in a namespace, and other name servers there, in threads."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from typing import TypeAlias

import anyio
import anyio.to_thread
import dns.message
import dns.rcode
import dns.rrset

from cnm import SandboxInfo
from cnm.dns.forwarder import Forwarder
from cnm.dns.records import Found, NameServer
from cnm.dns.resolver import Resolver
from cnm.dns.server import Server

from ..lab import Closing, Namespace

RESOLVER = "127.0.0.11"
PORT = 53
Message: TypeAlias = dns.message.Message
#: What another name server does with a query: the datagrams that it sends, or what it
#: sends by TCP.
Script: TypeAlias = Callable[[Message, bool], Sequence[bytes]]


@dataclass
class View:
    """Names that a sandbox sees."""

    names: dict[str, list[str]] = field(
        default_factory=lambda: {
            "web": ["10.9.0.2"],
            "shared": ["10.9.0.2", "10.9.0.3", "10.9.0.4"],
            "many": [f"10.9.1.{number}" for number in range(100)],
            "six": ["fd00::1"],
        }
    )
    looked: int = 0

    def find(self, name: str, kind: str) -> Found | None:
        self.looked += 1
        texts = self.names.get(name)
        if name.startswith("any"):
            texts = self.names["web"]
        if texts is None:
            return None
        found = [ip_address(text) for text in texts]
        version = {"A": 4, "AAAA": 6}.get(kind)
        return Found(addresses=tuple(it for it in found if it.version == version))


def listeners(where: Namespace, address: str) -> tuple[socket.socket, socket.socket]:
    """Return sockets for a resolver."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = [where.socket(family, it) for it in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
    for it in made:
        it.setblocking(False)
        it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        it.bind((address, PORT))
    made[1].listen(64)
    return made[0], made[1]


@dataclass
class World:
    """A namespace with a server.

    :ivar box: a resolver, at ``RESOLVER``
    :ivar servers: whom it asks for the names of others
    :ivar opened: how many sockets have been made for that
    """

    there: Namespace
    server: Server
    forwarder: Forwarder
    view: View = field(default_factory=View)
    servers: tuple[NameServer, ...] = ()
    opened: int = 0
    box: Resolver = field(init=False)

    def __post_init__(self) -> None:
        self.box = self.resolver()

    def resolver(self) -> Resolver:
        now = datetime.now(UTC)
        info = SandboxInfo(id="id", name="box", key="", created=now)
        return Resolver(
            info, self.view, lambda: self.servers, self._open, self.forwarder
        )

    def listen(self, resolver: Resolver, *addresses: str) -> None:
        for address in addresses:
            self.server.open(resolver, *listeners(self.there, address))

    def asks(self, *addresses: str, inside: bool = False) -> None:
        """Set which other name servers there are."""
        self.servers = tuple(
            NameServer(ip_address(address), inside=inside) for address in addresses
        )

    async def _open(self, inside: bool, family: int, type_: int) -> socket.socket:
        make = partial(self.there.socket, family, type_)
        made = await anyio.to_thread.run_sync(make)
        made.setblocking(False)
        self.opened += 1
        return made

    @asynccontextmanager
    async def client(
        self, *, tcp: bool = False, server: str = RESOLVER
    ) -> AsyncIterator[socket.socket]:
        """A socket of a program in the namespace, connected to a resolver."""
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        type_ = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        make = partial(self.there.socket, family, type_)
        with await anyio.to_thread.run_sync(make) as made:
            made.setblocking(False)
            error = made.connect_ex((server, PORT))
            assert error in (0, errno.EINPROGRESS)
            await anyio.wait_writable(made)
            yield made

    async def exchange(
        self, data: bytes, *, tcp: bool = False, server: str = RESOLVER
    ) -> bytes:
        """Send a query in wire format, and return the answer."""
        async with self.client(tcp=tcp, server=server) as made:
            made.send(len(data).to_bytes(2, "big") + data if tcp else data)
            if not tcp:
                return await receive(made)
            received = await receive(made)
            while len(received) < 2 + int.from_bytes(received[:2], "big"):
                received += await receive(made)
            return received[2:]

    async def ask(
        self,
        name: str,
        kind: str = "A",
        *,
        tcp: bool = False,
        edns: int | None = None,
        server: str = RESOLVER,
    ) -> Message:
        """Ask the resolver, and return its answer."""
        question = dns.message.make_query(name, kind, use_edns=edns)
        data = question.to_wire()
        answer = dns.message.from_wire(
            await self.exchange(data, tcp=tcp, server=server)
        )
        assert answer.id == question.id
        assert answer.question == question.question
        return answer

    async def resolve(self, name: str, kind: str = "A") -> list[str]:
        """Return the records of an answer, or its code if that is another."""
        answer = await self.ask(name, kind)
        if answer.rcode() != dns.rcode.NOERROR:
            return [dns.rcode.to_text(answer.rcode())]
        return texts(answer)


def texts(answer: Message) -> list[str]:
    """Return the records of an answer."""
    return [rdata.to_text() for rrset in answer.answer for rdata in rrset]


async def receive(made: socket.socket, seconds: float = 10) -> bytes:
    """Receive something; ``b""`` at the end."""
    with anyio.fail_after(seconds):
        await anyio.wait_readable(made)
    return made.recv(65535)


@asynccontextmanager
async def lateness() -> AsyncIterator[list[float]]:
    """Tell by how many seconds a task was late that runs every five milliseconds."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await anyio.sleep(0.005)
            late.append(time.perf_counter() - before - 0.005)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        yield late
        tasks.cancel_scope.cancel()


class Flood(Closing):
    """Sends datagrams as fast as it can, from a thread."""

    def __init__(self, made: socket.socket, packets: Iterator[bytes]) -> None:
        self._made = made
        self._packets = packets
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.sent = 0
        self._thread.start()

    def _send(self) -> None:
        for packet in self._packets:
            if self._stop.is_set():
                return
            try:
                self._made.send(packet)
                self.sent += 1
            except BlockingIOError:
                time.sleep(0.0001)

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()


@dataclass
class Asked:
    """A query that another name server has had."""

    message: Message
    client: tuple[str, int]
    tcp: bool


class Elsewhere(Closing):
    """Another name server, which does what a script says.

    :ivar asked: the queries that it had
    """

    def __init__(self, there: Namespace, address: str, script: Script) -> None:
        self.address = address
        self.script = script
        self.asked: list[Asked] = []
        self._stopping = False
        self.udp, self._tcp = (
            there.socket(socket.AF_INET, it)
            for it in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
        )
        for made in (self.udp, self._tcp):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address, PORT))
        self._tcp.listen()
        self._threads = [
            threading.Thread(target=serve) for serve in (self._by_udp, self._by_tcp)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def names(self) -> list[str]:
        """The names that it was asked for."""
        return [it.message.question[0].name.to_text() for it in self.asked]

    def _by_udp(self) -> None:
        while True:
            data, client = self.udp.recvfrom(65535)
            if self._stopping:
                return
            for reply in self._replies(data, client, tcp=False):
                with suppress(BrokenPipeError):  # closed in between
                    self.udp.sendto(reply, client)

    def _by_tcp(self) -> None:
        while True:
            try:
                connection, client = self._tcp.accept()
            except OSError:
                return
            with connection, suppress(ConnectionError):  # the client has gone
                for reply in self._replies(
                    connection.recv(65535)[2:], client, tcp=True
                ):
                    connection.sendall(reply)

    def _replies(
        self, data: bytes, client: tuple[str, int], *, tcp: bool
    ) -> Sequence[bytes]:
        message = dns.message.from_wire(data)
        self.asked.append(Asked(message, client, tcp))
        return self.script(message, tcp)

    def close(self) -> None:
        """Stop."""
        self._stopping = True
        for made in (self.udp, self._tcp):
            with suppress(OSError):  # it is not connected
                made.shutdown(socket.SHUT_RDWR)  # wakes its thread
        for thread in self._threads:
            thread.join()
        self.udp.close()
        self._tcp.close()


def known(question: Message, *addresses: str, code: int = 0) -> Message:
    """Return an answer."""
    answer = dns.message.make_response(question)
    answer.set_rcode(dns.rcode.Rcode(code))
    name = question.question[0].name
    if addresses:
        answer.answer.append(
            dns.rrset.from_text_list(name, 60, "IN", "A", list(addresses))
        )
    return answer


def says(*addresses: str, code: int = 0) -> Script:
    """Return a script: the same answer to everything."""

    def script(question: Message, tcp: bool) -> Sequence[bytes]:
        return [framed(known(question, *addresses, code=code).to_wire(), tcp)]

    return script


def silent(question: Message, tcp: bool) -> Sequence[bytes]:
    """Say nothing."""
    return []


def framed(data: bytes, tcp: bool) -> bytes:
    """Return what is sent."""
    return len(data).to_bytes(2, "big") + data if tcp else data


def many_records(question: Message, count: int) -> bytes:
    """Return an answer with many records that are small."""
    head = struct.pack(">HHHHHH", question.id, 0x8180, 1, count, 0, 0)
    asked = question.question[0]
    head += (asked.name.to_wire() or b"") + struct.pack(">HH", asked.rdtype, 1)
    record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4)
    body = b"".join(record + struct.pack(">I", number) for number in range(count))
    return head + body


def descriptors() -> int:
    """Return how many file descriptors are open."""
    return len(os.listdir("/proc/self/fd"))
