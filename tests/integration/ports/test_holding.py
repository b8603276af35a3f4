"""The sockets that hold ports."""

from __future__ import annotations

import errno
import itertools
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import pytest

from cnm.errors import UnavailableError
from cnm.ports.holding import LOOSE, PER_LOT, PER_MESSAGE, Holding
from cnm.ports.places import HostPort
from cnm.ports.sockets import has_address, hold
from tests.integration.lab import Namespace

from .world import descriptors

OPTIONS = list(itertools.product((0, 1), repeat=3))
# with SO_REUSEADDR, SO_REUSEPORT; the protocol; whether it listens
OTHERS = [
    *((reuse, share, "udp", False) for reuse, share, _ in OPTIONS[::2]),
    *((reuse, share, "tcp", True) for reuse, share, _ in OPTIONS[::2]),
    *((0, share, "tcp", False) for share in (0, 1)),
]


@pytest.fixture
def host() -> Iterator[Namespace]:
    with Namespace("host") as host:
        yield host


def place(address: str = "0.0.0.0", port: int = 8080, proto: Any = "tcp") -> HostPort:
    return HostPort(ip_address(address), proto, port)


def taken(host: Namespace, where: HostPort) -> socket.socket:
    held = host.run(lambda: hold(where))
    assert held is not None
    return held


def bind(
    host: Namespace, where: HostPort, reuse: int = 0, share: int = 0, only6: int = 1
) -> str:
    """Have another program take a port and use it; return the name of the error."""
    kind = socket.SOCK_STREAM if where.proto == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET if where.address.version == 4 else socket.AF_INET6
    with host.socket(family, kind) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
        if family == socket.AF_INET6:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only6)
        try:
            other.bind((str(where.address), where.port))
            if where.proto == "tcp":
                other.listen()
        except OSError as exc:
            return errno.errorcode[exc.errno or 0]
    return ""


@pytest.mark.parametrize("proto", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("held_at", "addresses"),
    [
        ("0.0.0.0", ["0.0.0.0", "127.0.0.1"]),
        ("127.0.0.1", ["0.0.0.0", "127.0.0.1"]),
        ("::", ["::", "::1"]),
        ("::1", ["::", "::1"]),
    ],
)
def test_nobody_else_can_take_a_held_port(
    host: Namespace, proto: str, held_at: str, addresses: list[str]
) -> None:
    with taken(host, place(held_at, proto=proto)):
        for address in addresses:
            other = place(address, proto=proto)
            assert {bind(host, other, *it) for it in OPTIONS} == {"EADDRINUSE"}
    for address in addresses:
        other = place(address, proto=proto)
        assert {bind(host, other, *it) for it in OPTIONS} == {""}


def test_a_socket_for_both_families_cannot_take_a_held_ipv4_port(
    host: Namespace,
) -> None:
    with taken(host, place("0.0.0.0")):
        assert bind(host, place("::"), only6=0) == "EADDRINUSE"
        assert bind(host, place("::"), only6=1) == ""


@pytest.mark.parametrize(("reuse", "share", "proto", "listens"), OTHERS)
def test_a_port_that_somebody_has_cannot_be_held(
    host: Namespace, reuse: int, share: int, proto: str, listens: bool
) -> None:
    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
    with host.socket(socket.AF_INET, kind) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
        other.bind(("", 8080))
        if listens:
            other.listen()
        with pytest.raises(OSError, match="in use"):
            taken(host, place(proto=proto))
    taken(host, place(proto=proto)).close()


def test_who_listens_first_has_a_port(host: Namespace) -> None:
    """A server that has said ``SO_REUSEADDR`` has nothing before it listens."""
    with host.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("", 8080))
        with taken(host, place()):
            with pytest.raises(OSError, match="in use"):
                other.listen()
            assert bind(host, place(), reuse=1) == "EADDRINUSE"


def test_nobody_is_accepted_and_nobody_waits(host: Namespace) -> None:
    with taken(host, place()):
        client = host.socket(socket.AF_INET, socket.SOCK_STREAM)
        with client, pytest.raises(ConnectionRefusedError):
            client.connect(("127.0.0.1", 8080))


