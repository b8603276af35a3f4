"""Connections that begin while somebody has deleted the nftables table.

Somebody who goes by the states of connections as well, as most firewalls do: otherwise
the kernel would not keep track of them meanwhile.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TypeAlias

import anyio
import pytest

import cnm
from cnm.linux import NETLINK_NETFILTER, NetlinkSocket, add_route
from cnm.linux.connections import untranslated
from cnm.linux.nftables import (
    ACCEPT,
    FORWARD,
    INPUT,
    Batch,
    Hook,
    commit,
    expressions as ex,
)
from tests.integration.api.conftest import HOST4, HOST6, OUTSIDE4, OUTSIDE6
from tests.integration.api.test_restore import remove_all
from tests.integration.barriers import Host
from tests.integration.lab import PATIENCE, Namespace

from .test_isolation import boxes, datagrams, network, received

Place: TypeAlias = Namespace | None
HOSTS = {4: HOST4, 6: HOST6}
OUTSIDES = {4: OUTSIDE4, 6: OUTSIDE6}


@pytest.fixture(autouse=True)
def other_firewall(host: Host) -> Iterator[None]:
    """Have a table of somebody else's that needs to know connections."""
    batch = Batch("other")
    batch.add_table()
    for name, number in (("in", INPUT), ("through", FORWARD)):
        batch.add_chain(name, Hook("filter", number, 5))
        batch.add_rule(name, ex.established(), ex.verdict(ACCEPT))
    commit(host.nft, batch)
    yield
    batch = Batch("other")
    batch.delete_table()
    commit(host.nft, batch)


def delete_table(host: Host) -> None:
    batch = Batch("cnm")
    batch.delete_table()
    commit(host.nft, batch)


@asynccontextmanager
async def gap(controller: cnm.Controller, host: Host) -> AsyncIterator[None]:
    """Delete the table, and wait until it is back at the end.

    Nobody puts it back as long as the block does not await anything.
    """
    async with controller.subscribe(cnm.FirewallRebuilt) as rebuilt:
        delete_table(host)
        yield
        with anyio.fail_after(10):
            await anext(rebuilt)


def own(sandbox: cnm.Sandbox, version: int) -> str:
    (endpoint,) = sandbox.endpoints
    address = endpoint.address if version == 4 else endpoint.address6
    assert address is not None
    return str(address.ip)


@pytest.mark.parametrize("version", [4, 6])
async def test_between_networks(
    controller: cnm.Controller, host: Host, version: int
) -> None:
    front, back = [await network(controller, f"n{it}", it) for it in (9, 10)]
    with ExitStack() as stack:
        (one, here), (two, there) = await boxes(controller, stack, one=front, two=back)
        source, target = own(one, version), own(two, version)
        asking = stack.enter_context(datagrams(here, source, 5000))
        asked = stack.enter_context(datagrams(there, target, 632))
        async with gap(controller, host):
            asking.sendto(b"first", (target, 632))
            text, back_to = asked.recvfrom(10)
            asked.sendto(b"answer", back_to)
            assert (text, asking.recv(10)) == (b"first", b"answer")
        asking.sendto(b"second", (target, 632))
        # what is sent later is heard
        with socket.socket(asked.family, socket.SOCK_DGRAM) as from_host:
            from_host.sendto(b"last", (target, 632))
        assert received(asked, PATIENCE) == b"last"


@pytest.mark.parametrize("version", [4, 6])
async def test_to_others(
    controller: cnm.Controller, host: Host, outside: Namespace, version: int
) -> None:
    """Who goes on sending is translated, however often."""
    front = await network(controller, "front")
    to = OUTSIDES[version]
    with ExitStack() as stack:
        ((one, here),) = await boxes(controller, stack, one=front)
        asking = stack.enter_context(datagrams(here, own(one, version), 5000))
        asked = stack.enter_context(datagrams(outside, to, 632))
        async with gap(controller, host):
            asking.sendto(b"first", (to, 632))
            assert asked.recvfrom(10)[1][0] == own(one, version)
        asking.sendto(b"second", (to, 632))
        assert asked.recvfrom(10)[1][0] == HOSTS[version]


@pytest.mark.parametrize("version", [4, 6])
async def test_to_published_ports(
    controller: cnm.Controller, host: Host, outside: Namespace, version: int
) -> None:
    front = await network(controller, "front")
    at = HOSTS[version], 8080
    with ExitStack() as stack:
        ((one, here),) = await boxes(controller, stack, one=front)
        await one.endpoints[0].publish("8080:80/udp", "8080:80")
        asked = stack.enter_context(datagrams(here, own(one, version), 80))
        asking = stack.enter_context(datagrams(outside, OUTSIDES[version], 5000))
        async with gap(controller, host):
            asking.sendto(b"first", at)
        asking.sendto(b"second", at)
        assert received(asked, PATIENCE) == b"second"


