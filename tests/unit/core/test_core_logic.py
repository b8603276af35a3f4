"""The core's logic that needs no kernel."""

# ruff: noqa: PT012 - the block is what is tested

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
    ip_network,
)

import anyio
import pytest
from hypothesis import given, strategies as st

from cnm import validation as check
from cnm.bus import Bus
from cnm.directory import Directory
from cnm.dns import ResolvConf
from cnm.errors import (
    InvalidError,
    NameConflict,
    NetworkNotFound,
    SubscriberTooSlow,
)
from cnm.events import ControllerEvent, ControllerStarted, Event, FirewallRebuilt
from cnm.gateways import Candidate, elect
from cnm.linux.announcer import arp_announcement, neighbour_advertisement
from cnm.options import boolean, choice, declared, integer, option, parse_options
from cnm.records import (
    Attachment,
    attachment_of,
    endpoint_info,
    endpoint_record,
    network_info,
    network_record,
    network_state,
)
from cnm.rollback import Rollback
from cnm.types import EndpointInfo, IPAMData, NetworkInfo, NetworkState

# --- validation and options -----------------------------------------------------------


@given(st.text() | st.integers() | st.none() | st.binary() | st.floats())
def test_parsers_refuse_or_accept(value: object) -> None:
    """A parser returns something, or raises what Faults understands."""
    for parser in (
        check.name,
        check.address,
        check.subnet,
        check.ip_range,
        check.mac_address,
        check.interface_name,
        check.hostname,
        check.dns_option,
        check.sysctl_name,
        check.link_local,
        check.address_pool,
    ):
        faults = check.Faults()
        parsed = faults.parse("it", parser, value)
        if parsed is None:
            with pytest.raises(InvalidError, match=r"^it: "):
                faults.check()


def test_shown_is_short() -> None:
    assert check.shown("x" * 1000) == "'" + "x" * 76 + "..."
    assert check.shown(5) == "5"


@pytest.mark.parametrize(
    ("value", "pool"),
    [
        ("10.0.0.0/8:24", ("10.0.0.0/8", 24)),
        ("fd00::/48:64", ("fd00::/48", 64)),
        (("10.0.0.0/8", 8), ("10.0.0.0/8", 8)),
    ],
)
def test_address_pools(value: object, pool: tuple[str, int]) -> None:
    parsed = check.address_pool(value)
    assert (str(parsed.base), parsed.size) == pool
    assert check.address_pool(parsed) == parsed


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """Some options."""

    mtu: int = option(
        0, integer(68, 65535), label="com.docker.network.driver.mtu", help="MTU"
    )
    icc: bool = option(True, boolean, help="")
    mode: str = option("a", choice("a", "b"), help="")


def test_options() -> None:
    given = {"com.docker.network.driver.mtu": "1500", "icc": "F", "mode": "b"}
    assert parse_options(Known, given) == Known(mtu=1500, icc=False, mode="b")
    assert parse_options(Known, {}) == Known()
    assert [it.name for it in declared(Known)] == ["mtu", "icc", "mode"]
    assert declared(Known)[0].help == "MTU"
    with pytest.raises(InvalidError) as caught:
        parse_options(Known, {"mtu": "٣", "icc": 1, "mode": [], "mut": 1, "x": 1})
    assert len(caught.value.problems) == 5
    assert "did you mean 'mtu'? (known: icc, mode, mtu)" in str(caught.value)


def test_a_field_that_is_no_option() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Plain:
        mtu: int = 0

    with pytest.raises(TypeError, match=r"Plain\.mtu is no option: expected a field"):
        parse_options(Plain, {})


# --- names ----------------------------------------------------------------------------


class Thing:
    def __init__(self, identity: str, name: str) -> None:
        self.id, self.name = identity, name


