"""Asking for names in sandboxes, and a name server of somebody else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import anyio
import anyio.to_thread
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

import cnm

from ..lab import Closing, Namespace

RESOLVER = "127.0.0.11"


async def ask(
    sandbox: cnm.Sandbox,
    name: str,
    kind: str = "A",
    *,
    tcp: bool = False,
    server: str = RESOLVER,
    edns: int = 0,
) -> dns.message.Message:
    """Ask a sandbox's resolver, and return its answer.

    :param edns: bytes that an answer by UDP may have, or 0 for a client without EDNS
    """
    version = 0 if edns else None
    question = dns.message.make_query(name, kind, use_edns=version, payload=edns)
    data = question.to_wire()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    type_ = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with await sandbox.socket(family, type_) as made, anyio.fail_after(10):
        try:
            made.connect((server, 53))
        except BlockingIOError:
            await anyio.wait_writable(made)
        made.send(len(data).to_bytes(2, "big") + data if tcp else data)
        received = b""
        while not received or (
            tcp and len(received) < 2 + int.from_bytes(received[:2], "big")
        ):
            await anyio.wait_readable(made)
            received += made.recv(65535)
    answer = dns.message.from_wire(received[2:] if tcp else received)
    assert answer.id == question.id
    return answer


async def resolve(sandbox: cnm.Sandbox, name: str, kind: str = "A") -> list[str] | str:
    """Return the records of an answer, sorted, or its code if it is an error."""
    answer = await ask(sandbox, name, kind)
    if answer.rcode() != dns.rcode.NOERROR:
        return dns.rcode.to_text(answer.rcode())
    return sorted(str(rdata) for rrset in answer.answer for rdata in rrset)


@dataclass
class NameServer(Closing):
    """A name server of somebody else, in a thread.

    It knows ``known.example`` and what ``records`` has, and no other name.

    :ivar asked: the names that it has been asked for
    :ivar code: what it answers everything with
    :ivar silent: whether it says nothing
    :ivar first: what it sends before its answer by UDP
    """

    where: Namespace | None
    address: str
    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    code: dns.rcode.Rcode | None = None
    silent: bool = False
    first: Callable[[bytes], list[bytes]] = lambda question: []
    _listening: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.records.setdefault(("known.example.", "A"), ["192.0.2.80"])
        run = self.where.run if self.where else _run
        self._udp = run(partial(self._bound, socket.SOCK_DGRAM))
        self._tcp = run(partial(self._bound, socket.SOCK_STREAM))
        self._tcp.listen()
        self._threads = [
            threading.Thread(target=serve)
            for serve in (self._serve_udp, self._serve_tcp)
        ]
        for thread in self._threads:
            thread.start()

    def _bound(self, kind: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        made = socket.socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # with its scope, if it has one
        made.bind(socket.getaddrinfo(self.address, 53, type=kind)[0][4])
        return made

    async def hears(self) -> None:
        """Wait until it is asked for something."""

        def listen() -> bool:
            with self._listening:
                return self._listening.wait_for(lambda: bool(self.asked), 30)

        assert await anyio.to_thread.run_sync(listen)

    def close(self) -> None:
        """Stop serving."""
        for made in (self._udp, self._tcp):
            try:
                made.shutdown(socket.SHUT_RDWR)  # wakes the thread
            except OSError:
                continue
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()

    def _serve_udp(self) -> None:
        while True:
            data, client = self._udp.recvfrom(65535)
            if not data:
                return
            for forged in self.first(data):
                self._udp.sendto(forged, client)
            if answer := self._answer(data, 512):
                self._udp.sendto(answer, client)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection:
                data = connection.recv(65535)[2:]
                if answer := self._answer(data, 65535):
                    connection.sendall(len(answer).to_bytes(2, "big") + answer)

    def _answer(self, data: bytes, limit: int) -> bytes:
        question = dns.message.from_wire(data)
        (asked,) = question.question
        name, kind = str(asked.name).lower(), dns.rdatatype.to_text(asked.rdtype)
        with self._listening:
            self.asked.append(name)
            self._listening.notify_all()
        if self.silent:
            return b""
        answer = dns.message.make_response(question, recursion_available=True)
        if self.code is not None:
            answer.set_rcode(self.code)
        elif (name, kind) in self.records:
            texts = self.records[name, kind]
            answer.answer.append(
                dns.rrset.from_text_list(asked.name, 60, "IN", kind, texts)
            )
        else:
            answer.set_rcode(dns.rcode.NXDOMAIN)
            soa = "ns.example. admin.example. 1 2 3 4 30"
            answer.authority.append(
                dns.rrset.from_text("example.", 60, "IN", "SOA", soa)
            )
        return answer.to_wire(max_size=limit, prefer_truncation=True)


def _run(function: Callable[[], socket.socket]) -> socket.socket:
    return function()
