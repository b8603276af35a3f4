"""The types of what sets hold, as nft(8) names and numbers them.

The kernel sees bytes only; the numbers are for whoever lists the table with nft.
Sources: nftables include/datatype.h, include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import TYPE_CHECKING, TypeAlias

from ...errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable

Value: TypeAlias = str | int | IPv4Address | IPv6Address

# include/uapi/linux/netfilter.h: NFPROTO_IPV4, NFPROTO_IPV6
_FAMILIES = {"ipv4": 2, "ipv6": 10}
# include/uapi/linux/in.h, in6.h
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
_IFNAMSIZ = 16
_MARK = Struct("=I")


@dataclass(frozen=True, slots=True)
class DataType:
    """A type of values.

    :ivar name: how nft(8) calls it
    :ivar number: its number there
    :ivar size: bytes of a value
    :ivar encode: turns a value into its bytes, or into None if it is of another type
    :ivar host_order: whether the bytes are a number in host byte order
    """

    name: str
    number: int
    size: int
    encode: Callable[[Value], bytes | None]
    host_order: bool = False

    @property
    def room(self) -> int:
        """How many bytes it takes in a register: a multiple of four."""
        return (self.size + 3) & ~3

    @property
    def registers(self) -> int:
        """How many registers of four bytes it takes."""
        return self.room // 4

    def pack(self, value: Value) -> bytes:
        """Return a value as it is in registers.

        :raises InvalidError: if the value is not of this type
        """
        packed = self.encode(value)
        if packed is None:
            raise InvalidError(f"{value!r} is not of type {self.name}")
        return packed.ljust((self.size + 3) & ~3, b"\0")  # its room


def _interface(value: Value) -> bytes | None:
    packed = value.encode() if isinstance(value, str) else b""
    return packed if 0 < len(packed) < _IFNAMSIZ else None


def _ipv4(value: Value) -> bytes | None:
    return value.packed if isinstance(value, IPv4Address) else None


def _ipv6(value: Value) -> bytes | None:
    return value.packed if isinstance(value, IPv6Address) else None


def _named(value: Value, names: dict[str, int]) -> bytes | None:
    number = names.get(value, -1) if isinstance(value, str) else value
    if isinstance(number, int) and 0 <= number <= 0xFF:
        return bytes((number,))
    return None


def _protocol(value: Value) -> bytes | None:
    return _named(value, _PROTOCOLS)


def _family(value: Value) -> bytes | None:
    return _named(value, _FAMILIES)


def _port(value: Value) -> bytes | None:
    if isinstance(value, int) and 0 <= value <= 0xFFFF:
        return value.to_bytes(2, "big")
    return None


def _number(value: Value) -> bytes | None:
    if isinstance(value, int) and 0 <= value <= 0xFFFFFFFF:
        return _MARK.pack(value)
    return None


def _nothing(value: Value) -> bytes | None:
    return None


#: ``"ipv4"`` or ``"ipv6"``
FAMILY = DataType("nf_proto", 2, 1, _family)
IPV4 = DataType("ipv4_addr", 7, 4, _ipv4)
IPV6 = DataType("ipv6_addr", 8, 16, _ipv6)
#: ``"tcp"``, ``"udp"``, ``"sctp"`` ... or a protocol's number
PROTOCOL = DataType("inet_proto", 12, 1, _protocol)
#: a port number
PORT = DataType("inet_service", 13, 2, _port)
#: a number of 32 bits
MARK = DataType("mark", 19, 4, _number, host_order=True)
INTERFACE = DataType("ifname", 41, 16, _interface, host_order=True)
#: what becomes of a packet: the data of verdict maps
VERDICT = DataType("verdict", 0xFFFFFF00, 0, _nothing)


# include/uapi/linux/netfilter/nf_tables.h, enum nft_verdicts
_JUMP = -3
_GOTO = -4
_RETURN = -5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a packet.

    :ivar chain: the chain it goes to, if it goes to one
    """

    code: int
    chain: str = ""


DROP = Verdict(0)
ACCEPT = Verdict(1)
RETURN = Verdict(_RETURN)


def goto(chain: str) -> Verdict:
    """Go on in another chain, and do not come back."""
    return Verdict(_GOTO, chain)


def jump(chain: str) -> Verdict:
    """Go on in another chain, and come back at its end."""
    return Verdict(_JUMP, chain)
