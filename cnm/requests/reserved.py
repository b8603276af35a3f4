"""Addresses that mean something else than a host on a link."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network

from ..types import IPNetwork

_RESERVED: dict[IPNetwork, str] = {
    IPv4Network("127.0.0.0/8"): "loopback",
    IPv4Network("224.0.0.0/4"): "multicast",
    IPv6Network("::1/128"): "loopback",
    # what is sent to one leaves by IPv4, RFC 4291 section 2.5.5.2
    IPv6Network("::ffff:0:0/96"): "IPv4-mapped",
    IPv6Network("ff00::/8"): "multicast",
}
#: The limited broadcast address, RFC 919; also that of the last subnets.
_BROADCAST = IPv4Address("255.255.255.255")


def unusable(block: IPNetwork) -> str:
    """Return why no link can have a subnet, or ``""``.

    One with an address of zero stands for any of its size.
    """
    if not int(block.network_address):
        return ""
    for reserved, kind in _RESERVED.items():
        if block.version == reserved.version and block.overlaps(reserved):
            return f"{kind} subnet {str(block)!r} is not allowed ({reserved})"
    if _BROADCAST in block and block.num_addresses <= 2:
        return f"broadcast subnet {str(block)!r} is not allowed ({_BROADCAST})"
    return ""
