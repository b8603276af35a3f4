"""macvlan networks: traffic on the host's link, modes, parents, and what goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import cnm
from cnm import Controller, SQLiteStore
from cnm.lifecycle import remove_table
from cnm.linux import (
    NetlinkSocket,
    delete_link,
    dump_routes,
    get_link,
    parse_link,
    parse_route,
    set_link,
    sysctl,
)
from tests.features import needs

from ...conftest import host_links
from ..api.advertisements import Ear, advertise
from ..api.traffic import addresses, blocked, pair, serving, tcp
from ..lab import Namespace, ask, in_thread
from .conftest import HOST, MACHINE, PARENT, SUBNETS


async def create(controller: Controller, name: str = "lan", **more: Any) -> cnm.Network:
    """Create a network on the parent that keeps off the addresses in use there."""
    options = {"parent": PARENT, **more.pop("options", {})}
    settings = {
        "subnets": SUBNETS,
        "aux_addresses": {"machine": MACHINE[0], "machine6": MACHINE[1], "host": HOST},
        **more,
    }
    return await controller.create_network(name, "macvlan", options=options, **settings)


async def test_endpoints_are_on_the_link(
    controller: Controller, lan: Namespace
) -> None:
    network = await create(controller)
    one, two = await pair(controller, network)
    endpoint = network.endpoint("one")
    async with serving(one, two):
        for address in MACHINE:
            assert (
                await tcp(one, address)
                == f"machine {addresses(one, network)[':' in address]}"
            )
        for address in addresses(two, network):
            assert await tcp(one, address) in addresses(one, network)
        answer = await anyio.to_thread.run_sync(ask, lan, str(endpoint.address.ip), 80)  # type: ignore[union-attr]
        assert answer == "192.0.2.9"
        # whoever shares the parent with them does not reach them: that is macvlan
        assert not await from_host(endpoint)
    assert endpoint.mac.startswith("02:")
    assert await endpoint.inspect() == {"parent": PARENT}
    assert await controller.check() == ()
    # nothing of it is in the host's namespace
    assert host_links() == sorted(["lo", PARENT])


async def from_host(endpoint: cnm.Endpoint) -> bool:
    """Tell whether the host gets an answer from an endpoint."""
    assert endpoint.address is not None
    with anyio.move_on_after(1):
        try:
            async with await anyio.connect_tcp(str(endpoint.address.ip), 80) as stream:
                return bool(await stream.receive())
        except OSError:
            return False
    return False


async def test_a_gateway_only_if_it_is_given(
    controller: Controller, lan: Namespace
) -> None:
    network = await create(controller)
    assert network.info.gateways == ()
    box = await controller.create_sandbox("box")
    await network.connect(box)
    routes = await box.run(["ip", "route"])
    assert "default" not in routes.stdout.decode()
    other = await create(
        controller,
        "other",
        subnets=["198.51.100.0/24", "2001:db8:3::/64"],
        gateways=["198.51.100.1", "2001:db8:3::1"],
        aux_addresses={},
    )
    far = await controller.create_sandbox("far")
    await other.connect(far)
    for family, gateway in (("-4", "198.51.100.1"), ("-6", "2001:db8:3::1")):
        routes = await far.run(["ip", family, "route"])
        assert f"default via {gateway} dev eth0" in routes.stdout.decode()


async def test_the_mtu_is_that_of_the_parent(
    controller: Controller, lan: Namespace
) -> None:
    with NetlinkSocket() as route:
        route.call(set_link(name=PARENT, mtu=1420))
    for options, mtu in (({}, 1420), ({"mtu": 1300}, 1300)):
        network = await create(controller, options=options)
        box = await controller.create_sandbox("box")
        await network.connect(box)
        found = await box.run(["cat", "/sys/class/net/eth0/mtu"])
        assert int(found.stdout) == mtu
        await box.delete()
        await network.delete()


@pytest.mark.parametrize("mode", ["private", "vepa"])
async def test_modes_without_neighbours(
    controller: Controller, lan: Namespace, mode: str
) -> None:
    network = await create(controller, options={"macvlan_mode": mode})
    one, two = await pair(controller, network)
    async with serving(two):
        assert await blocked(one, addresses(two, network)[0])
        assert await tcp(one, MACHINE[0])


@needs("macvlan-source")
async def test_source(controller: Controller, lan: Namespace) -> None:
    """What hears the machine only if its address is named."""
    with pytest.raises(cnm.InvalidError, match="'source' and source_macs need each"):
        await create(controller, options={"macvlan_mode": "source"})
    for named, heard in (("02:00:00:00:00:99", False), (mac_of(lan), True)):
        network = await create(
            controller, options={"macvlan_mode": "source", "source_macs": named}
        )
        box = await controller.create_sandbox("box")
        await network.connect(box)
        assert bool(await tcp(box, MACHINE[0], 0.5)) is heard
        await box.delete()
        await network.delete()


def mac_of(lan: Namespace) -> str:
    return parse_link(lan.route.call(get_link(name="eth0"))[0]).mac


async def test_passthru_is_alone(controller: Controller, lan: Namespace) -> None:
    network = await create(controller, options={"macvlan_mode": "passthru"})
    box = await controller.create_sandbox("box")
    await network.connect(box)
    with pytest.raises(cnm.ConflictError) as caught:
        await create(controller, "other")
    assert str(caught.value) == (
        "macvlan network lan is already using parent interface lan0 in mode passthru"
    )
    two = await controller.create_sandbox("two")
    with pytest.raises(cnm.ConflictError) as caught:
        await network.connect(two)
    assert str(caught.value) == (
        "network 'lan' is of mode passthru: it has room for one endpoint at a time"
    )
    assert [endpoint.name for endpoint in network.endpoints] == ["box"]
    await network.delete(force=True)
    await create(controller, "first")
    with pytest.raises(cnm.ConflictError) as caught:
        await create(controller, "second", options={"macvlan_mode": "passthru"})
    assert str(caught.value) == (
        "cannot use mode passthru, macvlan network first is already using parent "
        "interface lan0"
    )


async def test_a_mac_address_is_free_at_once(
    controller: Controller, lan: Namespace
) -> None:
    network = await create(controller)
    for number in range(5):
        box = await controller.create_sandbox("box")
        endpoint = await network.connect(
            box, mac="02:00:00:00:00:07", address="192.0.2.7"
        )
        if number % 2:
            await endpoint.leave()
            await endpoint.delete()
        else:
            assert await tcp(box, MACHINE[0]) == "machine 192.0.2.7"
        await box.delete()
    boxes = [await controller.create_sandbox(f"box{n}") for n in range(2)]
    await network.connect(boxes[0], mac="02:00:00:00:00:07")
    with pytest.raises(cnm.NetlinkError, match="Address already in use"):
        await network.connect(boxes[1], mac="02:00:00:00:00:07")


async def test_the_host_takes_part(controller: Controller, lan: Namespace) -> None:
    network = await create(
        controller,
        options={"host_shim": True},
        aux_addresses={
            "HostShimIPv4": "192.0.2.5",
            "HostShimIPv6": "2001:db8:2::5",
            "host": HOST,
        },
    )
    one, two = await pair(controller, network)
    endpoint = network.endpoint("one")
    async with serving(one, two):
        assert await from_host(endpoint)
        for number in (0, 1):
            async with await anyio.connect_tcp(
                addresses(two, network)[number], 80
            ) as stream:
                answer = (await stream.receive()).decode()
                assert answer == ["192.0.2.5", "2001:db8:2::5"][number]
        await endpoint.leave()
        await endpoint.join(one)
        assert await from_host(endpoint)
        assert await controller.check() == ()
        with NetlinkSocket() as route:
            route.call(delete_link(name=f"cs-{network.id[:12]}"))
        # the controller notices, too, and may be about to make it, or have made it
        found = [it.problem for it in await controller.repair()]
        link = f"link cs-{network.id[:12]}"
        assert found in ([f"{link} is gone"], [f"{link} is another one"], [])
        assert await controller.check() == ()
        assert await from_host(endpoint)
    await network.delete(force=True)
    assert host_links() == sorted(["lo", PARENT])


async def test_nobody_on_the_link_gives_the_host_routes(
    controller: Controller, lan: Namespace
) -> None:
    network = await create(
        controller,
        options={"host_shim": True},
        aux_addresses={"HostShimIPv6": "2001:db8:2::5", "host": HOST},
    )
    one = await controller.create_sandbox("one")
    await network.connect(one)
    shim = f"cs-{network.id[:12]}"
    with Namespace("one", one.key) as inside, NetlinkSocket() as route, Ear() as ear:

        def advertised() -> bool:
            advertise(inside)
            ear.wait()
            # it has been dealt with, by the link's own work, when this is
            route.call(set_link(name=shim, up=True))
            routes = map(parse_route, route.dump(dump_routes(6)))
            return any(it.destination.prefixlen == 0 for it in routes)

        assert not advertised()
        in_thread(lambda: sysctl.write(f"net.ipv6.conf.{shim}.accept_ra", "1"))
        assert advertised()


async def test_it_is_back_after_a_restart(tmp_path: Path, lan: Namespace) -> None:
    path = tmp_path / "cnm.db"
    async with Controller(store=SQLiteStore(path)) as controller:
        network = await create(
            controller,
            options={"host_shim": True},
            aux_addresses={"HostShimIPv4": "192.0.2.5", "host": HOST},
        )
        one, two = await pair(controller, network)
    async with Controller(store=SQLiteStore(path)) as controller:
        network, one, two = (
            controller.network("lan"),
            controller.sandbox("one"),
            controller.sandbox("two"),
        )
        assert await controller.check() == ()
        async with serving(one, two):
            assert await tcp(one, addresses(two, network)[0])
            assert await from_host(network.endpoint("two"))
        with pytest.raises(cnm.ConflictError):
            await create(controller, "other", options={"macvlan_mode": "passthru"})
        await one.delete()
        await two.delete()
        await network.delete(force=True)
        await controller._services.kernel.run(remove_table, controller._services)


@pytest.mark.parametrize(
    ("options", "more", "problem"),
    [
        ({"parent": "lo"}, {}, "the loopback leads nowhere"),
        (
            {"parent": "nix0"},
            {},
            "there is no link 'nix0' on the host; a name like eth0.50",
        ),
        (
            {"parent": "nix0.50"},
            {},
            "there is no link 'nix0' on the host that could carry",
        ),
        ({"parent": "lan0.0"}, {}, "vlan id must be between 1-4094, received: 0"),
        ({"parent": "lan0.4095"}, {}, "vlan id must be between 1-4094, received: 4095"),
        ({"parent": "a/b"}, {}, "failed to parse parent value: 'a/b'"),
        ({"macvlan_mode": "l2"}, {}, "expected one of bridge, private, vepa"),
        ({"mtu": 9000}, {}, "mtu 9000 is more than that of the parent lan0"),
        ({"mtu": 1000}, {}, "mtu 1000 is too small: IPv6 needs 1280"),
        ({"host_shim": True}, {}, "host_shim needs an address of the host"),
        ({"macvlan_mod": "vepa"}, {}, "did you mean 'macvlan_mode'"),
        ({}, {"ipam": "null", "subnets": []}, "need addresses; 'null' has none"),
        ({}, {"internal": True}, "a network with a parent is not internal"),
        *(
            (
                {"macvlan_mode": it, "host_shim": True},
                {},
                f"is not possible with macvlan_mode {it!r}",
            )
            for it in ("passthru", "private", "source")
        ),
    ],
)
async def test_what_is_refused(
    controller: Controller,
    lan: Namespace,
    options: dict[str, object],
    more: dict[str, Any],
    problem: str,
) -> None:
    with pytest.raises(cnm.InvalidError) as caught:
        await create(controller, options=options, aux_addresses={}, **more)
    assert problem in str(caught.value)
    assert controller.networks == ()
    assert host_links() == sorted(["lo", PARENT])


async def test_ports_are_refused(controller: Controller, lan: Namespace) -> None:
    network = await create(controller)
    box = await controller.create_sandbox("box")
    with pytest.raises(
        cnm.InvalidError, match="driver 'macvlan' does not publish ports"
    ):
        await network.connect(box, ports=["8080:80"])
    assert network.endpoints == ()
