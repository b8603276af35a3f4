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
    get_link,
    parse_address,
    parse_link,
    set_link,
    sysctl,
)

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
