"""ipvlan networks, and parents that are made: VLAN sub-interfaces and dummies."""

from __future__ import annotations

from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import anyio
import pytest

import cnm
from cnm import Controller, SQLiteStore
from cnm.lifecycle import remove_table
from cnm.linux import (
    NetlinkSocket,
    add_address,
    add_vlan,
    delete_link,
    get_link,
    parse_link,
    set_link,
)
from tests.features import needs

from ...conftest import host_links
from ..api.traffic import addresses, blocked, pair, serving, tcp
from ..lab import Namespace
from .conftest import MACHINE, PARENT, SUBNETS

VLAN = f"{PARENT}.50"
TAGGED = ["198.51.100.0/24"]


@pytest.fixture
def tagged(lan: Namespace) -> Namespace:
    """The machine on the local network has an address on VLAN 50."""
    parent = parse_link(lan.route.call(get_link(name="eth0"))[0]).index
    lan.route.call(
        add_vlan("eth0.50", parent=parent, identity=50, index=4711),
        add_address(4711, ip_interface("198.51.100.9/24")),
        set_link(4711, up=True),
    )
    return lan


async def create(
    controller: Controller, driver: str, name: str = "lan", **options: Any
) -> cnm.Network:
    """Create a network, with a part of the parent's subnet for itself."""
    vlan = options.get("parent") == VLAN
    part = 64 + 32 * len(controller.networks)
    return await controller.create_network(
        name,
        driver,
        subnets=TAGGED if vlan else SUBNETS,
        ip_ranges=[f"198.51.100.{part}/27" if vlan else f"192.0.2.{part}/27"],
        options={"parent": PARENT, **options},
    )


@needs("ipvlan")
async def test_l2(controller: Controller, lan: Namespace) -> None:
    network = await create(controller, "ipvlan")
    one, two = await pair(controller, network)
    endpoint = network.endpoint("one")
    assert endpoint.mac == ""
    async with serving(one, two):
        for address in MACHINE:
            assert (await tcp(one, address)).startswith("machine ")
        for address in addresses(two, network):
            assert await tcp(one, address) in addresses(one, network)
    assert await controller.check() == ()
    assert "default" not in (await one.run(["ip", "route"])).stdout.decode()
    await endpoint.leave()
    await endpoint.join(one)
    assert (await tcp(one, MACHINE[0])).startswith("machine ")


@needs("ipvlan")
@pytest.mark.parametrize("flag", ["private", "vepa"])
async def test_flags(controller: Controller, lan: Namespace, flag: str) -> None:
    network = await create(controller, "ipvlan", ipvlan_flag=flag)
    one, two = await pair(controller, network)
    async with serving(two):
        assert await blocked(one, addresses(two, network)[0])
        assert await tcp(one, MACHINE[0])


@needs("ipvlan")
@pytest.mark.parametrize("mode", ["l3", "l3s"])
async def test_l3(controller: Controller, lan: Namespace, mode: str) -> None:
    """Endpoints on different subnets of a network reach each other."""
    network = await controller.create_network(
        "far",
        "ipvlan",
        subnets=["10.7.0.0/24", "10.8.0.0/24", "fd00:7::/64", "fd00:8::/64"],
        options={"parent": PARENT, "ipvlan_mode": mode},
    )
    one = await controller.create_sandbox("one")
    two = await controller.create_sandbox("two")
    await network.connect(one, address="10.7.0.5", address6="fd00:7::5")
    await network.connect(two, address="10.8.0.5", address6="fd00:8::5")
    for family in ("-4", "-6"):
        routes = (await one.run(["ip", family, "route"])).stdout.decode()
        assert "default dev eth0" in routes
    async with serving(two):
        assert await tcp(one, "10.8.0.5") == "10.7.0.5"
        assert await tcp(one, "fd00:8::5") == "fd00:7::5"
    with pytest.raises(cnm.InvalidError, match="the default route needs none"):
        await controller.create_network(
            "other",
            "ipvlan",
            subnets=["10.9.0.0/24"],
            gateways=["10.9.0.1"],
            options={"parent": PARENT, "ipvlan_mode": mode},
        )


@needs("ipvlan")
async def test_what_ipvlan_refuses(controller: Controller, lan: Namespace) -> None:
    network = await create(controller, "ipvlan")
    box = await controller.create_sandbox("box")
    with pytest.raises(cnm.InvalidError) as caught:
        await network.connect(box, mac="02:00:00:00:00:07")
    assert str(caught.value) == (
        "mac: ipvlan interfaces do not support custom mac address assignment"
    )
    with pytest.raises(cnm.ConflictError) as conflict:
        await create(controller, "ipvlan", "other")
    assert str(conflict.value) == ("network lan is already using parent interface lan0")
    other = await controller.create_network(
        "m", "macvlan", subnets=["10.8.0.0/24"], options={"parent": PARENT}
    )
    await network.connect(box)
    two = await controller.create_sandbox("two")
    with pytest.raises(cnm.ConflictError, match="parent lan0 is used in another way"):
        await other.connect(two)


