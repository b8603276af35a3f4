"""Netlink requests, packed by hand."""

from __future__ import annotations

import os
import socket
import struct

REQUEST, ACKNOWLEDGE, CREATE = 1, 4, 0x600
NEW_LINK, GET_LINK, NEW_ADDRESS, NEW_ROUTE, DELETE_NEIGHBOUR = 16, 18, 20, 24, 29
_NESTED = 0x8000
_SO_SNDBUFFORCE = 32

#: kind, flags, body
Request = tuple[int, int, bytes]


class Netlink:
    """A netlink socket that sends packed requests and reads one acknowledgement."""

    def __init__(self, protocol: int = 0) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self.socket.bind((0, 0))

    def make_room(self, size: int) -> None:
        """Have room for what is sent at once."""
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, size)

    def send(self, packed: bytes | bytearray, answers: int = 1) -> None:
        """Have requests done, the last of which wants to be acknowledged.

        :param answers: how many are to be read, the last of which must be good
        """
        self.socket.send(packed)
        for _ in range(answers):
            answer = self.socket.recv(65536)
        (error,) = struct.unpack_from("=i", answer, 16)
        if error:
            raise OSError(-error, os.strerror(-error))

    def close(self) -> None:
        self.socket.close()


def pack(*requests: Request, acknowledged: int = -1) -> bytes:
    """Return requests as one datagram."""
    data = b""
    final = acknowledged % len(requests)
    for position, (kind, flags, body) in enumerate(requests):
        flags |= REQUEST | (ACKNOWLEDGE if position == final else 0)
        body += b"\0" * (-len(body) & 3)
        data += struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body
    return data


def attribute(kind: int, data: bytes) -> bytes:
    size = len(data) + 4
    return struct.pack("=HH", size, kind) + data + b"\0" * (-size & 3)


def nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(parts))


def number(kind: int, value: int) -> bytes:
    return struct.pack("=HHI", 8, kind, value)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def new_link(index: int, name: str, kind: str, data: bytes, extra: bytes) -> Request:
    info = nested(18, text(1, kind), nested(2, data))
    head = struct.pack("=BxHiII", 0, 0, index, 0, 0)
    return NEW_LINK, CREATE, head + text(3, name) + extra + info


def change_link(index: int, *attributes: bytes, up: bool | None = None) -> Request:
    flags, mask = bool(up), up is not None
    head = struct.pack("=BxHiII", 0, 0, index, flags, mask)
    return NEW_LINK, 0, head + b"".join(attributes)


def look_at_link(index: int) -> Request:
    """Ask for a link, without its statistics: two answers."""
    return GET_LINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0) + number(29, 8)


def alias() -> bytes:
    """Return an alias as long as the one by which cnm knows its links."""
    return text(20, "floor-0:" + "0" * 64)


def hairpin() -> bytes:
    slave = nested(5, attribute(4, b"\x01"), attribute(33, b"\0"))
    return nested(18, text(4, "bridge"), slave)


def no_address_generation() -> bytes:
    return nested(26, nested(10, attribute(8, b"\x01")))


def address(index: int, packed: bytes, prefix: int) -> Request:
    family = _family(packed)
    body = struct.pack("=BBBBI", family, prefix, 0x80, 0, index)
    body += attribute(2, packed) + attribute(1, packed)
    # include/uapi/linux/if_addr.h: permanent, without duplicate address detection
    flags = b"" if family == socket.AF_INET else number(8, 0x82)
    return NEW_ADDRESS, CREATE, body + flags


def default_route(via: bytes, index: int) -> Request:
    body = struct.pack("=BBBBBBBBI", _family(via), 0, 0, 0, 254, 4, 0, 1, 0)
    return NEW_ROUTE, CREATE, body + attribute(5, via) + number(4, index)


def route_to(destination: bytes, index: int) -> Request:
    length = len(destination) * 8
    family = _family(destination)
    body = struct.pack("=BBBBBBBBI", family, length, 0, 0, 254, 4, 253, 1, 0)
    return NEW_ROUTE, CREATE, body + attribute(1, destination) + number(4, index)


def no_neighbour(packed: bytes, index: int) -> Request:
    body = struct.pack("=BxxxiHBB", _family(packed), index, 0, 0, 0)
    return DELETE_NEIGHBOUR, 0, body + attribute(1, packed)


def _family(packed: bytes) -> int:
    return socket.AF_INET if len(packed) == 4 else socket.AF_INET6
