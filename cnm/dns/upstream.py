"""Asking another name server."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import struct
from ipaddress import IPv6Address

import anyio
import dns.flags
import dns.rcode

from ..errors import CNMError
from .messages import Question, is_good, query, read_answer
from .parsing import Message, sized
from .records import NameServer, Opener

# struct ifreq: a name and an index; include/uapi/linux/sockios.h
_NAME_SIZE = 16
_INTERFACE = struct.Struct(f"{_NAME_SIZE}si20x")
_SIOCGIFINDEX = 0x8933
_LARGEST = 65535
_LENGTH = 2


class NoAnswer(Exception):
    """A name server has not given an answer that can be used."""


async def ask(
    server: NameServer, question: Question, opener: Opener, again: float
) -> tuple[bytes, Message]:
    """Ask a name server until it answers, by UDP, and by TCP what is too long for that.

    Each question has an id and a port of its own; what does not belong to it is not
    heard.

    :param again: seconds after which it is asked again, since datagrams get lost
    :return: the answer, in wire format and understood
    :raises NoAnswer: if it refuses to answer, or cannot be reached
    """
    edns = question.has_edns
    try:
        wire, message = await _ask_udp(server, question, opener, again, edns=edns)
        if edns and message.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP):
            edns = False
            wire, message = await _ask_udp(server, question, opener, again, edns=edns)
        if message.flags & dns.flags.TC:
            wire, message = await _ask_tcp(server, question, opener, edns=edns)
    except (OSError, CNMError, anyio.EndOfStream) as exc:
        raise NoAnswer(str(exc)) from exc
    if not is_good(message):
        raise NoAnswer(dns.rcode.to_text(message.rcode()))
    return wire, message


def _destination(
    made: socket.socket, server: NameServer
) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return where a server is, as the socket's namespace has it."""
    address = server.address
    if address.version == 4 or not address.scope_id:
        return str(address), server.port
    name = address.scope_id
    if name.isdecimal():
        index = int(name)
    else:
        request = _INTERFACE.pack(name.encode()[: _NAME_SIZE - 1], 0)
        _, index = _INTERFACE.unpack(fcntl.ioctl(made, _SIOCGIFINDEX, request))
    return str(IPv6Address(int(address))), server.port, 0, index


async def _connect(server: NameServer, opener: Opener, kind: int) -> socket.socket:
    four = server.address.version == 4
    family = socket.AF_INET if four else socket.AF_INET6
    made = await opener(server.inside, family, kind)
    try:
        made.connect(_destination(made, server))
    except BlockingIOError:
        return made
    except BaseException:
        made.close()
        raise
    return made


async def _ask_udp(
    server: NameServer,
    question: Question,
    opener: Opener,
    again: float,
    *,
    edns: bool,
) -> tuple[bytes, Message]:
    identity = secrets.randbits(16)
    # connected: the kernel takes datagrams of this server only
    with await _connect(server, opener, socket.SOCK_DGRAM) as made:
        while True:
            made.send(query(question, identity, edns=edns))
            with anyio.move_on_after(again):
                return await _receive(made, question, identity)


async def _receive(
    made: socket.socket, question: Question, identity: int
) -> tuple[bytes, Message]:
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
