"""Networks behind a firewall table, with real traffic."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network

import pytest

from cnm.firewall import Element, Firewall
from cnm.firewall.ruleset import (
    ANY4,
    CLOSED,
    IN_NAT,
    IN_ROUTED,
    LB4,
    OPEN4,
    OPEN6,
    PUB4,
    RANGE4,
    RANGE6,
    SLOTS,
    USER,
)
from cnm.linux.nftables import DROP, Batch, commit, expressions as ex
from tests.integration.barriers import ELSEWHERE, rule, without

from .world import World, rules


@pytest.mark.parametrize("world", [False, True], indirect=True)
def test_containers_of_a_network_reach_each_other(world: World) -> None:
    assert world.ask("front2", "10.1.0.3", 80) == "front3 10.1.0.2"
    assert world.ask("front2", "fd00:1::3", 80) == "front3 fd00:1::2"
    assert world.ask("inner2", "10.3.0.3", 80) == "inner3 10.3.0.2"


def test_what_is_not_published_is_out_of_reach(world: World) -> None:
    probes = (
        # from one network to another
        ("front2", "10.2.0.2", 80, "tcp"),
        ("front2", "fd00:2::2", 80, "tcp"),
        ("apart2", "10.1.0.2", 53, "udp"),
        ("front2", "10.4.0.2", 80, "tcp"),
        # into and out of an internal network
        ("front2", "10.3.0.2", 80, "tcp"),
        ("inner2", "192.0.2.2", 99, "tcp"),
        ("inner2", "2001:db8::2", 99, "tcp"),
        ("inner2", "192.0.2.2", 53, "udp"),
        # from outside, by direct routes
        ("client", "10.1.0.2", 80, "tcp"),
        ("client", "fd00:1::2", 80, "tcp"),
        ("client", "10.1.0.2", 53, "udp"),
        ("client", "10.3.0.2", 80, "tcp"),
        ("client", "10.4.0.2", 80, "tcp"),
        ("client", "fd00:4::2", 81, "tcp"),
    )
    assert world.blocked(*probes)

    world.firewall.remove(world.host)

    for probe in probes:
        assert world.ask(*probe), f"{probe} would not have come through anyway"


@pytest.mark.parametrize("world", [False, True], indirect=True)
def test_masquerading(world: World) -> None:
    assert world.ask("front2", "192.0.2.2", 99) == "client 192.0.2.1"
    assert world.ask("front2", "2001:db8::2", 99) == "client 2001:db8::1"
    assert world.ask("front2", "192.0.2.2", 53, "udp") == "client 192.0.2.1"
    assert world.ask("apart2", "192.0.2.2", 99) == "client 192.0.2.1"
    assert world.ask("routed2", "192.0.2.2", 99) == "client 10.4.0.2"
    assert world.ask("routed2", "2001:db8::2", 99) == "client fd00:4::2"


def test_chosen_source_address(world: World) -> None:
    world.replace(1, "front", snat4=IPv4Address("192.0.2.9"))
    assert world.ask("front2", "192.0.2.2", 99) == "client 192.0.2.9"


def test_the_host_and_its_containers_reach_each_other(world: World) -> None:
    assert world.ask("host", "10.1.0.2", 80) == "front2 10.1.0.1"
    assert world.ask("host", "10.3.0.2", 80) == "inner2 10.3.0.1"
    assert world.ask("front2", "10.1.0.1", 99) == "host 10.1.0.2"
    assert world.ask("inner2", "10.3.0.1", 99) == "host 10.3.0.2"


def test_exposed_ports_of_a_routed_network(world: World) -> None:
    add = [
        Element(OPEN4, (IPv4Address("10.4.0.2"), "tcp", 80)),
        Element(OPEN6, (ip_network("fd00:4::2").network_address, "tcp", 80)),
    ]
    world.firewall.update(world.host, add=add)
    assert world.ask("client", "10.4.0.2", 80) == "routed2 192.0.2.2"
    assert world.ask("client", "fd00:4::2", 80) == "routed2 2001:db8::2"
    closed = rule(world.host, IN_ROUTED.chain)
    world.check([("client", "10.4.0.2", 81, "tcp")], closed)


def test_unprotected_networks_are_reached_directly(world: World) -> None:
    assert world.blocked(("client", "10.1.0.2", 80, "tcp"))

    world.replace(1, "front", mode4="nat-unprotected")

    assert world.ask("client", "10.1.0.2", 80) == "front2 192.0.2.2"
    assert world.ask("front2", "192.0.2.2", 99) == "client 192.0.2.1"
    world.check([("client", "fd00:1::2", 80, "tcp")], rule(world.host, IN_NAT.chain))


# bridge-nf-call-iptables is a setting of the host, for better or worse
@pytest.mark.parametrize("world", [False, True], indirect=True)
def test_published_ports(world: World) -> None:
    first, second = IPv4Address("10.1.0.2"), IPv4Address("10.2.0.2")
    everywhere = (IPv4Address("0.0.0.0"), "tcp", 8000)
    to = (IPv4Address("255.255.255.255"), "tcp", 8010)
    published = [
        Element(ANY4, ("tcp", 8080), (first, 80)),
        Element(PUB4, (IPv4Address("192.0.2.9"), "tcp", 9090), (second, 81)),
        Element(PUB4, (IPv4Address("127.0.0.1"), "tcp", 7070), (second, 80)),
        Element(RANGE4, everywhere, (IPv4Address("10.1.0.3"),), end=to),
    ]
    world.firewall.update(world.host, add=published)

    assert world.ask("client", "192.0.2.1", 8080) == "front2 192.0.2.2"
    assert world.ask("client", "192.0.2.9", 9090) == "apart2 192.0.2.2"
    assert world.ask("client", "192.0.2.1", 9090) == "ECONNREFUSED"
    assert world.ask("client", "192.0.2.1", 8001) == "ECONNREFUSED"  # front3 has none
    assert world.ask("client", "192.0.2.1", 7070) == "ECONNREFUSED"
    assert world.ask("host", "127.0.0.1", 7070) == "apart2 10.2.0.1"
    assert world.ask("host", "192.0.2.1", 8080) == "front2 192.0.2.1"
    # hairpin, neighbour, other network
    assert world.ask("front2", "192.0.2.1", 8080) == "front2 10.1.0.1"
    assert world.ask("front3", "192.0.2.1", 8080).startswith("front2 ")
    assert world.ask("apart2", "192.0.2.1", 8080) == "front2 10.1.0.1"
    # a foreign host's port is not taken over
    assert world.ask("front3", "192.0.2.2", 8080) == "ECONNREFUSED"
    with without(rule(world.host, "publish", ELSEWHERE)):
        assert world.ask("front3", "192.0.2.2", 8080).startswith("front2 ")
    world.check([("client", "10.1.0.2", 80, "tcp")], rule(world.host, IN_NAT.chain))

    world.firewall.update(world.host, remove=published[:1])
    assert world.ask("client", "192.0.2.1", 8080) == "ECONNREFUSED"


def test_ranges_of_ports_by_ipv6(world: World) -> None:
    net = ip_network("::/0")
    element = Element(
        RANGE6,
        (net.network_address, "tcp", 80),
        (ip_network("fd00:1::3").network_address,),
        end=(net.broadcast_address, "tcp", 81),
    )
    world.firewall.update(world.host, add=[element])
    assert world.ask("client", "2001:db8::1", 81) == "front3 2001:db8::2"
    assert world.ask("client", "2001:db8::1", 82) == "ECONNREFUSED"


def test_virtual_addresses(world: World) -> None:
    vip = IPv4Address("10.77.0.9")
    slots = [
        Element(LB4, (vip, slot), (IPv4Address(f"10.1.0.{2 + slot % 2}"),))
        for slot in range(SLOTS)
    ]
    world.firewall.update(world.host, add=slots)
    answers = {world.ask("client", str(vip), 80) for _ in range(40)}
    assert answers == {"front2 192.0.2.2", "front3 192.0.2.2"}


def test_the_administrators_chain_comes_first(world: World) -> None:
    drop = Batch("cnm")
    drop.add_rule(USER, ex.equal(ex.DESTINATION_PORT, 99), ex.verdict(DROP))
    assert world.ask("front2", "192.0.2.2", 99) == "client 192.0.2.1"
    commit(world.host.nft, drop)
    assert world.blocked(("front2", "192.0.2.2", 99, "tcp"))
    world.firewall.rebuild(world.host)
    assert world.blocked(("front2", "192.0.2.2", 99, "tcp"))
    assert world.ask("front2", "192.0.2.2", 53, "udp") == "client 192.0.2.1"


def test_forwarding_that_is_closed(world: World) -> None:
    with world.lan():
        assert world.ask("lan", "192.0.2.2", 99) == "client 198.51.100.2"
        closed = [Element(CLOSED, ("ipv4",))]

        world.firewall.update(world.host, add=closed)

        assert world.blocked(("lan", "192.0.2.2", 99, "tcp"))
        assert world.ask("lan", "2001:db8::2", 99) == "client fd09::2"
        assert world.ask("front2", "192.0.2.2", 99) == "client 192.0.2.1"
        world.firewall.update(
            world.host,
            add=[Element(ANY4, ("tcp", 8080), (IPv4Address("10.1.0.2"), 80))],
        )
        assert world.ask("lan", "192.0.2.1", 8080) == "front2 198.51.100.2"

        world.firewall.update(world.host, remove=closed)
        assert world.ask("lan", "192.0.2.2", 99) == "client 198.51.100.2"


def test_a_table_that_somebody_deleted_comes_back(world: World) -> None:
    Firewall("cnm").remove(world.host)
    assert world.ask("client", "10.1.0.2", 80) == "front2 192.0.2.2"
    world.firewall.rebuild(world.host)
    assert world.blocked(("client", "10.1.0.2", 80, "tcp"))
    assert world.ask("front2", "192.0.2.2", 99) == "client 192.0.2.1"


def test_two_controllers_side_by_side(world: World) -> None:
    other = Firewall("cnm-other")
    other.update(world.host, add=rules(1, "elsewhere").elements())
    other.rebuild(world.host)
    assert world.ask("front2", "192.0.2.2", 99) == "client 192.0.2.1"
    probe, closed = ("client", "10.1.0.2", 80, "tcp"), rule(world.host, IN_NAT.chain)
    world.check([probe], closed)
    other.remove(world.host)
    world.check([probe], closed)