def waiting(held: socket.socket, client: socket.socket, address: str) -> int:
    """Send many datagrams to a socket; return how many it keeps."""
    for _ in range(200):
        client.sendto(b"x" * 1000, (address, 8080))
    held.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while held.recv(2000):
            count += 1
    return count


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_datagrams_do_not_pile_up(host: Namespace, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with host.socket(family, socket.SOCK_DGRAM) as client:
        with taken(host, place(address, proto="udp")) as held:
            assert waiting(held, client, address) < 10
        with host.socket(family, socket.SOCK_DGRAM) as other:
            other.bind((address, 8080))
            assert waiting(other, client, address) > 50


def test_a_port_is_taken_from_connections_in_time_wait(host: Namespace) -> None:
    with host.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", 8080))
        server.listen()
        with host.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.connect(("127.0.0.1", 8080))
            accepted, _ = server.accept()
            accepted.close()
            assert client.recv(1) == b""
    # whoever does not know how cannot have it
    assert bind(host, place()) == "EADDRINUSE"
    with taken(host, place()):
        assert bind(host, place(), reuse=1) == "EADDRINUSE"


@pytest.mark.parametrize("proto", ["tcp", "udp", "sctp"])
@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_an_address_that_the_host_does_not_have(
    host: Namespace, proto: str, address: str
) -> None:
    with pytest.raises(OSError, match="assign requested address"):
        host.run(lambda: hold(place(address, proto=proto)))
    assert not host.run(lambda: has_address(ip_address(address)))
    assert host.run(lambda: has_address(ip_address("127.0.0.1")))
    assert host.run(lambda: has_address(ip_address("::1")))


def test_a_protocol_that_the_kernel_lacks_needs_no_socket(host: Namespace) -> None:
    held = host.run(lambda: hold(place(proto="sctp")))
    if held is not None:  # then it is a socket like any other
        with held:
            assert held.getsockname() == ("0.0.0.0", 8080)


def test_few_sockets_stay_as_they_are(host: Namespace) -> None:
    holding = Holding()
    before = descriptors()
    for port in range(LOOSE):
        holding.add((place(port=8000 + port),), taken(host, place(port=8000 + port)))
    holding.park()
    assert descriptors() - before == LOOSE
    holding.release([place(port=8003), place(port=9000)])
    assert bind(host, place(port=8003)) == ""
    assert bind(host, place(port=8004)) == "EADDRINUSE"
    holding.close()
    assert descriptors() == before


def many(host: Namespace, ports: range) -> Holding:
    holding = Holding()

    def take() -> None:
        for port in ports:
            held = hold(place(port=port))
            assert held is not None
            holding.add((place(port=port),), held)
        holding.park()

    host.run(take)
    assert len(holding) == len(ports)
    return holding


COUNT = 2 * PER_LOT * PER_MESSAGE + PER_MESSAGE + 50


def held_ports(host: Namespace, ports: range) -> list[int]:
    def look() -> list[int]:
        found = []
        for port in ports:
            with socket.socket() as probe:
                try:
                    probe.bind(("", port))
                except OSError:
                    found.append(port)
        return found

    return host.run(look)


@pytest.mark.parametrize("step", [1, 2, 7, 100, 333, 5000])
def test_some_of_many_sockets_are_released(host: Namespace, step: int) -> None:
    before = descriptors()
    ports = range(10_000, 10_000 + COUNT)
    holding = many(host, ports)
    assert descriptors() - before == 6
    gone = ports[::step]
    for _ in range(2):
        holding.release([place(port=port) for port in gone])
        assert held_ports(host, ports) == [it for it in ports if it not in gone]
    assert len(holding) == COUNT - len(gone)
    assert descriptors() - before <= 6
    holding.close()
    assert held_ports(host, ports) == []
    assert descriptors() == before


def test_holdings_are_put_together(host: Namespace) -> None:
    before = descriptors()
    holding, other = many(host, range(8000, 8300)), many(host, range(9000, 9005))
    holding.absorb(other)
    other.close()
    assert len(holding) == 305
    assert len(held_ports(host, range(8000, 9005))) == 305
    holding.release([place(port=port) for port in range(8000, 9003)])
    assert held_ports(host, range(8000, 9005)) == [9003, 9004]
    holding.close()
    assert descriptors() == before


def test_sockets_that_are_in_use_are_not_parked(host: Namespace) -> None:
    holding = Holding(parks=False)
    for port in range(8000, 8300):
        holding.add((place(port=port),), taken(host, place(port=port)))
    before = descriptors()
    holding.park()
    assert descriptors() == before
    handed = holding.hand_over()
    holding.close()
    assert len(held_ports(host, range(8000, 8300))) == 300
    for held in handed.values():
        held.close()


def test_no_socket_is_lost_when_file_descriptors_run_out(host: Namespace) -> None:
    ports = range(10_000, 10_600)
    holding = many(host, ports)
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = descriptors() + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, old[1]))
    try:
        before = descriptors()
        with pytest.raises(UnavailableError, match=f"ulimit -n is {limit}"):
            holding.release([place(port=10_500)])
        assert descriptors() == before
        # without receiving any
        assert held_ports(host, range(10_490, 10_510)) == list(range(10_490, 10_510))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)
    holding.release([place(port=10_500)])
    assert held_ports(host, ports) == [it for it in ports if it != 10_500]
    holding.close()
