"""What rules are made of: loads into registers, comparisons, look-ups, actions.

Every function returns bytes; a rule is a sequence of them. A rule goes on to its next
expression as long as the last one holds. Constants:
include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, TypeAlias

from ..wire import attribute, be32, nested, string
from .datatypes import (
    FAMILY,
    INTERFACE,
    IPV4,
    IPV6,
    MARK,
    PORT,
    PROTOCOL,
    DataType,
    Verdict,
)
from .sets import NFTA_DATA_VALUE, NFTA_LIST_ELEM, encode_verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from .datatypes import Value
    from .sets import Set

NFTA_EXPR_NAME = 1
_NFTA_EXPR_DATA = 2
_NFT_REG_VERDICT = 0
#: the first register of four bytes
_NFT_REG32_00 = 8
_NFT_CMP_EQ = 0
_NFT_CMP_NEQ = 1
_NFT_META_MARK = 3
_NFT_META_IIFNAME = 6
_NFT_META_OIFNAME = 7
_NFT_META_NFPROTO = 15
_NFT_META_L4PROTO = 16
_NFT_META_IIFGROUP = 21
_NFT_META_OIFGROUP = 22
_NFT_META_IIFKIND = 26
_NFT_META_OIFKIND = 27
_NETWORK_HEADER = 1
_TRANSPORT_HEADER = 2
_NFT_CT_STATE = 0
_NFT_CT_STATUS = 2
_NFT_FIB_RESULT_OIF = 1
_NFT_FIB_RESULT_ADDRTYPE = 3
_NFTA_FIB_F_SADDR = 1
_NFTA_FIB_F_DADDR = 2
_NFTA_FIB_F_IIF = 8
_NFT_NG_RANDOM = 1
_NFT_NAT_SNAT = 0
_NFT_NAT_DNAT = 1
# include/uapi/linux/netfilter/nf_conntrack_common.h: 1 << (IP_CT_... + 1), IPS_DST_NAT
_CT_ESTABLISHED = 2
_CT_RELATED = 4
_CT_DST_NAT = 0x20
# include/uapi/linux/netfilter.h
_NFPROTO = {"ipv4": 2, "ipv6": 10}

_WORD = Struct("=I").pack


@dataclass(frozen=True, slots=True)
class Field:
    """A property of a packet.

    ``a + b`` is the concatenation of two, for sets whose keys have several fields.

    :ivar type: the type of its value
    :ivar load: returns the expression which loads it into a register
    :ivar family: ``"ipv4"`` or ``"ipv6"`` if only such packets have it
    """

    type: DataType
    load: Callable[[int], bytes]
    family: str = ""

    def __add__(self, other: Field) -> Concatenation:
        return Concatenation((self, other))


@dataclass(frozen=True, slots=True)
class Concatenation:
    """Several properties of a packet, looked up together."""

    fields: tuple[Field, ...]

    def __add__(self, other: Field) -> Concatenation:
        return Concatenation((*self.fields, other))


Key: TypeAlias = Field | Concatenation


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(
        NFTA_LIST_ELEM,
        string(NFTA_EXPR_NAME, name),
        nested(_NFTA_EXPR_DATA, *attributes),
    )


def _meta(key: int) -> Callable[[int], bytes]:
    return lambda register: _expression("meta", be32(2, key), be32(1, register))


def _payload(base: int, offset: int, length: int) -> Callable[[int], bytes]:
    return lambda register: _expression(
        "payload", be32(1, register), be32(2, base), be32(3, offset), be32(4, length)
    )


def _route(result: int, flags: int) -> Callable[[int], bytes]:
    return lambda register: _expression(
        "fib", be32(1, register), be32(2, result), be32(3, flags)
    )


#: the interface by which a packet came in, or will leave
INPUT = Field(INTERFACE, _meta(_NFT_META_IIFNAME))
OUTPUT = Field(INTERFACE, _meta(_NFT_META_OIFNAME))
#: device groups of the links
INPUT_GROUP = Field(MARK, _meta(_NFT_META_IIFGROUP))
OUTPUT_GROUP = Field(MARK, _meta(_NFT_META_OIFGROUP))
#: kinds of the links, ``"bridge"`` for example
INPUT_KIND = Field(INTERFACE, _meta(_NFT_META_IIFKIND))
OUTPUT_KIND = Field(INTERFACE, _meta(_NFT_META_OIFKIND))
#: ``"ipv4"`` or ``"ipv6"``
NETWORK_PROTOCOL = Field(FAMILY, _meta(_NFT_META_NFPROTO))
TRANSPORT_PROTOCOL = Field(PROTOCOL, _meta(_NFT_META_L4PROTO))
SOURCE4 = Field(IPV4, _payload(_NETWORK_HEADER, 12, 4), "ipv4")
DESTINATION4 = Field(IPV4, _payload(_NETWORK_HEADER, 16, 4), "ipv4")
SOURCE6 = Field(IPV6, _payload(_NETWORK_HEADER, 8, 16), "ipv6")
DESTINATION6 = Field(IPV6, _payload(_NETWORK_HEADER, 24, 16), "ipv6")
#: the firewall mark that somebody has given the packet
PACKET_MARK = Field(MARK, _meta(_NFT_META_MARK))
#: of TCP, UDP and SCTP alike
DESTINATION_PORT = Field(PORT, _payload(_TRANSPORT_HEADER, 2, 2))
#: ``RTN_...`` of the destination in the routing tables: local, unicast ...
DESTINATION_TYPE = Field(MARK, _route(_NFT_FIB_RESULT_ADDRTYPE, _NFTA_FIB_F_DADDR))
#: the same of the source
SOURCE_TYPE = Field(MARK, _route(_NFT_FIB_RESULT_ADDRTYPE, _NFTA_FIB_F_SADDR))
#: index of the interface that the packet came in by, 0 if no route leads back there
WAY_BACK = Field(MARK, _route(_NFT_FIB_RESULT_OIF, _NFTA_FIB_F_SADDR | _NFTA_FIB_F_IIF))


def first_octet(address: Field) -> Field:
    """Return the first byte of an IPv4 address, which tells 127.0.0.0/8."""
    offset = 12 if address is SOURCE4 else 16
    octet = DataType("octet", 0, 1, PROTOCOL.encode)
    return Field(octet, _payload(_NETWORK_HEADER, offset, 1), "ipv4")


def random_number(modulus: int) -> Field:
    """Return a number from 0 to modulus - 1, another one for every connection."""
    return Field(
        MARK,
        lambda register: _expression(
            "numgen", be32(1, register), be32(2, modulus), be32(3, _NFT_NG_RANDOM)
        ),
    )


def equal(field: Field, value: Value) -> bytes:
    """Hold if the packet's property has a value."""
    return _load(field) + _compare(_NFT_CMP_EQ, _packed(field, value))


