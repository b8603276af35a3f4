"""How netlink messages look on the wire: headers, attributes, and nothing else.

Numbers are in host byte order unless a function's name says otherwise (``be32``), which
is nfnetlink's habit. Sources: include/uapi/linux/netlink.h, rtnetlink.h, if_link.h,
if_addr.h, neighbour.h.
"""

from __future__ import annotations

import sys
from struct import Struct
from typing import TYPE_CHECKING

from ..errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: struct nlmsghdr: length, type, flags, sequence number, port
HEADER = Struct("=IHHII")
#: struct nlattr: length, type
ATTRIBUTE = Struct("=HH")
#: struct ifinfomsg: family, type, index, flags, change
LINK = Struct("=BxHiII")
#: struct ifaddrmsg: family, prefix length, flags, scope, index
ADDRESS = Struct("=BBBBI")
#: struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
ROUTE = Struct("=BBBBBBBBI")
#: struct ndmsg: family, ifindex, state, flags, type
NEIGHBOUR = Struct("=BxxxiHBB")

_U8 = Struct("=HHBxxx")
_U16 = Struct("=HHHxx")
_U32 = Struct("=HHI")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")

# enum of message flags, include/uapi/linux/netlink.h
NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
#: flag of an answer that carries the kernel's explanation
NLM_F_ACK_TLVS = 0x200

NLA_F_NESTED = 0x8000
#: what is left of an attribute's type without its flags
NLA_TYPE_MASK = 0x3FFF


def attribute(kind: int, data: bytes = b"") -> bytes:
    """Return an attribute, padded to a multiple of four bytes."""
    size = len(data)
    return ATTRIBUTE.pack(size + 4, kind) + data + _PADDING[size & 3]


def nested(kind: int, *children: bytes) -> bytes:
    """Return an attribute that is made of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(children))


def u8(kind: int, value: int) -> bytes:
    """Return an attribute of one byte."""
    return _U8.pack(5, kind, value)


def u16(kind: int, value: int) -> bytes:
    """Return an attribute of two bytes."""
    return _U16.pack(6, kind, value)


def u32(kind: int, value: int) -> bytes:
    """Return an attribute of four bytes."""
    return _U32.pack(8, kind, value)


def be32(kind: int, value: int) -> bytes:
    """Return an attribute of four bytes in network byte order."""
    return ATTRIBUTE.pack(8, kind) + value.to_bytes(4, "big")


def be64(kind: int, value: int) -> bytes:
    """Return an attribute of eight bytes in network byte order."""
    return attribute(kind, value.to_bytes(8, "big"))


def string(kind: int, value: str) -> bytes:
    """Return an attribute with a string, and the zero byte at its end."""
    return attribute(kind, value.encode() + b"\0")


def text(data: bytes | None) -> str:
    """Return the string of an attribute, ``""`` if it is absent."""
    return data.rstrip(b"\0").decode(errors="replace") if data else ""


def number(data: bytes | None) -> int:
    """Return the host-order number of an attribute, 0 if it is absent."""
    return int.from_bytes(data, sys.byteorder) if data else 0


def pack_mac(mac: str) -> bytes:
    """Return the six bytes of ``02:00:00:00:00:01``.

    :raises InvalidError: if it is not a MAC address of that form
    """
    try:
        packed = bytes.fromhex(mac.replace(":", ""))
    except ValueError:
        packed = b""
    if len(packed) != 6:
        raise InvalidError(f"MAC address {mac!r} is not of the form 02:00:00:00:00:01")
    return packed


def unpack_mac(data: bytes | None) -> str:
    """Return a link-layer address in its usual form, ``""`` if it is absent."""
    return data.hex(":") if data else ""


def attributes(
    buffer: bytes, start: int = 0, end: int | None = None
) -> dict[int, bytes]:
    """Return the attributes of a part of a buffer by type; the last of a type wins."""
    # not by way of attribute_list(), which takes half as long again
    found = {}
    end = len(buffer) if end is None else end
    while start + 4 <= end:
        size, kind = ATTRIBUTE.unpack_from(buffer, start)
        if size < 4:
            break
        found[kind & NLA_TYPE_MASK] = buffer[start + 4 : start + size]
        start += (size + 3) & ~3
    return found


def attribute_list(
    buffer: bytes, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield type and data of each attribute in a part of a buffer."""
    end = len(buffer) if end is None else end
    while start + 4 <= end:
        size, kind = ATTRIBUTE.unpack_from(buffer, start)
        if size < 4:
            return
        yield kind & NLA_TYPE_MASK, buffer[start + 4 : start + size]
        start += (size + 3) & ~3


def first(buffer: bytes, kind: int, start: int = 0) -> bytes:
    """Return an attribute, without a look at what follows it; ``b""`` if it is absent.

    There may be many: forty of a link.
    """
    found = (data for it, data in attribute_list(buffer, start) if it == kind)
    return next(found, b"")


def messages(buffer: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield type, flags, sequence number, start and end of body of each message."""
    start = 0
    while start + HEADER.size <= len(buffer):
        size, kind, flags, sequence, _ = HEADER.unpack_from(buffer, start)
        if size < HEADER.size:
            return
        yield kind, flags, sequence, start + HEADER.size, start + size
        start += (size + 3) & ~3