async def test_those_before_go_on(
    controller: cnm.Controller, host: Host, outside: Namespace
) -> None:
    front = await network(controller, "front")
    with ExitStack() as stack:
        ((one, here),) = await boxes(controller, stack, one=front)
        await one.endpoints[0].publish("8080:80/udp")
        asked = stack.enter_context(datagrams(here, own(one, 4), 80))
        asking = stack.enter_context(datagrams(outside, OUTSIDE4, 5000))
        asking.sendto(b"question", (HOST4, 8080))
        _, back_to = asked.recvfrom(10)
        async with gap(controller, host):
            pass
        asked.sendto(b"answer", back_to)
        assert asking.recvfrom(10) == (b"answer", (HOST4, 8080))


async def test_while_no_controller_runs(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with ExitStack() as stack:
        async with cnm.Controller(store=cnm.SQLiteStore(path)) as controller:
            front, back = [await network(controller, f"n{it}", it) for it in (9, 10)]
            made = await boxes(controller, stack, one=front, two=back)
            ((one, here), (two, there)) = made
            source, target = own(one, 4), own(two, 4)
        asking = stack.enter_context(datagrams(here, source, 5000))
        asked = stack.enter_context(datagrams(there, target, 632))
        delete_table(host)
        asking.sendto(b"first", (target, 632))
        text, back_to = asked.recvfrom(10)
        asked.sendto(b"answer", back_to)
        assert (text, asking.recv(10)) == (b"first", b"answer")
        async with cnm.Controller(store=cnm.SQLiteStore(path)):
            asking.sendto(b"second", (target, 632))
            with socket.socket(asked.family, socket.SOCK_DGRAM) as from_host:
                from_host.sendto(b"last", (target, 632))
            assert received(asked, PATIENCE) == b"last"
    await remove_all(path)


@pytest.mark.parametrize("version", [4, 6])
async def test_what_is_forgotten(
    controller: cnm.Controller, host: Host, outside: Namespace, version: int
) -> None:
    """Nothing but what would have been translated, or kept out."""
    modes = dict.fromkeys(("gateway_mode_ipv4", "gateway_mode_ipv6"), "routed")
    anybody = dict.fromkeys(modes, "nat-unprotected") | {"enable_ip_masquerade": False}
    networks = {
        "front": await network(controller, "front"),
        "bare": await network(controller, "bare", 10, **modes),
        "wide": await network(controller, "wide", 11, **anybody),
        "inner": await network(controller, "inner", 12, internal=True),
    }
    for number in (9, 10, 11, 12):
        outside.route.call(
            add_route(ip_network(f"10.{number}.0.0/24"), via=ip_address(HOST4)),
            add_route(ip_network(f"fd00:{number}::/64"), via=ip_address(HOST6)),
        )
    me, far = HOSTS[version], OUTSIDES[version]
    with ExitStack() as stack:
        places: dict[str, Place] = {"far": outside}
        at = {"far": far, "host": me}
        for sandbox, inside in await boxes(controller, stack, **networks):
            name = sandbox.name
            gateways = networks[name].gateways
            gate = next(str(it) for it in gateways if it.version == version)
            places |= {name: inside, f"{name} gate": None}
            at |= {name: own(sandbox, version), f"{name} gate": gate}
        (front,), (bare,) = (networks[it].endpoints for it in ("front", "bare"))
        await front.publish("8080:80/udp", "7000-7100:7000-7100/udp")
        await bare.publish("80:80/udp")
        forgotten = {
            *(("far", "host", 8080), ("far", "host", 7050), ("far", "front", 80)),
            *(("far", "bare", 81), ("far", "inner", 80), ("front", "far", 80)),
            *(("front", "wide", 80), ("wide", "front", 80), ("bare", "inner", 80)),
        }
        kept = {
            *(("far", "host", 9999), ("far", "bare", 80), ("far", "wide", 80)),
            *(("bare", "far", 80), ("bare", "wide", 80), ("wide", "far", 80)),
            *(("front gate", "front", 80), ("inner gate", "inner", 80)),
            *(("front", "front gate", 81), ("inner", "inner gate", 81)),
        }
        async with gap(controller, host):
            for source, target, port in forgotten | kept:
                send(places[source], at[target], port)
            assert connections(at) >= forgotten | kept
        assert connections(at) & (forgotten | kept) == kept


def send(where: Place, to: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    make = where.socket if where else socket.socket
    with make(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"?", (to, port))


def connections(names: dict[str, str]) -> set[tuple[str, str, int]]:
    """Return which UDP connections are tracked, by the names of places."""
    by_address = {address: name for name, address in names.items()}
    with NetlinkSocket(NETLINK_NETFILTER) as nft:
        found = list(untranslated(nft))
    return {
        (
            by_address.get(str(it.source), str(it.source)),
            by_address.get(str(it.destination), str(it.destination)),
            it.port,
        )
        for it in found
        if it.proto == "udp"
    }
