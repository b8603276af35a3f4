"""Networks behind a firewall table, with real traffic.

A host with four networks of two containers each, and a client outside that has direct
routes to all of them: front (nat), apart (nat, icc off), inner (internal) and routed.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from socket import AF_INET, SOCK_DGRAM
from typing import TYPE_CHECKING

import pytest

from cnm.firewall import Element, Firewall, Mode, NetworkRules
from cnm.firewall.ruleset import (
    ANY4,
    BRIDGES,
    CLOSED,
    LB4,
    OPEN4,
    OPEN6,
    PUB4,
    RANGE4,
    RANGE6,
    SLOTS,
    USER,
)
from cnm.linux import (
    Request,
    add_route,
    set_bridge_port,
    set_ipv4_configuration,
)
from cnm.linux.nftables import DROP, Batch, commit, expressions as ex
from cnm.linux.wire import ROUTE, attribute
from tests.integration.lab import BLOCKED_AFTER, Namespace, Servers, ask, make_router

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORKS = ("front", "apart", "inner", "routed")


def rules(number: int, name: str) -> NetworkRules:
    mode: Mode = "routed" if name == "routed" else "nat"
    return NetworkRules(
        interface=name,
        subnets4=(IPv4Network(f"10.{number}.0.0/24"),),
        subnets6=(IPv6Network(f"fd00:{number}::/64"),),
        internal=name == "inner",
        icc=name != "apart",
        mode4=mode,
        mode6=mode,
    )


@dataclass
class World:
    host: Namespace
    client: Namespace
    firewall: Firewall = field(default_factory=lambda: Firewall("cnm"))
    boxes: dict[str, Namespace] = field(default_factory=dict)
    bridges: dict[str, int] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    def ask(self, where: str, address: str, port: int, proto: str = "tcp") -> str:
        return ask(self.boxes[where], address, port, proto)

    def blocked(self, *probes: tuple[str, str, int, str]) -> bool:
        """Whether none of the probes gets an answer; they are sent at once."""
        with ThreadPoolExecutor(len(probes)) as pool:
            answers = pool.map(
                lambda probe: ask(
                    self.boxes[probe[0]], *probe[1:], timeout=BLOCKED_AFTER
                ),
                probes,
            )
            return not any(answers)


@pytest.fixture(params=[False])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with ExitStack() as stack:
        host = stack.enter_context(Namespace("host"))
        client = stack.enter_context(Namespace("client"))
        world = World(host, client)
        world.boxes |= {"host": host, "client": client}
        servers = Servers()
        stack.callback(servers.close)
        make_router(host, filter_bridges=request.param)
        outside, _ = host.connect(client, "out0", "192.0.2.2/24", "2001:db8::2/64")
        host.add_addresses(outside, "192.0.2.1/24", "192.0.2.9/24", "2001:db8::1/64")
        client.add_default_routes("192.0.2.1", "2001:db8::1")
        for number, name in enumerate(NETWORKS, 1):
            bridge = world.bridges[name] = host.add_bridge(
                name, f"10.{number}.0.1/24", f"fd00:{number}::1/64"
            )
            host.route.call(set_ipv4_configuration(bridge, route_localnet=1))
            for last in (2, 3):
                box = stack.enter_context(Namespace(f"{name}{last}"))
                world.boxes[box.name] = box
                world.ports[box.name], _ = host.connect(
                    box,
                    f"v-{box.name}",
                    f"10.{number}.0.{last}/24",
                    f"fd00:{number}::{last}/64",
                    master=bridge,
                    isolated=name == "apart",
                )
                if request.param:
                    hairpin = set_bridge_port(world.ports[box.name], hairpin=True)
                    host.route.call(hairpin)
                box.add_default_routes(f"10.{number}.0.1", f"fd00:{number}::1")
                for port in (80, 81):
                    servers.add(box, port)
                servers.add(box, 53, "udp")
            world.firewall.update(host, add=rules(number, name).elements())
        world.firewall.rebuild(host)
        for box in (host, client):
            servers.add(box, 99)
            servers.add(box, 53, "udp")
        yield world


@pytest.mark.parametrize("world", [False, True], indirect=True)
def test_containers_of_a_network_reach_each_other(world: World) -> None:
    assert world.ask("front2", "10.1.0.3", 80) == "front3 10.1.0.2"
    assert world.ask("front2", "fd00:1::3", 80) == "front3 fd00:1::2"
    assert world.ask("inner2", "10.3.0.3", 80) == "inner3 10.3.0.2"


def test_without_icc_they_do_not(world: World) -> None:
    probes = (("apart2", "10.2.0.3", 80, "tcp"), ("apart2", "fd00:2::3", 80, "tcp"))
    assert world.blocked(*probes)

    world.host.route.call(set_bridge_port(world.ports["apart2"], isolated=False))

    assert world.ask("apart2", "10.2.0.3", 80) == "apart3 10.2.0.2"
    assert world.ask("apart2", "fd00:2::3", 80) == "apart3 fd00:2::2"


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
    old = rules(1, "front")
    new = NetworkRules(
        interface="front",
        subnets4=old.subnets4,
        subnets6=old.subnets6,
        mode6="nat",
        snat4=IPv4Address("192.0.2.9"),
    )
    world.firewall.update(world.host, remove=old.elements(), add=new.elements())
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
    assert world.blocked(("client", "10.4.0.2", 81, "tcp"))


def test_unprotected_networks_are_reached_directly(world: World) -> None:
    old = rules(1, "front")
    new = NetworkRules(
        interface="front",
        subnets4=old.subnets4,
        subnets6=old.subnets6,
        mode4="nat-unprotected",
        mode6="nat",
    )
    assert world.blocked(("client", "10.1.0.2", 80, "tcp"))

    world.firewall.update(world.host, remove=old.elements(), add=new.elements())

    assert world.ask("client", "10.1.0.2", 80) == "front2 192.0.2.2"
    assert world.ask("front2", "192.0.2.2", 99) == "client 192.0.2.1"
    assert world.blocked(("client", "fd00:1::2", 80, "tcp"))


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
    assert world.blocked(
        ("inner2", "10.3.0.1", 8080, "tcp"), ("client", "10.1.0.2", 80, "tcp")
    )

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


def knock(world: World) -> str:
    """Send to a service on the host's loopback, from a container; return its source."""
    host, box = world.host, world.boxes["front3"]
    with (
        host.socket(AF_INET, SOCK_DGRAM) as service,
        box.socket(AF_INET, SOCK_DGRAM) as intruder,
    ):
        service.bind(("127.0.0.1", 632))
        service.settimeout(BLOCKED_AFTER)
        intruder.bind(("10.1.0.3", 0))
        intruder.sendto(b"x", ("127.0.0.1", 632))
        try:
            return service.recvfrom(10)[1][0]  # type: ignore[no-any-return]
        except TimeoutError:
            return ""