def test_directory() -> None:
    directory: Directory[Thing] = Directory(NetworkNotFound)
    first, second = Thing("abcd", "one"), Thing("abef", "abc")
    for thing in (first, second):
        with directory.reserve(thing.name):
            with pytest.raises(NameConflict), directory.reserve(thing.name):
                pass
            assert directory.reserved == (thing.name,)
            directory.add(thing)
    assert (len(directory), directory.reserved) == (2, ())
    assert directory.find("abcd") is first
    assert directory.find("abc") is second  # a name beats a prefix
    assert directory.find("abe") is second
    with pytest.raises(InvalidError, match=r"network 'ab' is ambiguous \(2 matches"):
        directory.find("ab")
    directory.remove(first)
    directory.remove(first)
    with pytest.raises(NetworkNotFound, match="'one' not found"):
        directory.find("one")
    with directory.reserve("one"):
        pass
    assert directory.reserved == ()


# --- gateways -------------------------------------------------------------------------


def candidate(network: str, **values: object) -> Candidate:
    values.setdefault("gateway", ip_address("10.0.0.1"))
    values.setdefault("order", 1)
    return Candidate(endpoint=network, network=network, index=1, **values)  # type: ignore[arg-type]


def test_election() -> None:
    gateway6 = ip_address("fd00::1")
    ordered = [
        candidate("z", priority=1, internal=True),
        candidate("y", gateway6=gateway6),
        candidate("a"),
        candidate("b"),
        candidate("c", gateway=None),
        candidate("d", priority=-1, gateway6=gateway6),
    ]
    for present in itertools.permutations(ordered):
        chosen = elect(present)
        assert (chosen[4].network, chosen[6].network) == ("z", "y")
    assert elect(ordered[2:])[4].network == "a"
    assert elect(ordered[2:])[6].network == "d"
    assert elect([ordered[4]]) == {}
    assert elect([]) == {}
    direct = candidate("x", gateway=None, connected4=True)
    assert elect([direct])[4].next_hop(4) is None


# --- rollback -------------------------------------------------------------------------


async def test_undo_steps_run_last_first() -> None:
    done: list[object] = []

    async def undo(what: object) -> None:
        await anyio.lowlevel.checkpoint()
        done.append(what)

    async def fail() -> None:
        raise ValueError("worse")

    error = KeyError("bad")
    with pytest.raises(KeyError) as caught:
        async with Rollback() as rollback:
            rollback.push(undo, 1)
            rollback.push(fail)
            rollback.push_sync(done.append, 2)
            raise error
    assert caught.value is error
    assert done == [2, 1]
    assert "fail failed: ValueError('worse')" in error.__notes__[0]
    async with Rollback() as rollback:
        rollback.push(undo, 3)
    assert done == [2, 1]


async def test_undo_steps_are_shielded_and_bounded() -> None:
    done: list[int] = []

    async def undo() -> None:
        await anyio.lowlevel.checkpoint()
        done.append(1)

    with anyio.CancelScope() as scope:
        async with Rollback(timeout=0.02) as rollback:
            rollback.push(undo)
            rollback.push(anyio.sleep_forever)
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert done == [1]


# --- subscriptions --------------------------------------------------------------------


async def test_bus() -> None:
    bus = Bus()
    started, rebuilt = (
        ControllerStarted(controller="x"),
        FirewallRebuilt(controller="x"),
    )
    async with (
        bus.subscribe((ControllerEvent,), 8) as everything,
        bus.subscribe((FirewallRebuilt,), 1) as one,
    ):
        for event in (started, rebuilt, rebuilt):
            bus.publish(event)
        bus.close()
        bus.publish(started)
        assert [event async for event in everything] == [started, rebuilt, rebuilt]
        assert await anext(one) == rebuilt
        with pytest.raises(SubscriberTooSlow):
            await anext(one)
    async with bus.subscribe((Event,), 1) as over:
        bus.publish(started)
    bus.publish(started)
    # whoever has been busy with an event meanwhile
    assert [event async for event in over] == []


# --- records --------------------------------------------------------------------------


