"""Which ports are chosen, and who is told to have those that are taken."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest

from cnm.errors import InvalidError, MissingCapability, NoAvailablePort, PortInUse
from cnm.ports.claim import Claim, Registry
from cnm.ports.holding import Holding
from cnm.ports.ledger import Owner
from cnm.ports.owners import name_owners
from cnm.ports.places import HostPort
from cnm.ports.publication import PortGroup
from cnm.ports.sockets import hold
from cnm.types import PortBinding

from .world import World, descriptors

WEB, DB = Owner("1", "endpoint 'web'"), Owner("2", "endpoint 'db'")
TARGET = IPv4Address("10.9.0.2")
RANGE, RESERVED = "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports"


def group(
    first: int = 0,
    last: int = 0,
    *addresses: str,
    container_port: int = 80,
    proto: Any = "tcp",
) -> PortGroup:
    return PortGroup(
        container_port=container_port,
        proto=proto,
        first=first,
        last=last or first,
        ways=tuple((ip_address(it), TARGET) for it in addresses or ("0.0.0.0",)),
    )


class Endpoint:
    """Claims ports in the host of a world."""

    def __init__(self, world: World, registry: Registry, owner: Owner = WEB) -> None:
        self.world = world
        self.registry = registry
        self.owner = owner
        self.holding = Holding()
        self.bindings: tuple[PortBinding, ...] = ()

    def claim(
        self, *groups: PortGroup, preferred: tuple[PortBinding, ...] = ()
    ) -> list[int]:
        """Take ports, and return those of the host."""

        def plan() -> None:
            claim = Claim(
                self.registry,
                self.owner,
                hold,
                before=self.bindings,
                holding=self.holding,
                preferred=preferred,
            )
            try:
                self.bindings = claim.take(groups)
            except BaseException:
                claim.undo()
                raise
            claim.settle()

        self.world.host.run(plan)
        return [binding.host_port for binding in self.bindings]


@pytest.fixture
def web(world: World) -> Any:
    endpoint = Endpoint(world, Registry())
    yield endpoint
    endpoint.holding.close()


@pytest.fixture
def db(web: Endpoint) -> Any:
    endpoint = Endpoint(web.world, web.registry, DB)
    yield endpoint
    endpoint.holding.close()


def test_ephemeral_ports_are_of_the_kernels_range_and_not_reserved(
    world: World, web: Endpoint, db: Endpoint
) -> None:
    world.host.sysctl(RANGE, "40000 40007")
    world.host.sysctl(RESERVED, "40001,40003-40004")
    groups = [group(container_port=port) for port in (1, 2, 3)]
    assert web.claim(*groups) == [40000, 40002, 40005]
    assert db.claim(group(), group(40003)) == [40006, 40003]
    # one that has just been given up is not given to the next one at once
    assert web.claim(*groups[:2]) == [40000, 40002]
    assert db.claim(group(), group(40003), group(container_port=2)) == [
        40006,
        40003,
        40007,
    ]
    assert web.claim(*groups) == [40000, 40002, 40005]
    expected = "every port of 40000-40007/tcp is in use at 0.0.0.0"
    with pytest.raises(NoAvailablePort, match=expected):
        web.claim(*groups, group(container_port=4))
    # of another protocol, they are free
    assert web.claim(*groups, group(proto="udp")) == [40000, 40002, 40005, 40000]


def test_a_group_has_one_port_at_all_its_addresses(world: World, web: Endpoint) -> None:
    world.host.sysctl(RANGE, "40000 40005")
    with (
        world.bind("127.0.0.1", 40000),
        world.bind("::1", 40001),
        world.bind("::", 40002),
    ):
        wanted = group(0, 0, "0.0.0.0", "::")
        assert web.claim(wanted) == [40003, 40003]
        # nothing is left of those that were tried
        assert world.is_free("192.0.2.1", 40000)
        assert world.is_free("::", 40000)
        assert world.is_free("0.0.0.0", 40001)
        assert world.is_free("0.0.0.0", 40002)
        # its own one at all addresses is not taken apart for a range that has others
        wanted = group(40000, 40004, "127.0.0.1", "::1", container_port=81)
        assert web.claim(wanted) == [40004, 40004]


def test_a_range_is_searched_from_its_start(
    world: World, web: Endpoint, db: Endpoint
) -> None:
    assert web.claim(group(8001)) == [8001]
    with world.bind("0.0.0.0", 8000):
        assert db.claim(group(8000, 8005)) == [8002]
    # and left alone afterwards
    assert db.claim(group(8000, 8005)) == [8002]


def test_a_request_keeps_its_own_port(web: Endpoint) -> None:
    assert web.claim(group(8000), group(8000, 8005)) == [8000, 8001]
    assert web.claim(group(8000, 8005)) == [8001]
    assert web.claim(group(8002), group(8000, 8005)) == [8002, 8001]
    # an exact one goes first
    assert web.claim(group(8001), group(8000, 8005)) == [8001, 8002]


def test_what_was_there_formerly_is_preferred(world: World, web: Endpoint) -> None:
    former = PortBinding(
        container_port=80,
        host_port=40500,
        host_address=ip_address("0.0.0.0"),
        container_address=TARGET,
    )
    assert web.claim(group(), preferred=(former,)) == [40500]
    web.claim()
    assert world.is_free("0.0.0.0", 40500)
    with world.bind("0.0.0.0", 40500):
        assert web.claim(group(), preferred=(former,)) != [40500]


def test_a_port_of_another_endpoint(web: Endpoint, db: Endpoint) -> None:
    web.claim(group(8080))
    with pytest.raises(PortInUse) as caught:
        db.claim(group(8080, 0, "127.0.0.1"), group(8081), group(8080, 0, "::"))
    assert caught.value.problems == (
        "port 8080/tcp of 127.0.0.1 is in use by endpoint 'web'",
    )
    assert caught.value.ports == ("127.0.0.1:8080/tcp",)
    assert db.claim(group(8080, proto="udp"), group(8080, 0, "::")) == [8080, 8080]


@pytest.mark.parametrize("proto", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("0.0.0.0", "0.0.0.0"),
        ("127.0.0.1", "0.0.0.0"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "::1"),
        ("::1", "::"),
        ("both", "0.0.0.0"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
def test_a_port_of_a_program(
    world: World, web: Endpoint, theirs: str, ours: str, proto: str
) -> None:
    both = theirs == "both" or "ffff" in theirs
    options = {"V6ONLY": 0} if both else {}
    other = world.bind("::" if theirs == "both" else theirs, 8080, proto, **options)
    with other:
        if proto == "tcp":
            other.listen()
        with pytest.raises(PortInUse) as caught:
            web.claim(group(8080, 0, ours, proto=proto))
    with open("/proc/self/comm", encoding="utf-8") as file:
        name = file.read().strip()
    assert caught.value.problems == (
        f"port 8080/{proto} of {ours} is in use by process {os.getpid()} ({name})",
    )


def test_a_program_that_is_not_to_be_seen(world: World, web: Endpoint) -> None:
    # bound, but neither connected nor listening
    with world.bind("0.0.0.0", 8080), pytest.raises(PortInUse) as caught:
        web.claim(group(8080))
    assert caught.value.problems == (
        "port 8080/tcp of 0.0.0.0 is in use by another program",
    )


def test_a_connection_from_the_port_is_found_as_well(world: World) -> None:
    place = HostPort(ip_address("0.0.0.0"), "tcp", 8080)
    with world.bind("127.0.0.1", 9) as server:
        server.listen()
        with world.bind("127.0.0.1", 8080) as client:
            client.connect(("127.0.0.1", 9))
            assert list(world.host.run(lambda: name_owners([place]))) == [place]
    assert world.host.run(lambda: name_owners([place])) == {}


def test_faults_of_one_kind_are_of_that_kind(world: World, web: Endpoint) -> None:
    expected = "^ports: host address 192.0.2.7 is not an address of this host$"
    with pytest.raises(InvalidError, match=expected):
        web.claim(group(8080, 0, "192.0.2.7"), group(8081, 0, "192.0.2.7"))
    with pytest.raises(InvalidError, match=expected):
        web.claim(group(8080, 8090, "192.0.2.7"))
    with pytest.raises(InvalidError, match=expected):
        web.claim(group(0, 0, "0.0.0.0", "192.0.2.7"))
    assert world.is_free("0.0.0.0", 8080)


def test_a_kernel_without_ipv6(world: World, web: Endpoint) -> None:
    world.host.sysctl("net.ipv6.conf.all.disable_ipv6", "1")
    with pytest.raises(InvalidError, match="::1 is not an address of this host"):
        web.claim(group(8080, 0, "::1"))


def test_ports_for_the_privileged(
    world: World, web: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: socket.socket, address: tuple[str, int]) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(MissingCapability) as caught:
        web.claim(group(80), group(81))
    assert caught.value.capability == "CAP_NET_BIND_SERVICE"
    assert str(caught.value) == (
        "publish port 80/tcp of 0.0.0.0, port 81/tcp of 0.0.0.0 "
        "(net.ipv4.ip_unprivileged_port_start is 1024): Permission denied "
        "(needs CAP_NET_BIND_SERVICE)"
    )


def test_all_faults_come_together_and_nothing_is_left(
    world: World, web: Endpoint, db: Endpoint
) -> None:
    web.claim(group(8080), group(8000, container_port=2))
    wanted = [
        group(8079),
        group(8080),
        group(8081),
        group(8082, 0, "192.0.2.7"),
        group(8000, 8000, "0.0.0.0", "::"),
        group(8080, 8081),
        group(),
    ]
    with world.bind("0.0.0.0", 8081) as other:
        other.listen()
        with pytest.raises(InvalidError) as caught:
            db.claim(*wanted)
    problems = [problem.split(" by process ")[0] for problem in caught.value.problems]
    assert problems == [
        "ports: host address 192.0.2.7 is not an address of this host",
        "port 8080/tcp of 0.0.0.0 is in use by endpoint 'web'",
        "port 8081/tcp of 0.0.0.0 is in use",
        "port 8000/tcp of 0.0.0.0 is in use by endpoint 'web'",
        "every port of 8080-8081/tcp is in use at 0.0.0.0",
    ]
    assert world.is_free("0.0.0.0", 8079)
    assert world.is_free("::", 8000)
    assert not db.holding
    assert not world.is_free("0.0.0.0", 8080)


def test_both_families_are_held_by_one_socket(world: World, web: Endpoint) -> None:
    before = descriptors()
    assert web.claim(group(8080, 0, "0.0.0.0", "::")) == [8080, 8080]
    assert descriptors() == before + 1
    # one of them goes, and comes back
    assert web.claim(group(8080, 0, "::")) == [8080]
    assert not in_use(world, "0.0.0.0")
    assert in_use(world, "::")
    assert web.claim(group(8080, 0, "0.0.0.0", "::")) == [8080, 8080]
    assert in_use(world, "0.0.0.0")
    assert in_use(world, "::")
    # all addresses make room for a single one of the same endpoint
    assert web.claim(group(8080, 0, "127.0.0.1", "::")) == [8080, 8080]
    assert in_use(world, "127.0.0.1")
    assert not in_use(world, "127.0.0.2")
    assert in_use(world, "::")


def in_use(world: World, address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with world.host.socket(family, socket.SOCK_STREAM) as other:
        if family == socket.AF_INET6:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            other.bind((address, 8080))
        except OSError:
            return True
    return False


def test_ports_that_cannot_be_had_are_tried_once_for_all_requests_alike() -> None:
    tried: list[int] = []

    def take(place: HostPort, *, absent: bool = False) -> None:
        tried.append(place.port)
        raise OSError(errno.EADDRINUSE, "")

    groups = [group(container_port=port) for port in range(1, 51)]
    groups += [group(100, 109, container_port=port) for port in range(51, 101)]
    claim = Claim(
        Registry(),
        WEB,
        take,
        before=(),
        holding=Holding(),
        setting={RANGE: "40 59", RESERVED: ""}.__getitem__,
    )
    with pytest.raises(NoAvailablePort) as caught:
        claim.take(groups)
    claim.undo()
    assert tried == [*range(40, 60), *range(100, 110)]
    # and each of them is told of once
    assert str(caught.value).count("every port") == 2


def test_a_port_that_is_served_makes_no_room() -> None:
    tried: list[HostPort] = []
    registry = Registry()
    place = HostPort(IPv4Address("0.0.0.0"), "tcp", 8080)
    registry.ledger.add(place, WEB)
    (binding,) = group(8080).bindings(8080)

    def take(place: HostPort, *, absent: bool = False) -> None:
        tried.append(place)

    claim = Claim(registry, WEB, take, before=[binding], holding=Holding(parks=False))
    with pytest.raises(PortInUse, match="in use by endpoint 'web'"):
        claim.take([group(8080, 0, "127.0.0.1"), group(8080)])
    claim.undo()
    assert tried == []
    assert [owner for _, owner in registry.ledger.rivals(place)] == [WEB]


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_a_port_of_former_times_does_not_need_its_address(
    web: Endpoint, address: str, proto: str
) -> None:
    wanted = group(8080, 0, address, proto=proto)
    with pytest.raises(InvalidError, match="is not an address of this host"):
        web.claim(wanted)
    # as after a restart, before the host has got its addresses
    assert web.claim(wanted, preferred=tuple(wanted.bindings(8080))) == [8080]
    web.holding.release([HostPort(ip_address(address), proto, 8080)])  # type: ignore[arg-type]
