"""Forgetting connections, with real traffic.

A host with a network of two containers behind NAT, and a client outside.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from struct import Struct
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeAlias, TypeVar, cast

import pytest

from cnm.errors import MissingFeature, NetlinkError
from cnm.firewall import Element, Firewall, NetworkRules
from cnm.firewall.ruleset import ANY4, ANY6, PROXIED, PROXY
from cnm.linux import (
    NetlinkSocket,
    Request,
    forget,
    forget_addresses,
    forget_ports,
    original_destination,
    sysctl,
)
from cnm.linux.wire import attributes
from tests.integration.lab import PATIENCE, Namespace, Servers, ask, make_router

if TYPE_CHECKING:
    from cnm.linux import Sockets
    from cnm.types import IPAddress, Proto

    Port: TypeAlias = tuple[Proto, IPAddress | None, int]

P = ParamSpec("P")
T = TypeVar("T")

FIRST4, FIRST6 = IPv4Address("10.1.0.2"), IPv6Address("fd00:1::2")
SECOND4, SECOND6 = IPv4Address("10.1.0.3"), IPv6Address("fd00:1::3")
HOST4, HOST6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")
CLIENT4, CLIENT6 = IPv4Address("192.0.2.2"), IPv6Address("2001:db8::2")
NUMBERS = {6: "tcp", 17: "udp", 132: "sctp"}
INIT = Struct(">HHIIBBHIIHHI")

RULES = NetworkRules(
    interface="front",
    subnets4=(IPv4Network("10.1.0.0/24"),),
    subnets6=(IPv6Network("fd00:1::/64"),),
    mode6="nat",
)


class Host(Namespace):
    """The host; its client and its containers, with servers on tcp/80 and udp/53."""

    def __init__(self) -> None:
        super().__init__("host")
        self.client, self.first, self.second = map(
            Namespace, ("client", "first", "second")
        )
        self.firewall = Firewall("cnm")

    def plan(
        self, plan: Callable[Concatenate[Sockets, P], T], *args: P.args, **kw: P.kwargs
    ) -> T:
        return self.run(lambda: plan(cast("Sockets", self), *args, **kw))

    def publish(self, *elements: Element, remove: tuple[Element, ...] = ()) -> None:
        self.firewall.update(self, add=elements, remove=remove)

    def connections(self) -> set[tuple[str, str, str, int]]:
        """Return protocol, original source and destination, and port."""
        found = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            header = bytes((family, 0, 0, 0))
            listing = Request(1 << 8 | 1, 0, header, "list connections")
            for message in self.nft.dump(listing):
                parts = attributes(attributes(message.body, 4)[1])
                ports = attributes(parts[2])
                if ports[1][0] not in NUMBERS:
                    continue
                source, destination = attributes(parts[1]).values()
                ends = str(ip_address(source)), str(ip_address(destination))
                port = int.from_bytes(ports[3], "big")
                found.add((NUMBERS[ports[1][0]], *ends, port))
        return found


@pytest.fixture
def host() -> Iterator[Host]:
    with ExitStack() as stack:
        host = stack.enter_context(Host())
        servers = Servers()
        stack.callback(servers.close)
        make_router(host)
        outside, _ = host.connect(host.client, "out0", f"{CLIENT4}/24", f"{CLIENT6}/64")
        host.add_addresses(outside, f"{HOST4}/24", f"{HOST6}/64")
        bridge = host.add_bridge("front", "10.1.0.1/24", "fd00:1::1/64")
        for box, last in ((host.first, 2), (host.second, 3)):
            addresses = (f"10.1.0.{last}/24", f"fd00:1::{last}/64")
            host.connect(box, f"v-{box.name}", *addresses, master=bridge)
            box.add_default_routes("10.1.0.1", "fd00:1::1")
        for box in (host, host.client, host.first, host.second):
            if box is not host:
                stack.enter_context(box)
            servers.add(box, 80)
            servers.add(box, 53, "udp")
        host.firewall.update(host, add=RULES.elements())
        host.firewall.rebuild(host)
        yield host


def apart(host: Host, addresses: Sequence[IPAddress], ports: Sequence[Port]) -> None:
    """Forget, with as many walks through the table as there are kinds."""
    host.plan(forget_addresses, *addresses)
    host.plan(forget_ports, ports)


def together(host: Host, addresses: Sequence[IPAddress], ports: Sequence[Port]) -> None:
    """Forget, with one walk."""
    host.plan(forget, addresses, ports)


Way: TypeAlias = "Callable[[Host, Sequence[IPAddress], Sequence[Port]], None]"
BOTH_WAYS = pytest.mark.parametrize("way", [apart, together])


@BOTH_WAYS
def test_addresses(host: Host, way: Way) -> None:
    host.publish(
        Element(ANY4, ("tcp", 8080), (FIRST4, 80)),
        Element(ANY4, ("tcp", 8081), (SECOND4, 80)),
        Element(ANY6, ("udp", 5353), (FIRST6, 53)),
        Element(ANY6, ("udp", 5354), (SECOND6, 53)),
    )
    for where, address, port, proto in (
        # masqueraded, translated, and neither
        (host.first, CLIENT4, 80, "tcp"),
        (host.second, CLIENT4, 80, "tcp"),
        (host.first, CLIENT6, 53, "udp"),
        (host.second, CLIENT6, 53, "udp"),
        (host.client, HOST4, 8080, "tcp"),
        (host.client, HOST4, 8081, "tcp"),
        (host.client, HOST6, 5353, "udp"),
        (host.client, HOST6, 5354, "udp"),
        (host, FIRST4, 53, "udp"),
        (host, SECOND6, 80, "tcp"),
    ):
        assert ask(where, str(address), port, proto), (where.name, address, port)
    assert len(host.connections()) == 10

    way(host, [FIRST4, FIRST6], [])

    assert host.connections() == {
        ("tcp", str(SECOND4), str(CLIENT4), 80),
        ("udp", str(SECOND6), str(CLIENT6), 53),
        ("tcp", str(CLIENT4), str(HOST4), 8081),
        ("udp", str(CLIENT6), str(HOST6), 5354),
        ("tcp", "fd00:1::1", str(SECOND6), 80),
    }
    way(host, [SECOND4], [])
    assert len(host.connections()) == 3
    way(host, [], [])
    way(host, [SECOND4], [])
    assert len(host.connections()) == 3


def query(client: socket.socket) -> str:
    """Return the name of who answers, ``""`` if nobody listens."""
    with suppress(ConnectionRefusedError):
        client.send(b"?")
        return client.recv(100).decode().split()[0]
    return ""


def udp(where: Namespace, address: IPAddress, port: int) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    client = where.socket(family, socket.SOCK_DGRAM)
    client.settimeout(PATIENCE)
    client.connect((str(address), port))
    return client


@pytest.mark.parametrize(
    ("at", "of", "first", "second"),
    [(HOST4, ANY4, FIRST4, SECOND4), (HOST6, ANY6, FIRST6, SECOND6)],
    ids=["ipv4", "ipv6"],
)
def test_ports_that_go_and_come(
    host: Host, at: IPAddress, of: object, first: IPAddress, second: IPAddress
) -> None:
    of = ANY4 if at.version == 4 else ANY6
    old = Element(of, ("udp", 5353), (first, 53))
    new = Element(of, ("udp", 5353), (second, 53))
    anywhere = ip_address(bytes(len(at.packed)))
    with udp(host.client, at, 5353) as client:
        # it was there before the port was published
        assert query(client) == ""
        host.publish(old)
        assert query(client) == ""
        host.plan(forget_ports, [("udp", anywhere, 5353)])
        assert query(client) == "first"

        host.publish(new, remove=(old,))
        assert query(client) == "first"
        host.plan(forget_ports, [("udp", at, 5353)])
        assert query(client) == "second"


FEW: list[Port] = []
MANY: list[Port] = [
    (proto, None, port) for proto in ("tcp", "udp") for port in range(20000, 20100)
]


@BOTH_WAYS
@pytest.mark.parametrize("others", [FEW, MANY], ids=["few", "many"])
def test_only_ports_of_the_host_are_forgotten(
    host: Host, others: list[Port], way: Way
) -> None:
    host.publish(
        Element(ANY4, ("tcp", 80), (FIRST4, 80)),
        Element(ANY6, ("tcp", 80), (FIRST6, 80)),
    )
    elsewhere = {
        ("tcp", str(FIRST4), str(CLIENT4), 80),
        ("tcp", str(HOST6), str(CLIENT6), 80),
        ("tcp", "10.1.0.1", str(SECOND4), 80),
    }
    other_kind = {
        ("udp", str(CLIENT4), str(HOST4), 53),
    }
    to_host4 = {
        ("tcp", str(CLIENT4), str(HOST4), 80),
        ("tcp", "127.0.0.1", "127.0.0.5", 80),
    }
    to_bridge = {("tcp", str(SECOND4), "10.1.0.1", 80)}
    to_host6 = {("tcp", str(CLIENT6), str(HOST6), 80)}

    def connect() -> None:
        for where, address, port, proto in (
            (host.first, CLIENT4, 80, "tcp"),
            (host, CLIENT6, 80, "tcp"),
            (host, SECOND4, 80, "tcp"),
            (host.client, HOST4, 53, "udp"),
            (host.client, HOST4, 80, "tcp"),
            (host, "127.0.0.5", 80, "tcp"),
            (host.second, "10.1.0.1", 80, "tcp"),
            (host.client, HOST6, 80, "tcp"),
        ):
            ask(where, str(address), port, proto)

    everything = elsewhere | other_kind | to_host4 | to_bridge | to_host6
    host.sysctl("net.ipv4.conf.front.route_localnet", "1")
    cases: list[tuple[list[Port], set[tuple[str, str, str, int]]]] = [
        ([("tcp", IPv4Address("0.0.0.0"), 80)], elsewhere | other_kind | to_host6),
        ([("tcp", None, 80)], elsewhere | other_kind),
        ([("tcp", IPv4Address("10.1.0.1"), 80)], everything - to_bridge),
        ([("tcp", IPv6Address("::"), 80)], everything - to_host6),
        ([("tcp", HOST6, 80), ("udp", HOST4, 53)], everything - to_host6 - other_kind),
        ([("tcp", None, 81)], everything),
    ]
    for ports, left in cases:
        connect()
        assert host.connections() == everything
        way(host, [], ports + others)
        assert host.connections() == left, ports


def sctp_init(host: Host, port: int) -> None:
    """Begin an SCTP association; the kernel need not have SCTP sockets."""
    chunk = (1, 0, 20, 0x1234, 1500, 1, 1, 0)
    packet = INIT.pack(7777, port, 0, 0, *chunk)
    with host.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)) as raw:
        raw.sendto(packet, (str(HOST4), 0))


def test_ports_of_sctp_are_told_apart(host: Host) -> None:
    for port in (8001, 8002):
        sctp_init(host, port)
    known = {("sctp", str(HOST4), str(HOST4), port) for port in (8001, 8002)}
    assert host.connections() == known
    host.plan(forget_ports, [("sctp", HOST4, 8001)])
    assert host.connections() == known - {("sctp", str(HOST4), str(HOST4), 8001)}


@BOTH_WAYS
def test_thousands_of_connections(host: Host, way: Way) -> None:
    ports = range(20000, 23000)
    with host.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for port in ports:
            client.sendto(b"?", (str(HOST4), port))
    assert len(host.connections()) == len(ports)
    way(host, [], [("udp", IPv4Address("0.0.0.0"), it) for it in ports[1:]])
    assert host.connections() == {("udp", str(CLIENT4), str(HOST4), 20000)}


def test_where_a_translated_packet_was_sent(host: Host) -> None:
    loopback = IPv6Address("::1")
    host.publish(
        Element(ANY4, ("udp", 5353), (FIRST4, 53)),
        Element(PROXIED, ("udp", 8080)),
        Element(PROXY, ("udp",), (53,)),
    )
    for where, at, port, local in (
        (host.client, HOST4, 5353, (FIRST4, 53)),
        (host, loopback, 8080, (loopback, 53)),
        (host.client, HOST6, 53, (HOST6, 53)),
    ):
        with udp(where, at, port) as client:
            own = client.getsockname()
            source = (ip_address(own[0]), own[1])
            before = host.plan(original_destination, "udp", source, local)
            assert before is None
            assert query(client)
            found = host.plan(original_destination, "udp", source, local)
            assert found == (at, port)
            assert host.plan(original_destination, "tcp", source, local) is None


@pytest.mark.parametrize(
    ("code", "kind", "match"),
    [
        (errno.EINVAL, MissingFeature, "CONFIG_NF_CT_NETLINK"),
        (errno.ENOMEM, NetlinkError, "Cannot allocate memory"),
    ],
)
def test_refusals(
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    kind: type[Exception],
    match: str,
) -> None:
    def refuse(_: NetlinkSocket, request: Request, *__: Request) -> None:
        raise NetlinkError(code, request.what)

    assert ask(host.client, str(HOST4), 80)
    monkeypatch.setattr(NetlinkSocket, "call", refuse)
    monkeypatch.setattr(NetlinkSocket, "dump", refuse)
    with pytest.raises(kind, match=match):
        host.plan(forget_addresses, FIRST4)
    with pytest.raises(kind, match=match):
        host.plan(forget_addresses, FIRST6)
    with pytest.raises(kind, match=match):
        host.plan(forget_ports, [("tcp", HOST4, 80)])


def test_without_connections_the_kernel_is_not_asked() -> None:
    class Unused:
        @property
        def nft(self) -> NetlinkSocket:
            pytest.fail("it wants to talk to the kernel")

    with Namespace() as empty:
        assert empty.run(lambda: sysctl.read("net.netfilter.nf_conntrack_count")) == "0"
        sockets = cast("Sockets", Unused())
        empty.run(lambda: forget_addresses(sockets, FIRST4))
        empty.run(lambda: forget_ports(sockets, [("tcp", None, 80)]))
