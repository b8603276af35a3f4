from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import pytest
from hypothesis import given, strategies as st
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cnm.errors import InvalidError
from cnm.linux import add_route, delete_route, dump_routes, parse_route
from cnm.types import IPAddress, IPNetwork
from tests.unit.linux.oracle import decode, encode, pairs

NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
AF_INET, AF_INET6 = 2, 10
MAIN = 254
STATIC = 4
UNICAST = 1

addresses = st.ip_addresses(v=4) | st.ip_addresses(v=6)
metrics = st.integers(0, 2**32 - 1)
indexes = st.integers(1, 2**31 - 1)


@st.composite
def networks(draw: st.DrawFn) -> IPNetwork:
    address: IPAddress = draw(addresses)
    prefix = draw(st.integers(1, address.max_prefixlen))
    return ip_network((address.packed, prefix), strict=False)


@given(networks(), st.data(), indexes, metrics, st.booleans())
def test_addition(
    destination: IPNetwork, data: st.DataObject, index: int, metric: int, replace: bool
) -> None:
    version = destination.version
    via: IPAddress = data.draw(st.ip_addresses(v=version))
    request = add_route(
        destination, via=via, index=index, metric=metric, replace=replace
    )
    message = decode(rtmsg, request)
    assert request.what == f"add route {destination} via {via}"
    assert message["header"]["type"] == NEWROUTE
    assert message["header"]["flags"] == (0x500 if replace else 0x600)
    assert message["family"] == (AF_INET if version == 4 else AF_INET6)
    assert message["dst_len"] == destination.prefixlen
    assert message["table"] == MAIN
    assert (message["proto"], message["scope"], message["type"]) == (STATIC, 0, UNICAST)
    assert ip_address(message.get_attr("RTA_DST")) == destination.network_address
    assert ip_address(message.get_attr("RTA_GATEWAY")) == via
    assert message.get_attr("RTA_OIF") == index
    assert message.get_attr("RTA_PRIORITY") == (metric or None)


@pytest.mark.parametrize(("version", "family"), [(4, AF_INET), (6, AF_INET6)])
def test_default_routes(version: int, family: int) -> None:
    message = decode(rtmsg, add_route(None, index=3, version=version))
    assert (message["family"], message["dst_len"], message["scope"]) == (family, 0, 253)
    assert pairs(message) == [("RTA_OIF", 3)]


def test_the_next_hop_tells_the_version_of_a_default_route() -> None:
    message = decode(rtmsg, add_route(None, via=IPv6Address("fe80::1"), index=3))
    assert message["family"] == AF_INET6


def test_versions_do_not_mix() -> None:
    with pytest.raises(InvalidError, match=r"'fe80::1' is not of the IP version of"):
        add_route(IPv4Network("10.0.0.0/8"), via=IPv6Address("fe80::1"))


def test_deletion_and_listing() -> None:
    message = decode(rtmsg, delete_route(IPv4Network("10.0.0.0/8"), metric=9))
    assert message["header"]["type"] == DELROUTE
    # whoever made it, whatever its scope
    assert (message["proto"], message["scope"], message["type"]) == (0, 255, 0)
    assert message.get_attr("RTA_PRIORITY") == 9
    assert decode(rtmsg, dump_routes(4))["family"] == AF_INET
    assert decode(rtmsg, dump_routes(6))["family"] == AF_INET6


@given(networks(), st.data(), indexes, metrics, st.integers(1, 2**32 - 1))
def test_parsing(
    destination: IPNetwork, data: st.DataObject, index: int, metric: int, table: int
) -> None:
    version = destination.version
    via: IPAddress = data.draw(st.ip_addresses(v=version))
    message = encode(
        rtmsg,
        NEWROUTE,
        {
            "family": AF_INET if version == 4 else AF_INET6,
            "dst_len": destination.prefixlen,
            "table": min(table, 252),
            "proto": 2,
            "type": 7,
        },
        ("RTA_DST", str(destination.network_address)),
        ("RTA_GATEWAY", str(via)),
        ("RTA_OIF", index),
        ("RTA_PRIORITY", metric),
        ("RTA_TABLE", table),
    )
    route = parse_route(message)
    assert route.destination == destination
    assert (route.via, route.index, route.metric) == (via, index, metric)
    assert (route.table, route.protocol, route.type) == (table, 2, 7)
    assert route.gatewayed
    assert not route.cached


def test_parsing_a_default_route_on_the_link() -> None:
    message = encode(rtmsg, NEWROUTE, {"family": AF_INET, "table": 254}, ("RTA_OIF", 3))
    route = parse_route(message)
    assert route.destination == IPv4Network("0.0.0.0/0")
    assert route.via is None
    assert (route.table, route.gatewayed) == (254, False)


def test_parsing_several_next_hops() -> None:
    hop = {"oif": 3, "attrs": [["RTA_GATEWAY", "10.0.0.1"]]}
    message = encode(
        rtmsg,
        NEWROUTE,
        {"family": AF_INET, "dst_len": 8},
        ("RTA_DST", "11.0.0.0"),
        ("RTA_MULTIPATH", [hop]),
    )
    route = parse_route(message)
    assert (route.index, route.gatewayed) == (0, True)
    assert route.destination == IPv4Network("11.0.0.0/8")


def test_an_ipv6_exception_is_no_route() -> None:
    message = encode(rtmsg, NEWROUTE, {"family": AF_INET6, "flags": 0x200})
    assert parse_route(message).cached
    assert parse_route(message).destination == IPv6Network("::/0")


def test_addresses_of_both_kinds() -> None:
    request = add_route(IPv4Network("10.0.0.0/8"), via=IPv4Address("10.1.1.1"))
    assert decode(rtmsg, request).get_attr("RTA_OIF") is None
