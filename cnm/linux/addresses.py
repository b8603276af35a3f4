"""IP addresses of links. Constants: include/uapi/linux/if_addr.h, rtnetlink.h."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING

from .netlink import Request
from .wire import (
    ADDRESS,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    attribute,
    attributes,
    number,
    u32,
)

if TYPE_CHECKING:
    from ..types import IPInterface
    from .netlink import Message

RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
#: scopes of addresses and routes: valid everywhere, and on this link only
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253

_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_FLAGS = 8
_IFA_F_NODAD = 0x02
_IFA_F_PERMANENT = 0x80


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkAddress:
    """An address of a link.

    :ivar index: index of the link
    :ivar permanent: whether it was configured, rather than learnt with a lifetime
    """

    index: int
    interface: IPInterface
    scope: int
    permanent: bool


def parse_address(message: Message) -> LinkAddress:
    """Return what a message of type RTM_NEWADDR or RTM_DELADDR describes."""
    family, prefix, flags, scope, index = ADDRESS.unpack_from(message.body)
    found = attributes(message.body, ADDRESS.size)
    # IFA_ADDRESS is the other end of a point-to-point link, if there is one
    packed = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    interface = IPv4Interface if family == AF_INET else IPv6Interface
    flags = number(found.get(_IFA_FLAGS)) or flags
    return LinkAddress(
        index=index,
        interface=interface((packed, prefix)),
        scope=scope,
        permanent=bool(flags & _IFA_F_PERMANENT),
    )


def add_address(
    index: int, interface: IPInterface, *, replace: bool = False
) -> Request:
    """Give a link an address.

    An IPv6 address is usable at once: duplicate address detection is switched off for
    it, as addresses are handed out by cnm.

    Set the link up first. The routes of IPv6 addresses that it has before are made
    while it is set up, with the memory that is at hand; the kernel does not say if that
    was too little, and their subnets cannot be reached then.

    :param replace: whether it is no error if the link has it already
    """
    flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
    words = ("add address", interface, "to link", index)
    return Request(RTM_NEWADDR, flags, _body(index, interface), words)


def delete_address(index: int, interface: IPInterface) -> Request:
    """Take an address away from a link."""
    words = ("delete address", interface, "from link", index)
    return Request(RTM_DELADDR, 0, _body(index, interface), words)


def link_local_address(mac: str) -> IPv6Interface:
    """Return the link-local address of a MAC address (RFC 4291, appendix A)."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 2
    host = octets[:3] + b"\xff\xfe" + octets[3:]
    return IPv6Interface((b"\xfe\x80" + bytes(6) + bytes(host), 64))


def dump_addresses(index: int = 0) -> Request:
    """Ask for all addresses, or those of one link; each is for parse_address()."""
    return Request(RTM_GETADDR, 0, ADDRESS.pack(0, 0, 0, 0, index), "list addresses")


def _body(index: int, interface: IPInterface) -> bytes:
    packed = interface.ip.packed
    scope = RT_SCOPE_LINK if interface.ip.is_link_local else RT_SCOPE_UNIVERSE
    family = AF_INET if interface.version == 4 else AF_INET6
    body = (
        ADDRESS.pack(family, interface.network.prefixlen, 0, scope, index)
        + attribute(_IFA_LOCAL, packed)
        + attribute(_IFA_ADDRESS, packed)
    )
    return body if family == AF_INET else body + u32(_IFA_FLAGS, _IFA_F_NODAD)
