"""How bridges treat the ports of endpoints, and what others make of that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import anyio
import pytest

import cnm
from cnm import Controller
from cnm.errors import KernelError
from cnm.linux import (
    BridgePort,
    Link,
    Message,
    NetlinkSocket,
    add_veth,
    choose_index,
    dump_links,
    parse_bridge_port,
    parse_link,
    set_bridge_port,
    set_link,
    sysctl,
)
from cnm.linux.links import RTM_NEWLINK, RTNLGRP_LINK
from cnm_drivers_bridge import upkeep

from ...conftest import host_links
from ..lab import Namespace, in_thread, until_links
from .test_repair import index_of, mends, passive

__all__ = ["passive"]

FILTERS = "net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"


async def built(controller: Controller, *, icc: bool) -> list[str]:
    """Make a network of two sandboxes, and return the names of their ports."""
    network = await controller.create_network(
        "front", subnets=["10.9.0.0/24"], options={"name": "br0", "enable_icc": icc}
    )
    for name in ("one", "two"):
        await network.connect(await controller.create_sandbox(name))
    return [f"veth{it.id[:11]}" for it in network.endpoints]


def treatment() -> dict[str, BridgePort]:
    """Return how the bridge treats its ports."""
    with NetlinkSocket() as route:
        found = route.dump(dump_links(master=index_of("br0")))
        return {parse_link(it).name: parse_bridge_port(it) for it in found}


def replug(port: str) -> None:
    with NetlinkSocket() as route:
        index = index_of(port)
        route.call(set_link(index, master=0))
        route.call(set_link(index, master=index_of("br0")))


@pytest.fixture
def filters() -> Iterator[None]:
    """Have no bridge be filtered, until the test says otherwise."""
    before = {}
    with suppress(KernelError):  # without br_netfilter there is no such setting
        for name in FILTERS:
            before[name] = sysctl.read(name)
            sysctl.write(name, "0")
    if not before:
        pytest.skip("the kernel has no br_netfilter")
    yield
    for name, value in before.items():
        sysctl.write(name, value)


async def test_others_take_ports_off_and_put_them_back(passive: Controller) -> None:
    async with passive as controller:
        first, second = await built(controller, icc=False)
        replug(first)
        assert not treatment()[first].isolated
        await mends(controller, f"{first} is not isolated from others of bridge br0")
        assert {it.isolated for it in treatment().values()} == {True}
        with NetlinkSocket() as route:
            route.call(set_bridge_port(index_of(second), isolated=False))
        await mends(controller, f"{second} is not isolated from others of bridge br0")
        assert {it.isolated for it in treatment().values()} == {True}


async def test_that_is_noticed() -> None:
    async with Controller() as controller:
        first, _ = await built(controller, icc=False)
        async with controller.subscribe(cnm.DamageFound) as events:
            replug(first)
            with anyio.fail_after(10):
                (found,) = (await anext(events)).differences
        assert "is not isolated" in found.problem
        assert found.mended
        assert treatment()[first].isolated


async def test_more_isolation_is_up_to_others(passive: Controller) -> None:
    async with passive as controller:
        first, _ = await built(controller, icc=True)
        with NetlinkSocket() as route:
            route.call(set_bridge_port(index_of(first), isolated=True))
        assert await controller.repair() == ()
        assert treatment()[first].isolated


async def test_no_port_passes_anything_on_before_it_is_isolated(
    passive: Controller,
) -> None:
    async with passive as controller:
        first, _ = await built(controller, icc=False)
        bridge = index_of("br0")
        with NetlinkSocket() as route, NetlinkSocket() as told:
            route.call(set_link(index_of(first), master=0))
            told.subscribe(RTNLGRP_LINK)
            await controller.repair()
            steps = [
                (parse_link(it).up, parse_bridge_port(it).isolated)
                for it in told.receive()
                if it.kind == RTM_NEWLINK
                and (parse_link(it).name, parse_link(it).master) == (first, bridge)
                and it.body[0] == 0  # of the link, not of the bridge
            ]
        assert (True, True) in steps
        assert (True, False) not in steps


@pytest.mark.usefixtures("filters")
async def test_bridges_are_filtered_later_on(passive: Controller) -> None:
    async with passive as controller:
        ports = await built(controller, icc=True)
        assert {it.hairpin for it in treatment().values()} == {False}
        in_thread(lambda: sysctl.write(FILTERS[0], "1"))
        problem = "lacks the hairpin mode that br_netfilter needs"
        await mends(controller, *(f"{port} {problem}" for port in ports))
        assert {it.hairpin for it in treatment().values()} == {True}


async def test_networks_look_at_their_own_ports_only(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def spy(message: Message) -> Link:
        link = parse_link(message)
        looked.append(link.name)
        return link

    names = []
    for number in range(5):
        network = await controller.create_network(f"n{number}")
        for name in ("a", "b"):
            box = await controller.create_sandbox(f"{name}{number}")
            endpoint = await network.connect(box)
            names.append(f"veth{endpoint.id[:11]}")
    monkeypatch.setattr(upkeep, "parse_link", spy)
    assert await controller.check() == ()
    assert {name: looked.count(name) for name in looked} == dict.fromkeys(names, 1)


async def test_a_bridge_that_is_full(controller: Controller) -> None:
    network = await controller.create_network("front", options={"name": "br0"})
    one = await controller.create_sandbox("one")
    own = set(host_links())
    with Namespace() as elsewhere, NetlinkSocket() as route:
        master = index_of("br0")
        for number in range(1023):
            route.call(
                add_veth(
                    f"full{number}",
                    f"full{number}",
                    index=choose_index(),
                    peer_index=choose_index(),
                    peer_netns=elsewhere.netns,
                    master=master,
                )
            )
        with pytest.raises(cnm.UnavailableError, match="the bridge is full"):
            await network.connect(one)
        assert (one.endpoints, network.endpoints) == ((), ())
    await until_links(lambda: set(host_links()) == own)
    await network.connect(one)
