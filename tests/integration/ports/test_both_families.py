"""One socket that holds a port at all addresses of both families."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from cnm.ports.holding import LOOSE, PER_MESSAGE, Holding
from cnm.ports.places import HostPort
from cnm.ports.sockets import hold, hold_both, narrow
from tests.integration.lab import Namespace

from .world import descriptors

FAMILIES = {4: ("0.0.0.0", "127.0.0.1"), 6: ("::", "::1")}


@pytest.fixture
def host() -> Iterator[Namespace]:
    with Namespace("host") as host:
        yield host


def both(port: int = 8080, proto: Any = "tcp") -> tuple[HostPort, HostPort]:
    four, six = ip_address("0.0.0.0"), ip_address("::")
    return HostPort(four, proto, port), HostPort(six, proto, port)


def taken(host: Namespace, port: int = 8080, proto: Any = "tcp") -> socket.socket:
    return host.run(lambda: hold_both(both(port, proto)[1]))


def free(host: Namespace, version: int, port: int = 8080, proto: str = "tcp") -> bool:
    """Tell whether other programs can have a port, however they try."""
    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    got = set()
    for address in FAMILIES[version]:
        for reuse in (0, 1):
            with host.socket(family, kind) as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
                if version == 6:
                    other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    other.bind((address, port))
                    if proto == "tcp":
                        other.listen()
                except OSError:
                    got.add(False)
                else:
                    got.add(True)
    (answer,) = got
    return answer


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_nobody_else_can_take_the_port_in_either_family(
    host: Namespace, proto: str
) -> None:
    with taken(host, proto=proto):
        assert not free(host, 4, proto=proto)
        assert not free(host, 6, proto=proto)
    assert free(host, 4, proto=proto)
    assert free(host, 6, proto=proto)


@pytest.mark.parametrize("proto", ["tcp", "udp"])
@pytest.mark.parametrize("position", [0, 1])
def test_a_port_that_somebody_has_in_one_family(
    host: Namespace, proto: str, position: int
) -> None:
    rival = host.run(lambda: hold(both(proto=proto)[position]))
    assert rival is not None
    with rival, pytest.raises(OSError, match="in use"):
        taken(host, proto=proto)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_nobody_is_accepted(host: Namespace, address: str) -> None:
    with taken(host):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        client = host.socket(family, socket.SOCK_STREAM)
        with client, pytest.raises(ConnectionRefusedError):
            client.connect((address, 8080))


@pytest.mark.parametrize("proto", ["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6])
def test_a_port_that_stays_in_one_family(
    host: Namespace, proto: str, version: int
) -> None:
    held = taken(host, proto=proto)
    place = both(proto=proto)[version == 6]
    with host.run(lambda: narrow(held, place)):
        assert not free(host, version, proto=proto)
        assert free(host, 10 - version, proto=proto)
    assert free(host, version, proto=proto)


def test_narrowing_that_fails_leaves_all_as_it_was(host: Namespace) -> None:
    held = taken(host)
    nowhere = HostPort(ip_address("192.0.2.9"), "tcp", 8080)
    with held:
        with pytest.raises(OSError, match="assign requested address"):
            host.run(lambda: narrow(held, nowhere))
        assert not free(host, 4)
        assert not free(host, 6)


@pytest.mark.parametrize("count", [LOOSE, 3 * PER_MESSAGE + 50])
@pytest.mark.parametrize("goes", [0, 1])
def test_one_family_of_many_ports_is_released(
    host: Namespace, count: int, goes: int
) -> None:
    before = descriptors()
    holding = Holding()
    ports = range(10_000, 10_000 + count)

    def take() -> None:
        for port in ports:
            holding.add(both(port), hold_both(both(port)[1]))
        holding.park()

    host.run(take)
    used = descriptors()
    gone = ports[::3]

    host.run(lambda: holding.release([both(port)[goes] for port in gone]))

    assert len(holding) == count
    assert descriptors() == used
    went, stays = (4, 6) if goes == 0 else (6, 4)
    for port in (ports[0], ports[3], ports[1], ports[2]):
        assert free(host, went, port) == (port in gone)
        assert not free(host, stays, port)
    host.run(lambda: holding.release([it for port in ports for it in both(port)]))
    assert len(holding) == 0
    assert descriptors() == before
    assert all(free(host, version, port) for port in ports[:4] for version in (4, 6))
