"""Asking another name server."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_thread
import dns.flags
import dns.rcode

from ..errors import CNMError
from .messages import Message, Question, query, read_answer
from .records import NameServer, Opener

T = TypeVar("T")
Args = TypeVarTuple("Args")

#: Bytes of a message that takes a millisecond or more to parse.
LARGE = 2048

_LARGEST = 65535
_LENGTH = 2


class NoAnswer(Exception):
    """A name server has not given an answer that can be used."""


async def ask(server: NameServer, question: Question, opener: Opener) -> bytes:
    """Ask a name server until it answers, by UDP, and by TCP what is too long for that.

    Each question has an id and a port of its own; what does not belong to it is not
    heard.

    :return: the answer in wire format, which has been understood
    :raises NoAnswer: if it refuses to answer, or cannot be reached
    """
    edns = question.has_edns
    try:
        wire, message = await _ask_udp(server, question, opener, edns=edns)
        if edns and message.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP):
            wire, message = await _ask_udp(server, question, opener, edns=False)
        if message.flags & dns.flags.TC:
            wire, message = await _ask_tcp(server, question, opener, edns=edns)
    except (OSError, CNMError, anyio.EndOfStream) as exc:
        raise NoAnswer(str(exc)) from exc
    if message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise NoAnswer(dns.rcode.to_text(message.rcode()))
    return wire


async def _connect(server: NameServer, opener: Opener, kind: int) -> socket.socket:
    four = server.address.version == 4
    family = socket.AF_INET if four else socket.AF_INET6
    made = await opener(server.inside, family, kind)
    try:
        made.connect((str(server.address), server.port))
    except BlockingIOError:
        return made
    except BaseException:
        made.close()
        raise
    return made


async def _ask_udp(
    server: NameServer, question: Question, opener: Opener, *, edns: bool
) -> tuple[bytes, Message]:
    identity = secrets.randbits(16)
    # connected: the kernel takes datagrams of this server only
    with await _connect(server, opener, socket.SOCK_DGRAM) as made:
        made.send(query(question, identity, edns=edns))
        while True:
            await anyio.wait_readable(made)
            try:
                data = made.recv(_LARGEST)
            except BlockingIOError:
                continue
            message = await sized(len(data), read_answer, data, question, identity)
            if message is not None:
                return data, message


async def _ask_tcp(
    server: NameServer, question: Question, opener: Opener, *, edns: bool
) -> tuple[bytes, Message]:
    identity = secrets.randbits(16)
    with await _connect(server, opener, socket.SOCK_STREAM) as made:
        await anyio.wait_writable(made)
        if error := made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        data = query(question, identity, edns=edns)
        made.send(len(data).to_bytes(_LENGTH, "big") + data)
        length = int.from_bytes(await receive_exactly(made, _LENGTH), "big")
        data = await receive_exactly(made, length)
    message = await sized(len(data), read_answer, data, question, identity)
    if message is None:
        raise NoAnswer("it is no answer to the question")
    return data, message


async def sized(size: int, work: Callable[[*Args], T], *args: *Args) -> T:
    """Work on a message, in a thread if it is large, so that the loop is not late."""
    if size < LARGE:
        return work(*args)
    return await anyio.to_thread.run_sync(work, *args)


async def receive_exactly(made: socket.socket, size: int) -> bytes:
    """Receive a number of bytes from a stream socket.

    :raises anyio.EndOfStream: if the other side sends no more
    """
    received = bytearray()
    while len(received) < size:
        try:
            data = made.recv(size - len(received))
        except BlockingIOError:
            await anyio.wait_readable(made)
            continue
        if not data:
            raise anyio.EndOfStream
        received += data
    return bytes(received)