def not_equal(field: Field, value: Value) -> bytes:
    """Hold if the packet's property has another value."""
    return _load(field) + _compare(_NFT_CMP_NEQ, _packed(field, value))


def named(interface: Field, name: str) -> bytes:
    """Hold if an interface has a name, as iptables-nft says it.

    It compares the name and the zero byte at its end; nft, and :func:`equal`, go on
    with zeros to the length of the longest name. iptables knows a rule by that.
    """
    return interface.load(_NFT_REG32_00) + _compare(_NFT_CMP_EQ, name.encode() + b"\0")


def marked(mark: int, mask: int) -> bytes:
    """Hold if the bits of the packet's mark that a mask selects are those of a mark."""
    select = _and(_WORD(mask))
    return _load(PACKET_MARK) + select + _compare(_NFT_CMP_EQ, _WORD(mark))


def member(key: Key, of: Set) -> bytes:
    """Hold if the packet's properties are in a set."""
    return _load(key) + _expression(
        "lookup", string(1, of.name), be32(2, _NFT_REG32_00)
    )


def verdict_map(key: Key, verdicts: Set) -> bytes:
    """Do with a packet what a verdict map has for its properties, if it has them."""
    return _load(key) + _expression(
        "lookup",
        string(1, verdicts.name),
        be32(2, _NFT_REG32_00),
        be32(3, _NFT_REG_VERDICT),
    )


