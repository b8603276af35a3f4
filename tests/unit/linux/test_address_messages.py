from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
)

import pytest
from hypothesis import given, strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from cnm.errors import InvalidError
from cnm.linux import (
    add_address,
    delete_address,
    delete_neighbour,
    dump_addresses,
    parse_address,
    set_fdb,
    set_neighbour,
)
from cnm.types import IPAddress, IPInterface
from tests.unit.linux.oracle import decode, encode

NEWADDR, DELADDR, GETADDR = 20, 21, 22
AF_INET, AF_INET6, AF_BRIDGE = 2, 10, 7
LINK_SCOPE = 253

addresses = st.ip_addresses(v=4) | st.ip_addresses(v=6)
indexes = st.integers(1, 2**31 - 1)


@st.composite
def interfaces(draw: st.DrawFn) -> IPInterface:
    address: IPAddress = draw(addresses)
    prefix = draw(st.integers(0, address.max_prefixlen))
    if isinstance(address, IPv4Address):
        return IPv4Interface((address.packed, prefix))
    return IPv6Interface((address.packed, prefix))


@given(indexes, interfaces(), st.booleans())
def test_addition(index: int, interface: IPInterface, replace: bool) -> None:
    request = add_address(index, interface, replace=replace)
    message = decode(ifaddrmsg, request)
    assert request.what == f"add address {interface} to link {index}"
    assert message["header"]["type"] == NEWADDR
    assert message["header"]["flags"] == (0x500 if replace else 0x600)
    assert message["family"] == (AF_INET if interface.version == 4 else AF_INET6)
    assert message["index"] == index
    assert message["prefixlen"] == interface.network.prefixlen
    assert ip_address(message.get_attr("IFA_LOCAL")) == interface.ip
    assert ip_address(message.get_attr("IFA_ADDRESS")) == interface.ip
    # no duplicate address detection
    assert message.get_attr("IFA_FLAGS") == (None if interface.version == 4 else 2)


@pytest.mark.parametrize(
    ("address", "scope"),
    [("169.254.3.4/16", LINK_SCOPE), ("10.0.0.1/8", 0)],
)
def test_scope(address: str, scope: int) -> None:
    assert decode(ifaddrmsg, add_address(1, IPv4Interface(address)))["scope"] == scope


def test_scope_of_ipv6() -> None:
    message = decode(ifaddrmsg, add_address(1, IPv6Interface("fe80::1/64")))
    assert message["scope"] == LINK_SCOPE


def test_deletion_and_listing() -> None:
    request = delete_address(5, IPv4Interface("10.0.0.1/24"))
    message = decode(ifaddrmsg, request)
    assert message["header"]["type"] == DELADDR
    assert (message["index"], message["prefixlen"]) == (5, 24)
    message = decode(ifaddrmsg, dump_addresses(5))
    assert (message["header"]["type"], message["index"]) == (GETADDR, 5)


@given(indexes, interfaces(), st.booleans())
def test_parsing(index: int, interface: IPInterface, permanent: bool) -> None:
    message = encode(
        ifaddrmsg,
        NEWADDR,
        {
            "family": AF_INET if interface.version == 4 else AF_INET6,
            "index": index,
            "prefixlen": interface.network.prefixlen,
            "scope": LINK_SCOPE,
        },
        ("IFA_ADDRESS", str(interface.ip)),
        ("IFA_FLAGS", 0x80 if permanent else 0),
    )
    parsed = parse_address(message)
    assert (parsed.index, parsed.interface) == (index, interface)
    assert (parsed.scope, parsed.permanent) == (LINK_SCOPE, permanent)


def test_parsing_a_point_to_point_address() -> None:
    message = encode(
        ifaddrmsg,
        NEWADDR,
        {"family": AF_INET, "index": 1, "prefixlen": 32},
        ("IFA_ADDRESS", "10.0.0.2"),
        ("IFA_LOCAL", "10.0.0.1"),
    )
    assert parse_address(message).interface == IPv4Interface("10.0.0.1/32")


@given(indexes, addresses)
@pytest.mark.parametrize(
    ("state", "number"), [("reachable", 2), ("stale", 4), ("permanent", 0x80)]
)
def test_neighbours(state: str, number: int, index: int, address: IPAddress) -> None:
    request = set_neighbour(index, address, "02:00:00:00:00:0a", state=state)
    message = decode(ndmsg, request)
    assert message["header"]["type"] == 28
    assert message["header"]["flags"] == 0x500
    assert message["family"] == (AF_INET if address.version == 4 else AF_INET6)
    assert (message["ifindex"], message["state"]) == (index, number)
    assert ip_address(message.get_attr("NDA_DST")) == address
    assert message.get_attr("NDA_LLADDR") == "02:00:00:00:00:0a"
    message = decode(ndmsg, delete_neighbour(index, address))
    assert message["header"]["type"] == 29
    assert ip_address(message.get_attr("NDA_DST")) == address


def test_neighbour_states_are_checked() -> None:
    with pytest.raises(InvalidError, match="'gone' is not one of reachable, stale"):
        set_neighbour(1, IPv4Address("10.0.0.1"), "02:00:00:00:00:0a", state="gone")


def test_forwarding_database() -> None:
    message = decode(ndmsg, set_fdb(4, "02:00:00:00:00:0a"))
    assert (message["family"], message["ifindex"]) == (AF_BRIDGE, 4)
    assert message.get_attr("NDA_LLADDR") == "02:00:00:00:00:0a"
    assert message["flags"] == 4
    remote = IPv6Address("fd00::1")
    message = decode(ndmsg, set_fdb(4, "02:00:00:00:00:0a", destination=remote))
    assert message.get_attr("NDA_DST") == "fd00::1"
    assert message["flags"] == 2