@needs("ipvlan")
async def test_the_host_takes_part(controller: Controller, lan: Namespace) -> None:
    network = await controller.create_network(
        "lan",
        "ipvlan",
        subnets=SUBNETS[:1],
        ip_ranges=["192.0.2.64/26"],
        aux_addresses={"HostShimIPv4": "192.0.2.5"},
        options={"parent": PARENT, "host_shim": True},
    )
    one, _ = await pair(controller, network)
    async with serving(one):
        stream = await anyio.connect_tcp(addresses(one, network)[0], 80)
        async with stream:
            assert await stream.receive() == b"192.0.2.5"


@needs("vlan")
async def test_a_sub_interface_comes_and_goes(
    controller: Controller, tagged: Namespace
) -> None:
    first = await create(controller, "macvlan", "first", parent=VLAN)
    second = await create(
        controller, "macvlan", "second", parent=VLAN, macvlan_mode="vepa"
    )
    assert host_links() == sorted(["lo", PARENT, VLAN])
    box = await controller.create_sandbox("box")
    await first.connect(box)
    assert (await tcp(box, "198.51.100.9")).startswith("machine ")
    await first.delete(force=True)
    assert VLAN in host_links()
    assert await controller.check() == ()
    await second.connect(await controller.create_sandbox("two"))
    await second.delete(force=True)
    assert host_links() == sorted(["lo", PARENT])


@needs("vlan")
async def test_a_sub_interface_that_was_there_stays(
    controller: Controller, lan: Namespace
) -> None:
    with NetlinkSocket() as route:
        parent = parse_link(route.call(get_link(name=PARENT))[0]).index
        route.call(add_vlan(VLAN, parent=parent, identity=50))
    network = await create(controller, "macvlan", parent=VLAN)
    await network.delete()
    assert VLAN in host_links()
    with NetlinkSocket() as route:
        route.call(delete_link(name=VLAN))


@needs("vlan", "dummy")
async def test_made_parents_are_kept_and_swept(
    tmp_path: Path, tagged: Namespace
) -> None:
    path = tmp_path / "cnm.db"
    async with Controller(store=SQLiteStore(path)) as controller:
        await create(controller, "macvlan", "a", parent=VLAN)
        await create(controller, "macvlan", "b", parent=VLAN)
        inner = await controller.create_network("inner", "macvlan")
        one, two = await pair(controller, inner)
        await controller.network("a").delete()
        links = host_links()
    # a reboot
    with NetlinkSocket() as route:
        route.call(delete_link(name=VLAN))
    async with Controller(store=SQLiteStore(path)) as controller:
        assert host_links() == links
        assert await controller.check() == ()
        inner = controller.network("inner")
        one, two = controller.sandbox("one"), controller.sandbox("two")
        async with serving(two):
            assert await tcp(one, addresses(two, inner)[0])
        await controller.network("b").delete()
        await inner.delete(force=True)
        for box in (one, two):
            await box.delete()
        assert host_links() == sorted(["lo", PARENT])
        await controller._services.kernel.run(remove_table, controller._services)


@needs("dummy")
async def test_without_a_parent_it_is_internal(controller: Controller) -> None:
    network = await controller.create_network(
        "inner", "macvlan", subnets=["10.7.0.0/24"], gateways=["10.7.0.1"]
    )
    assert network.info.internal
    one, two = await pair(controller, network)
    async with serving(two):
        assert await tcp(one, addresses(two, network)[0])
    assert "default" not in (await one.run(["ip", "route"])).stdout.decode()
    dummy = f"dm-{network.id[:12]}"
    assert dummy in host_links()
    with NetlinkSocket() as route:
        route.call(set_link(name=dummy, up=False))
    assert [it.problem for it in await controller.repair()] == [f"link {dummy} is down"]
    await network.delete(force=True)
    assert host_links() == ["lo"]


async def test_what_the_kernel_lacks_is_said(
    controller: Controller, lan: Namespace
) -> None:
    """Where it has them, the drivers' options are tried nonetheless."""
    for driver, options in (("macvlan", {}), ("macvlan", {"parent": VLAN})):
        try:
            network = await controller.create_network(
                "x", driver, subnets=TAGGED, options=options
            )
            await network.delete()
        except cnm.MissingFeature:
            assert controller.networks == ()
        assert host_links() == sorted(["lo", PARENT])