def verdict(what: Verdict) -> bytes:
    """Do that with a packet."""
    return _expression(
        "immediate", be32(1, _NFT_REG_VERDICT), nested(2, encode_verdict(what))
    )


def counter() -> bytes:
    """Count the packets that come by, and their bytes."""
    return _expression("counter")


def established() -> bytes:
    """Hold if the packet belongs to a known connection, or relates to one."""
    return _connection(_NFT_CT_STATE, _CT_ESTABLISHED | _CT_RELATED)


def translated() -> bytes:
    """Hold if the destination of the packet's connection has been translated (DNAT)."""
    return _connection(_NFT_CT_STATUS, _CT_DST_NAT)


def destination_nat(key: Key, targets: Set) -> bytes:
    """Translate the destination to what a map has for the packet's properties."""
    return _nat(_NFT_NAT_DNAT, key, targets)


def source_nat(key: Key, sources: Set) -> bytes:
    """Translate the source to what a map has for the packet's properties."""
    return _nat(_NFT_NAT_SNAT, key, sources)


def masquerade() -> bytes:
    """Translate the source to the address of the interface it leaves by."""
    return _expression("masq")


def redirect(key: Key, ports: Set) -> bytes:
    """Send to this host, to the port that a map has for the packet's properties."""
    lookup = _expression(
        "lookup",
        string(1, ports.name),
        be32(2, _NFT_REG32_00),
        be32(3, _NFT_REG32_00),
    )
    bounds = be32(1, _NFT_REG32_00), be32(2, _NFT_REG32_00)
    return _load(key) + lookup + _expression("redir", *bounds)


def _nat(kind: int, key: Key, addresses: Set) -> bytes:
    """Translate to what a map has: an address, or an address and a port."""
    address, *port = addresses.data
    found = _NFT_REG32_00
    attributes = [
        be32(1, kind),
        be32(2, _NFPROTO["ipv4" if address is IPV4 else "ipv6"]),
        be32(3, found),
        be32(4, found),
    ]
    if port:
        port_register = found + address.registers
        attributes += [be32(5, port_register), be32(6, port_register)]
    lookup = _expression(
        "lookup", string(1, addresses.name), be32(2, _NFT_REG32_00), be32(3, found)
    )
    return _load(key) + lookup + _expression("nat", *attributes)


def _connection(key: int, bits: int) -> bytes:
    """Hold if one of some bits of a connection's property is set."""
    load = _expression("ct", be32(2, key), be32(1, _NFT_REG32_00))
    return load + _and(_WORD(bits)) + _compare(_NFT_CMP_NEQ, _WORD(0))


def _and(mask: bytes) -> bytes:
    """Leave only those bits of the first register that are in a mask."""
    return _expression(
        "bitwise",
        be32(1, _NFT_REG32_00),
        be32(2, _NFT_REG32_00),
        be32(3, len(mask)),
        nested(4, attribute(NFTA_DATA_VALUE, mask)),
        nested(5, attribute(NFTA_DATA_VALUE, bytes(len(mask)))),
    )


def _load(key: Key) -> bytes:
    """Load properties into registers, side by side.

    In a table of family inet a rule sees IPv4 and IPv6 packets: it has to look first.
    """
    fields = key.fields if isinstance(key, Concatenation) else (key,)
    family = next((field.family for field in fields if field.family), "")
    code = equal(NETWORK_PROTOCOL, family) if family else b""
    register = _NFT_REG32_00
    for field in fields:
        code += field.load(register)
        register += field.type.registers
    return code


def _packed(field: Field, value: Value) -> bytes:
    return field.type.pack(value)[: field.type.size]


def _compare(operator: int, value: bytes) -> bytes:
    return _expression(
        "cmp",
        be32(1, _NFT_REG32_00),
        be32(2, operator),
        nested(3, attribute(NFTA_DATA_VALUE, value)),
    )
