"""Ways into networks other than their modes, and ways that are shut; real traffic."""

from __future__ import annotations

import os
import sys
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, SOCK_DGRAM, socket
from typing import TYPE_CHECKING

import pytest

from cnm.firewall import Element, Firewall
from cnm.firewall.ruleset import (
    ANY6,
    CLOSED,
    DROP_ICC,
    DROP_INTERNAL,
    IN_DIRECT,
    IN_NAT,
    IN_ROUTED,
    OPEN4,
    OPEN6,
    POLICY4,
    POLICY6,
    PROXIED,
    PROXY,
    PUB4,
    USER,
)
from cnm.linux import set_bridge_port
from cnm.linux.nftables import DROP, Batch, commit, expressions as ex, jump, list_rules
from cnm.linux.wire import attribute, attribute_list, attributes, be32, nested, string
from tests.integration.barriers import rule
from tests.integration.lab import BLOCKED_AFTER, PATIENCE

from .intruder import PORT, Letterbox, send
from .world import route_loopback, rules

if TYPE_CHECKING:
    from .world import Probe, World

FRONT4, FRONT6 = IPv4Address("10.1.0.2"), IPv6Address("fd00:1::2")
OPEN = (Element(OPEN4, (FRONT4, "tcp", 80)), Element(OPEN6, (FRONT6, "tcp", 80)))


def publish_first(world: World, chain: str) -> None:
    """Have what is published apply before the other rules of a chain."""
    batch = Batch("cnm")
    batch.insert_rule(chain, ex.verdict(jump("publish")))
    commit(world.host.nft, batch)


def test_what_is_published_at_127_0_0_1_is_for_the_host_only(world: World) -> None:
    loopback = Element(PUB4, (IPv4Address("127.0.0.1"), "udp", 7070), (FRONT4, PORT))
    world.firewall.update(world.host, add=[loopback])
    route_loopback(world.client, "192.0.2.1")
    with Letterbox(world.boxes["front2"]) as letterbox:

        def knock(where: str) -> str:
            # one way: a neighbour's own stack would not take the answer
            send(world.boxes[where], "127.0.0.1", 7070)
            return letterbox.source()

        assert knock("host") == "10.1.0.1"
        assert knock("client") == ""

        publish_first(world, "prerouting")

        assert knock("client") == "192.0.2.2"


def test_what_is_sent_to_the_ipv6_loopback_is_proxied(world: World) -> None:
    published = [Element(ANY6, (proto, 8080), (FRONT6, 80)) for proto in ("tcp", "udp")]
    proxied = [Element(PROXIED, (proto, 8080)) for proto in ("tcp", "udp")]
    proxy = [Element(PROXY, ("tcp",), (99,)), Element(PROXY, ("udp",), (53,))]
    world.firewall.update(world.host, add=published + proxied)
    assert world.ask("client", "2001:db8::1", 8080) == "front2 2001:db8::2"
    # there is no proxy
    assert world.ask("host", "::1", 8080) == "ECONNREFUSED"

    world.firewall.update(world.host, add=proxy)

    assert world.ask("host", "::1", 8080) == "host ::1"
    assert world.ask("host", "::1", 8080, "udp") == "host ::1"
    assert world.ask("client", "2001:db8::1", 8080) == "front2 2001:db8::2"
    world.firewall.update(world.host, remove=proxied)
    assert world.ask("host", "::1", 8080) == "ECONNREFUSED"

    publish_first(world, "output")

    # translated, it cannot leave the host, and gets no answer at all
    assert world.blocked(("host", "::1", 8080, "tcp"))


def test_trusted_interfaces(world: World) -> None:
    world.firewall.update(world.host, add=OPEN)
    with world.lan():
        assert world.blocked(("client", "10.1.0.2", 80, "tcp"))

        world.replace(1, "front", trusted=("out0",))

        assert world.ask("client", "10.1.0.2", 80) == "front2 192.0.2.2"
        assert world.ask("client", "fd00:1::2", 80) == "front2 2001:db8::2"
        shut: list[Probe] = [
            ("client", "10.1.0.2", 81, "tcp"),
            ("client", "10.1.0.3", 80, "tcp"),
        ]
        world.check(shut, rule(world.host, IN_DIRECT.chain))
        shut = [
            ("client", "10.2.0.2", 80, "tcp"),
            ("lan", "10.1.0.2", 80, "tcp"),
            ("lan", "fd00:1::2", 80, "tcp"),
        ]
        world.check(shut, rule(world.host, IN_NAT.chain))


def test_direct_routing(world: World) -> None:
    world.replace(1, "front", direct=True)
    assert world.blocked(("client", "10.1.0.2", 80, "tcp"))

    world.firewall.update(world.host, add=OPEN)

    assert world.ask("client", "10.1.0.2", 80) == "front2 192.0.2.2"
    assert world.ask("client", "fd00:1::2", 80) == "front2 2001:db8::2"
    assert world.ask("apart2", "10.1.0.2", 80) == "front2 10.1.0.1"
    world.check([("client", "10.1.0.2", 81, "tcp")], rule(world.host, IN_DIRECT.chain))


