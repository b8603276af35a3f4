"""What blocks traffic: each barrier by itself, and nothing else; real traffic.

With and without br_netfilter, which has the forward chain see what stays on a bridge.
"""

from __future__ import annotations

import os
from ipaddress import ip_address, ip_network

import pytest

from cnm.firewall import Element
from cnm.firewall.ruleset import (
    ANY4,
    ANY6,
    DROP_ICC,
    DROP_INTERNAL,
    ENTERING4,
    ENTERING6,
    IN_DIRECT,
    IN_NAT,
    IN_ROUTED,
    LEAVING,
    SAME,
)
from cnm.linux import set_ipv4_configuration
from cnm.linux.nftables import Verdict
from tests.integration.barriers import (
    Barrier,
    entries,
    isolation,
    no_routes,
    rule,
    without,
)

from .intruder import Letterbox, send, send_spoofed
from .world import Probe, World, route_loopback

needs_br_netfilter = pytest.mark.skipif(
    not os.path.exists("/proc/sys/net/bridge"), reason="needs br_netfilter"
)
FILTERED = pytest.param(True, marks=needs_br_netfilter, id="br_netfilter")
UNFILTERED = pytest.param(False, id="no br_netfilter")
both_ways = pytest.mark.parametrize("world", [UNFILTERED, FILTERED], indirect=True)

CLIENT = ("192.0.2.2", "2001:db8::2")


def box(number: int, last: int = 2) -> tuple[str, str]:
    """Return the addresses of a container."""
    return f"10.{number}.0.{last}", f"fd00:{number}::{last}"


def probes(where: str, to: tuple[str, str], tcp: int = 80) -> list[Probe]:
    return [
        (where, address, port, proto)
        for address in to
        for proto, port in (("tcp", tcp), ("udp", 53), ("icmp", 0))
    ]


def without_icmp(probes: list[Probe]) -> list[Probe]:
    return [probe for probe in probes if probe[3] != "icmp"]


def entering(world: World, name: str, verdict: Verdict) -> Barrier:
    key = (name,)
    elements = [Element(entry, key, verdict) for entry in (ENTERING4, ENTERING6)]
    return entries(world.host, *elements)


def leaving(world: World, name: str) -> Barrier:
    return entries(world.host, Element(LEAVING, (name,), DROP_INTERNAL))


@both_ways
def test_from_one_network_to_another(world: World) -> None:
    wanted = probes("front2", box(2))
    world.check(wanted, entering(world, "apart", IN_NAT))
    world.check(wanted, rule(world.host, IN_NAT.chain))

    world.replace(2, "apart", direct=True)

    world.check(wanted, entering(world, "apart", IN_DIRECT))
    world.check(wanted, rule(world.host, IN_DIRECT.chain))


@both_ways
def test_gateways_of_other_networks_are_addresses_of_the_host(world: World) -> None:
    """Which answers its containers, whichever of its addresses they ask."""
    for gateway in ("10.2.0.1", "fd00:2::1"):
        assert world.ask("front2", gateway, 99).startswith("host ")
        assert world.ask("front2", gateway, 0, "icmp") == "echo"


@both_ways
def test_into_a_routed_network(world: World) -> None:
    wanted = without_icmp(probes("front2", box(4)))
    wanted += without_icmp(probes("client", box(4)))
    world.check(wanted, entering(world, "routed", IN_ROUTED))
    world.check(wanted, rule(world.host, IN_ROUTED.chain))
    # that is what it is for, besides exposed ports
    for where in ("front2", "client"):
        assert [world.ask(where, to, 0, "icmp") for to in box(4)] == ["echo", "echo"]


@both_ways
def test_into_an_isolated_network_and_by_a_family_that_it_does_not_have(
    world: World,
) -> None:
    world.replace(2, "apart", mode4="isolated", mode6=None)
    wanted = probes("client", box(2))
    world.check(wanted, entering(world, "apart", DROP_INTERNAL))
    world.check(wanted, rule(world.host, DROP_INTERNAL.chain))


@both_ways
def test_from_outside(world: World) -> None:
    wanted = probes("client", box(1))
    world.check(wanted, entering(world, "front", IN_NAT))
    world.check(wanted, rule(world.host, IN_NAT.chain))


@both_ways
def test_out_of_an_internal_network(world: World) -> None:
    wanted = probes("inner2", CLIENT, 99)
    world.check(wanted, leaving(world, "inner"))
    world.check(wanted, rule(world.host, DROP_INTERNAL.chain))


@both_ways
def test_from_an_internal_network_to_another(world: World) -> None:
    wanted = probes("inner2", box(1))
    world.check(wanted, leaving(world, "inner"), entering(world, "front", IN_NAT))