def network() -> NetworkInfo:
    return NetworkInfo(
        id="n" * 64,
        name="front",
        driver="bridge",
        created=datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
        ipv6=True,
        internal=True,
        ipam_options={"a": [1, None]},
        ipam_data=(
            IPAMData(
                pool_id="p",
                subnet=ip_network("10.9.0.0/24"),
                ip_range=ip_network("10.9.0.0/25"),
                gateway=ip_address("10.9.0.1"),
                aux_addresses={"x": ip_address("10.9.0.9")},
            ),
            IPAMData(pool_id="q", subnet=ip_network("fd00::/64")),
        ),
        labels={"a": "b"},
        options={"mtu": 1500},
        driver_state={"deep": {"k": [1]}},
    )


def test_records_come_back() -> None:
    info, state = (
        network(),
        NetworkState(
            interface_prefix="lan", links=(5,), parents=(6,), state={"deep": {"k": [1]}}
        ),
    )
    record = json.loads(json.dumps(network_record(info, state)))
    assert network_info(record) == info
    assert network_state(record) == state
    endpoint = EndpointInfo(
        id="e" * 64,
        name="ep",
        network=info,
        created=info.created,
        address=IPv4Interface("10.9.0.5/24"),
        address6=IPv6Interface("fd00::5/64"),
        mac="02:00:00:00:00:01",
        link_local=tuple(
            map(ip_interface, ("169.254.0.1/16", "fe80::1%eth0/64", "::ffff:0:1/128"))
        ),
        aliases=("x",),
        gateway_priority=-3,
        interface_name="lan7",
        sysctls={"net.ipv4.conf.IFNAME.x": "1"},
    )
    attachment = Attachment(
        sandbox="s",
        interface="lan7",
        index=9,
        order=3,
        gateway=ip_address("10.9.0.1"),
        connected6=True,
    )
    record = json.loads(json.dumps(endpoint_record(endpoint, attachment)))
    assert endpoint_info(record, info) == endpoint
    assert attachment_of(record) == attachment
    assert attachment_of(endpoint_record(endpoint, None)) is None


# --- names and announcements ----------------------------------------------------------


def test_resolv_conf() -> None:
    host = ResolvConf.parse(
        "# comment\n; another\nnameserver 127.0.0.53\nnameserver 192.0.2.1\n"
        "nameserver bad\nnameserver\nsearch a b\ndomain c\noptions ndots:1 rotate\n"
        "options edns0\nsortlist 10.0.0.0\n\n"
    )
    assert [str(server) for server in host.nameservers] == ["127.0.0.53", "192.0.2.1"]
    assert host.search == ("c",)
    assert host.options == ("ndots:1", "rotate", "edns0")
    assert host.invalid == ("bad", "")


MAC = bytes.fromhex("020000000001")


def test_gratuitous_arp() -> None:
    frame = arp_announcement(IPv4Address("10.9.0.2"), MAC)
    assert frame == (
        b"\xff" * 6
        + MAC
        + bytes.fromhex("0806 0001 0800 06 04 0001")
        + MAC
        + bytes([10, 9, 0, 2])
        + bytes(6)
        + bytes([10, 9, 0, 2])
    )


def test_neighbour_advertisement() -> None:
    address = IPv6Address("fd00:9::2")
    frame = neighbour_advertisement(address, MAC)
    assert frame[:14] == bytes.fromhex("333300000001") + MAC + b"\x86\xdd"
    header, message = frame[14:54], frame[54:]
    assert header[4:8] == len(message).to_bytes(2, "big") + bytes([58, 255])
    assert header[8:] == address.packed + IPv6Address("ff02::1").packed
    assert message[0] == 136
    assert message[4] == 0x20  # override
    assert message[8:24] == address.packed
    assert message[24:] == bytes([2, 1]) + MAC
    pseudo = header[8:] + len(message).to_bytes(4, "big") + bytes([0, 0, 0, 58])
    total = sum(
        int.from_bytes((pseudo + message)[i : i + 2], "big")
        for i in range(0, len(pseudo + message), 2)
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF
