"""Bridges that were there before."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_interface

import anyio.to_thread
import pytest

import cnm
from cnm import Controller
from cnm.linux import (
    NetlinkSocket,
    add_address,
    add_bridge,
    choose_index,
    delete_link,
    dump_addresses,
    dump_routes,
    get_link,
    parse_address,
    parse_link,
    parse_route,
    set_link,
    sysctl,
)

from ..lab import Namespace, in_thread
from .advertisements import Ear, advertise
from .traffic import addresses, pair, serving, tcp

SUBNETS = ["10.9.0.0/24", "fd00:9::/64"]


@pytest.fixture
def index() -> Iterator[int]:
    """A bridge of somebody's, with addresses in larger subnets."""
    index = choose_index()
    with NetlinkSocket() as route:
        route.call(
            add_bridge("mine", index=index),
            set_link(index, address_generation="none"),
            # the kernel follows the ports otherwise
            set_link(index, mtu=1400, up=True),
            add_address(index, ip_interface("10.9.0.1/16")),
            add_address(index, ip_interface("fd00:9::1/48")),
        )
        yield index
        route.call(delete_link(index))


def situation(index: int) -> tuple[int, list[str]]:
    """Return the MTU and the addresses of a link."""
    with NetlinkSocket() as route:
        (link,) = route.call(get_link(index))
        found = map(parse_address, route.dump(dump_addresses(index)))
        own = sorted(str(it.interface) for it in found if it.index == index)
    return parse_link(link).mtu, own


async def test_its_own_addresses_are_enough(controller: Controller, index: int) -> None:
    before = situation(index)
    network = await controller.create_network(
        "front", subnets=SUBNETS, options={"name": "mine"}
    )
    one, two = await pair(controller, network)
    async with serving(one, two):
        for address in addresses(two, network):
            assert await tcp(one, address) in addresses(one, network)
    assert await controller.check() == ()
    await network.delete(force=True)
    assert situation(index) == before


async def test_a_failure_leaves_it_as_it_was(
    controller: Controller, index: int
) -> None:
    name = "net.ipv6.conf.mine.disable_ipv6"
    await anyio.to_thread.run_sync(sysctl.write, name, "1")
    before = situation(index)
    with pytest.raises(cnm.NetlinkError, match=r"add address fd00:9::1/64 to link"):
        await controller.create_network(
            "front", subnets=SUBNETS, options={"name": "mine", "mtu": 1300}
        )
    assert situation(index) == before


async def test_it_may_hear_routers_but_that_is_told(
    controller: Controller, index: int
) -> None:
    """It may have a router of its own; a sandbox may say that it is one."""
    network = await controller.create_network(
        "front", subnets=SUBNETS, options={"name": "mine"}
    )
    one = await controller.create_sandbox("one")
    await network.connect(one)
    (finding,) = await controller.diagnose()
    assert finding.severity == "warning"
    assert str(finding.subject) == "network 'front'"
    assert "default routes from whoever is on its link mine" in finding.problem
    with Namespace("one", one.key) as inside, NetlinkSocket() as route, Ear() as ear:

        def advertised() -> bool:
            advertise(inside)
            ear.wait()
            route.call(set_link(index, up=True))
            routes = map(parse_route, route.dump(dump_routes(6)))
            return any(it.destination.prefixlen == 0 for it in routes)

        name, value = finding.advice.rpartition(" ")[2].split("=")
        in_thread(lambda: sysctl.write(name, value))
        assert not advertised()
        assert await controller.diagnose() == ()
        in_thread(lambda: sysctl.write(name, "1"))
        assert advertised()