@both_ways
def test_from_an_internal_network_to_published_ports(world: World) -> None:
    published = [
        Element(of, (proto, 8080), (ip_address(address), port))
        for of, address in zip((ANY4, ANY6), box(1), strict=True)
        for proto, port in (("tcp", 80), ("udp", 53))
    ]
    world.firewall.update(world.host, add=published)
    wanted: list[Probe] = [
        ("inner2", address, 8080, proto)
        for address in ("10.3.0.1", "192.0.2.1", "fd00:3::1", "2001:db8::1")
        for proto in ("tcp", "udp")
    ]
    world.check(wanted, leaving(world, "inner"))


@both_ways
def test_into_an_internal_network(world: World) -> None:
    wanted = probes("client", box(3)) + probes("front2", box(3))
    # the answers would not get out
    shut = leaving(world, "inner")
    world.check(wanted, entering(world, "inner", DROP_INTERNAL), shut)
    world.check(wanted, rule(world.host, DROP_INTERNAL.chain))


def icc(world: World) -> tuple[Barrier, Barrier]:
    """Return what the forward chain has against packets back to their own bridge."""
    same = Element(SAME, ("apart", "apart"), DROP_ICC)
    return entries(world.host, same), entering(world, "apart", IN_NAT)


def test_on_a_bridge_that_is_not_filtered(world: World) -> None:
    for name in ("apart2", "apart3"):
        isolated = isolation(world.host, world.ports[name])
        world.check(probes("apart2", box(2, 3)), isolated)


@needs_br_netfilter
@pytest.mark.parametrize("world", [True], indirect=True)
def test_on_a_bridge_that_is_filtered(world: World) -> None:
    isolated = isolation(world.host, world.ports["apart2"])
    world.check(probes("apart2", box(2, 3)), isolated, *icc(world))


def route_by_gateway(world: World) -> None:
    """Have containers of a network reach each other by way of the host."""
    gateways = ip_address("10.2.0.1"), ip_address("fd00:2::1")
    for name, to in (("apart2", box(2, 3)), ("apart3", box(2, 2))):
        where = world.boxes[name]
        for version in ("ipv4", "ipv6"):
            for scope in ("all", "eth0"):
                # the host tells them that there is a way without it
                where.sysctl(f"net.{version}.conf.{scope}.accept_redirects", "0")
        routes = zip(map(ip_network, to), gateways, strict=True)
        no_routes(where, *routes).open()


def test_back_to_the_same_bridge_by_way_of_the_host(world: World) -> None:
    """Which the isolation of ports has nothing against."""
    route_by_gateway(world)
    world.check(probes("apart2", box(2, 3)), *icc(world))


@needs_br_netfilter
@pytest.mark.parametrize("world", [True], indirect=True)
def test_back_to_a_bridge_that_is_filtered(world: World) -> None:
    """Answers, which br_netfilter translates on the bridge, do not leave it."""
    route_by_gateway(world)
    isolated = isolation(world.host, world.ports["apart2"])
    world.check(probes("apart2", box(2, 3)), isolated, *icc(world))


def to_loopback(world: World) -> Barrier:
    return rule(world.host, "guard", 0)


def from_loopback(world: World) -> Barrier:
    return rule(world.host, "guard", 1)


@both_ways
def test_the_hosts_loopback_is_guarded(world: World) -> None:
    intruder = world.boxes["front3"]
    route_loopback(intruder, "10.1.0.1")
    with Letterbox(world.host) as letterbox:

        def from_whom() -> str:
            send(intruder, "127.0.0.1")
            return letterbox.source()

        assert from_whom() == ""
        with without(from_loopback(world)):
            assert from_whom() == ""
        with without(to_loopback(world)):
            assert from_whom() == "10.1.0.3"


@both_ways
@pytest.mark.parametrize("to", ["10.1.0.1", "192.0.2.1"])
def test_nobody_sends_as_the_hosts_loopback(world: World, to: str) -> None:
    """Not 127.0.0.1, an address that the kernel sees to itself."""
    intruder = world.boxes["front3"]
    trust_sources(world)
    with Letterbox(world.host) as letterbox:

        def from_whom() -> str:
            send_spoofed(intruder, "127.0.0.2", to)
            return letterbox.source()

        # the gateway's MAC address is not found out under a false name
        send(intruder, to)
        assert letterbox.source() == "10.1.0.3"
        assert from_whom() == ""
        with without(to_loopback(world)):
            assert from_whom() == ""
        with without(from_loopback(world)):
            assert from_whom() == "127.0.0.2"


def trust_sources(world: World) -> None:
    """Have the kernel not ask whether sources of packets are where they come from."""
    world.host.sysctl("net.ipv4.conf.all.rp_filter", "0")
    setting = set_ipv4_configuration(world.bridges["front"], rp_filter=0)
    world.host.route.call(setting)