def mark_packets(world: World, mark: int) -> None:
    """Mark all packets in the administrator's chain: meta mark set."""
    value = attribute(1, mark.to_bytes(4, sys.byteorder))
    load = nested(1, string(1, "immediate"), nested(2, be32(1, 8), nested(2, value)))
    # NFTA_META_KEY: NFT_META_MARK, NFTA_META_SREG
    put = nested(1, string(1, "meta"), nested(2, be32(2, 3), be32(3, 8)))
    batch = Batch("cnm")
    batch.add_rule(USER, load, put)
    commit(world.host.nft, batch)


def test_marked_packets_are_let_in(world: World) -> None:
    probes = [
        ("client", address, port, "tcp")
        for address, port in (
            ("10.1.0.2", 80),
            ("fd00:1::2", 81),
            ("10.2.0.2", 80),
            ("10.4.0.2", 80),
        )
    ]
    world.replace(2, "apart", direct=True)
    mark_packets(world, 0x1234)
    assert world.blocked(*probes)

    world.firewall = Firewall("cnm", (0x30, 0xF0))
    for number, name in enumerate(world.bridges, 1):
        world.firewall.update(world.host, add=rules(number, name).elements())
    world.replace(2, "apart", direct=True)
    world.firewall.rebuild(world.host)

    for probe in probes:
        assert world.ask(*probe)
    closed = rule(world.host, DROP_INTERNAL.chain)
    world.check([("client", "10.3.0.2", 80, "tcp")], closed)

    world.firewall = Firewall("cnm", (0x40, 0xF0))
    for number, name in enumerate(world.bridges, 1):
        world.firewall.update(world.host, add=rules(number, name).elements())
    world.firewall.rebuild(world.host)
    assert world.blocked(*probes)


def query(client: socket) -> str:
    client.send(b"?")
    try:
        return client.recv(100).decode()
    except TimeoutError:
        return ""


@pytest.mark.parametrize(
    "policy",
    [
        Element(POLICY4, ("front", IPv4Address("10.1.0.3")), DROP),
        Element(POLICY6, ("front", IPv6Address("fd00:1::3")), DROP),
    ],
    ids=["ipv4", "ipv6"],
)
def test_policies_are_asked_before_the_rest(world: World, policy: Element) -> None:
    version = policy.key[1].version  # type: ignore[union-attr]
    outside = {4: "192.0.2.2", 6: "2001:db8::2"}
    host = {4: "192.0.2.1", 6: "2001:db8::1"}
    assert world.ask("front3", outside[version], 99) == f"client {host[version]}"

    world.firewall.update(world.host, add=[policy])

    assert world.blocked(("front3", outside[version], 99, "tcp"))
    other = 10 - version
    assert world.ask("front3", outside[other], 99) == f"client {host[other]}"
    assert world.ask("front2", outside[version], 99) == f"client {host[version]}"


def test_policies_leave_established_connections_alone(world: World) -> None:
    policy = Element(POLICY4, ("front", IPv4Address("10.1.0.3")), DROP)
    with (
        world.boxes["front3"].socket(AF_INET, SOCK_DGRAM) as old,
        world.boxes["front3"].socket(AF_INET, SOCK_DGRAM) as new,
    ):
        old.settimeout(PATIENCE)
        new.settimeout(BLOCKED_AFTER)
        for client in (old, new):
            client.connect(("192.0.2.2", 53))
        assert query(old) == "client 192.0.2.1"
        world.firewall.update(world.host, add=[policy])
        assert query(old) == "client 192.0.2.1"
        assert query(new) == ""


def dropped(world: World, chain: str) -> int:
    """Return how many packets the last rule of a chain has counted."""
    last = list_rules(world.host.nft, "cnm", chain)[-1]
    expressions = attributes(last.body)[4]
    for _, expression in attribute_list(expressions):
        parts = attributes(expression)
        if parts[1] == b"counter\0":
            return int.from_bytes(attributes(parts[2])[2], "big")
    raise AssertionError(f"the last rule of {chain} counts nothing")


@pytest.mark.skipif(
    not os.path.exists("/proc/sys/net/bridge"),
    reason="without br_netfilter, what stays on a bridge does not come by",
)
@pytest.mark.parametrize("world", [True], indirect=True)
def test_what_is_dropped_is_counted(world: World) -> None:
    world.replace(1, "front", direct=True)
    world.replace(2, "apart", trusted=("lan0",), icc=False)
    world.firewall.update(world.host, add=[Element(CLOSED, ("ipv4",))])
    # so that it is up to the firewall
    world.host.route.call(set_bridge_port(world.ports["apart2"], isolated=False))
    with world.lan():
        for chain, probe in (
            (DROP_ICC.chain, ("apart2", "10.2.0.3", 80, "tcp")),
            (IN_DIRECT.chain, ("client", "10.1.0.2", 81, "tcp")),
            (IN_NAT.chain, ("client", "10.2.0.2", 80, "tcp")),
            (IN_DIRECT.chain, ("lan", "10.2.0.2", 80, "tcp")),
            (IN_ROUTED.chain, ("client", "10.4.0.2", 80, "tcp")),
            (DROP_INTERNAL.chain, ("client", "10.3.0.2", 80, "tcp")),
            (DROP_INTERNAL.chain, ("inner2", "192.0.2.2", 99, "tcp")),
            ("forward", ("lan", "192.0.2.2", 99, "tcp")),
        ):
            before = dropped(world, chain)
            assert world.blocked(probe)
            assert dropped(world, chain) > before, probe