def test_the_hosts_loopback_is_guarded(world: World) -> None:
    intruder = world.boxes["front3"]
    intruder.sysctl("net.ipv4.conf.eth0.route_localnet", "1")
    for address, prefix in (("127.0.0.1", 32), ("127.0.0.0", 8)):
        # its own loopback has to be out of the way: table 255 (local), scope nowhere
        body = ROUTE.pack(AF_INET, prefix, 0, 0, 255, 0, 255, 0, 0)
        body += attribute(1, IPv4Address(address).packed)
        intruder.route.call(Request(25, 0, body, f"delete local route {address}"))
    gateway = IPv4Address("10.1.0.1")
    intruder.route.call(add_route(IPv4Network("127.0.0.1/32"), via=gateway))
    assert knock(world) == ""

    world.firewall.update(world.host, remove=[Element(BRIDGES, ("front",))])

    assert knock(world) == "10.1.0.3"


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
    with Namespace("lan") as lan:
        world.boxes["lan"] = lan
        index, _ = world.host.connect(lan, "lan0", "198.51.100.2/24", "fd09::2/64")
        world.host.add_addresses(index, "198.51.100.1/24", "fd09::1/64")
        lan.add_default_routes("198.51.100.1", "fd09::1")
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
    assert world.blocked(("client", "10.1.0.2", 80, "tcp"))
    other.remove(world.host)
    assert world.blocked(("client", "10.1.0.2", 80, "tcp"))
