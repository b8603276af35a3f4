"""Damage by others: found, reported, and mended."""

# ruff: noqa: SIM117 - tests nest what they wait for

from __future__ import annotations

from ipaddress import IPv4Interface, ip_network
from pathlib import Path
from typing import Any

import anyio
import pytest

import cnm
from cnm import Controller, SQLiteStore
from cnm.driver import NetworkChecked, NetworkState, hookimpl
from cnm.linux import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    Sockets,
    add_bridge,
    delete_address,
    delete_link,
    delete_route,
    get_link,
    namespaces,
    parse_link,
    set_link,
)
from cnm.linux.nftables import Batch, commit, list_chains_of_all, list_rules_of
from cnm.testing.fakes import FakeDriver

from ...conftest import host_links
from .test_restore import remove_all
from .traffic import serving, tcp

SUBNET = "10.9.0.0/24"
FORWARD = ("cnm", "forward")


@pytest.fixture
def passive() -> cnm.Controller:
    """A controller that only reports."""
    return Controller(on_damage="report")


def index_of(name: str) -> int:
    with NetlinkSocket() as route:
        return parse_link(route.call(get_link(name=name))[0]).index


async def built(controller: Controller) -> tuple[cnm.Network, cnm.Sandbox, cnm.Sandbox]:
    network = await controller.create_network(
        "front", subnets=[SUBNET, "fd00:9::/64"], options={"name": "br0"}
    )
    one = await controller.create_sandbox("one")
    two = await controller.create_sandbox("two")
    await network.connect(one, ports=["8080:80"])
    await network.connect(two)
    return network, one, two


async def works(one: cnm.Sandbox, two: cnm.Sandbox) -> None:
    async with serving(one, two):
        assert await tcp(one, "10.9.0.3") == "10.9.0.2"
        assert await tcp(two, "fd00:9::2") == "fd00:9::3"
        for address, port in (("10.9.0.2", 80), ("127.0.0.1", 8080)):
            with anyio.fail_after(30):
                async with await anyio.connect_tcp(address, port) as stream:
                    assert await stream.receive() == b"10.9.0.1"


async def mends(controller: Controller, *problems: str) -> None:
    """Check that problems are found, and are gone after a repair."""
    found = await controller.check()
    assert [difference.problem for difference in found] == list(problems)
    mended = await controller.repair()
    assert [difference.problem for difference in mended] == list(problems)
    assert [it.error for it in mended if not it.mended] == []
    assert await controller.check() == ()
    assert await controller.repair() == ()


async def test_a_bridge(passive: Controller) -> None:
    async with passive as controller:
        network, one, two = await built(controller)
        await works(one, two)
        with NetlinkSocket() as route:
            route.call(set_link(name="br0", up=False))
        await mends(controller, "bridge br0 is down", "bridge br0 lacks fd00:9::1/64")
        await works(one, two)
        address = IPv4Interface("10.9.0.1/24")
        with NetlinkSocket() as route:
            route.call(delete_address(index_of("br0"), address))
        await mends(controller, "bridge br0 lacks 10.9.0.1/24")
        await works(one, two)
        with NetlinkSocket() as route:
            route.call(delete_link(index_of("br0")))
        await mends(controller, "bridge br0 is gone")
        await works(one, two)
        assert network.endpoint("one").ports == one.ports != ()


async def test_ports_and_interfaces(passive: Controller) -> None:
    async with passive as controller:
        network, one, two = await built(controller)
        veth = f"veth{network.endpoint('one').id[:11]}"
        with NetlinkSocket() as route:
            route.call(set_link(index_of(veth), master=0))
        await mends(controller, f"{veth} is no port of bridge br0, or is down")
        await works(one, two)
        with NetlinkSocket() as route:
            route.call(delete_link(index_of(veth)))
        await mends(controller, "its interface eth0 is gone")
        await works(one, two)


async def test_lines_to_the_host(passive: Controller) -> None:
    async with passive as controller:
        network = await controller.create_network(
            "lines", "ptp", subnets=[SUBNET, "fd00:9::/64"]
        )
        one = await controller.create_sandbox("one")
        two = await controller.create_sandbox("two")
        for box in (one, two):
            await network.connect(box)
        name = f"ptp{network.endpoint('one').id[:12]}"
        index = index_of(name)
        for damage, problem in (
            (set_link(index, up=False), f"{name} is down"),
            (
                delete_address(index, IPv4Interface("10.9.0.1/32")),
                f"{name} lacks 10.9.0.1",
            ),
            (
                delete_route(ip_network("fd00:9::2"), index=index),
                f"the host has no route to fd00:9::2 by {name}",
            ),
        ):
            with NetlinkSocket() as route:
                route.call(damage)
            await mends(controller, problem)
            async with serving(one, two):
                assert await tcp(one, "10.9.0.3") == "10.9.0.2"
                assert await tcp(two, "fd00:9::2") == "fd00:9::3"


async def test_a_line_is_missed_at_once() -> None:
    async with Controller() as controller:
        network = await controller.create_network("lines", "ptp")
        endpoint = await network.connect(await controller.create_sandbox("one"))
        name = f"ptp{endpoint.id[:12]}"
        async with controller.subscribe(cnm.DamageFound) as events:
            with NetlinkSocket() as route:
                route.call(set_link(index_of(name), up=False))
            with anyio.fail_after(10):
                event = await anext(events)
        (found,) = event.differences
        assert (found.problem, found.mended) == (f"{name} is down", True)


async def test_inside_of_a_sandbox(passive: Controller) -> None:
    async with passive as controller:
        network, one, two = await built(controller)
        attachment = network.endpoint("one").attachment
        assert attachment is not None
        index = attachment.index

        def lose_address(sockets: Sockets) -> None:
            with sockets.sandbox(one.key) as sandbox:
                address = IPv4Interface("10.9.0.2/24")
                sandbox.route.call(delete_address(index, address))

        def lose_route(sockets: Sockets) -> None:
            with sockets.sandbox(one.key) as sandbox:
                sandbox.route.call(delete_route(None, version=4))

        def switch_off(sockets: Sockets) -> None:
            with sockets.sandbox(one.key) as sandbox:
                sandbox.route.call(set_link(index, up=False))

        kernel = controller._services.kernel
        await kernel.run(lose_address)
        await mends(
            controller,
            "its interface eth0 lacks 10.9.0.2/24",
            "the IPv4 default route by eth0 is gone",
        )
        await works(one, two)
        await kernel.run(lose_route)
        await mends(controller, "the IPv4 default route by eth0 is gone")
        await kernel.run(switch_off)
        await mends(controller, "its interface eth0 is down")
        await works(one, two)


async def test_a_sandbox_that_is_gone(passive: Controller) -> None:
    async with passive as controller:
        network, one, two = await built(controller)
        await anyio.to_thread.run_sync(namespaces.unpin, one.key)
        (found,) = await controller.check()
        assert found.subject == one.info
        (mended,) = await controller.repair()
        assert mended.mended
        assert controller.sandboxes == (two,)
        endpoint = network.endpoint("one")
        assert (endpoint.joined, endpoint.ports) == (False, ())
        three = await controller.create_sandbox("three")
        await endpoint.join(three)
        await works(three, two)


async def test_a_table_with_less_in_it(passive: Controller) -> None:
    async with passive as controller:
        _, one, two = await built(controller)
        with NetlinkSocket(NETLINK_NETFILTER) as nft:
            chains = list_chains_of_all(nft)
            (forward,) = [it for it in chains if (it.table, it.name) == FORWARD]
            batch = Batch("cnm")
            for rule in list_rules_of(nft, forward):
                batch.delete_rule("forward", rule.handle)
            commit(nft, batch)
        (found,) = await controller.check()
        assert found.problem.startswith("chain forward has 0 rules in place of ")
        await controller.repair()
        assert await controller.check() == ()
        await works(one, two)


async def test_it_happens_by_itself() -> None:
    async with Controller() as controller:
        _, one, two = await built(controller)
        async with controller.subscribe(cnm.DamageFound) as events:
            with NetlinkSocket() as route:
                route.call(delete_link(index_of("br0")))
            with anyio.fail_after(10):
                event = await anext(events)
            assert [it.problem for it in event.differences] == ["bridge br0 is gone"]
            assert [it.error for it in event.differences if not it.mended] == []
            await works(one, two)
            address = IPv4Interface("10.9.0.1/24")
            with NetlinkSocket() as route:
                route.call(delete_address(index_of("br0"), address))
            with anyio.fail_after(10):
                event = await anext(events)
            assert [it.mended for it in event.differences] == [True]
            await works(one, two)


@pytest.mark.parametrize("change", [{"master": 0}, {"up": False}])
async def test_a_port_is_missed_at_once(change: dict[str, Any]) -> None:
    async with Controller() as controller:
        network, one, two = await built(controller)
        veth = f"veth{network.endpoint('one').id[:11]}"
        async with controller.subscribe(cnm.DamageFound) as events:
            with NetlinkSocket() as route:
                route.call(set_link(index_of(veth), **change))
            with anyio.fail_after(10):
                event = await anext(events)
            (found,) = event.differences
            assert found.problem == f"{veth} is no port of bridge br0, or is down"
            assert found.mended
            await works(one, two)


async def test_a_namespace_is_missed_at_once() -> None:
    async with Controller() as controller:
        _, one, two = await built(controller)
        async with controller.subscribe(cnm.DamageFound) as events:
            # its process lives on, and with it the namespace
            async with await one.open_process(["sleep", "60"]) as process:
                await anyio.to_thread.run_sync(namespaces.unpin, one.key)
                with anyio.fail_after(10):
                    event = await anext(events)
                process.kill()
            (found,) = event.differences
            assert (found.problem, found.mended) == ("its namespace is gone", True)
            assert controller.sandboxes == (two,)


async def test_rules_are_missed_at_once() -> None:
    async with Controller() as controller:
        _, one, two = await built(controller)
        async with controller.subscribe(cnm.DamageFound) as events:
            with NetlinkSocket(NETLINK_NETFILTER) as nft:
                batch = Batch("cnm")
                ours = controller._services.firewall._elements.values()
                batch.delete_elements([it for it in ours if it.set.name == "any4"])
                commit(nft, batch)
            with anyio.fail_after(10):
                event = await anext(events)
            (found,) = event.differences
            assert found.problem == "set any4 has 0 elements in place of 1"
            assert found.mended
            await works(one, two)


async def test_a_network_that_could_not_be_restored(tmp_path: Path) -> None:
    path = tmp_path / "cnm.db"
    async with Controller(store=SQLiteStore(path)) as controller:
        await built(controller)
    with NetlinkSocket() as route:
        route.call(delete_link(index_of("br0")))
        route.call(add_bridge("br0"))
    async with Controller(store=SQLiteStore(path), on_damage="report") as controller:
        network = controller.network("front")
        assert network.fault == "link 'br0' belongs to somebody else"
        for _ in range(2):
            assert [it.error for it in await controller.repair()] == [network.fault]
        with NetlinkSocket() as route:
            route.call(delete_link(index_of("br0")))
        (mended,) = await controller.repair()
        assert (mended.mended, network.fault) == (True, "")
        assert await controller.check() == ()
        one, two = controller.sandbox("one"), controller.sandbox("two")
        await works(one, two)
        assert network.endpoint("one").ports == one.ports != ()
        with pytest.raises(cnm.AddressInUse):
            await network.create_endpoint("more", address="10.9.0.2")
        await network.connect(await controller.create_sandbox("three"))
    await remove_all(path)


class Mover(FakeDriver):
    """Says that a network's link is gone, and makes another; its state is the same."""

    links = (1000,)

    @hookimpl
    async def cnm_network_created(self, event: cnm.NetworkCreated) -> NetworkState:
        return NetworkState(links=self.links)

    @hookimpl
    async def cnm_network_checked(
        self, event: NetworkChecked
    ) -> tuple[cnm.Difference, ...]:
        return (cnm.Difference(subject=event.network, problem="its link is gone"),)

    @hookimpl
    async def cnm_network_restored(self, event: cnm.NetworkRestored) -> NetworkState:
        return NetworkState(links=self.links)


async def test_a_link_that_is_another_one_now() -> None:
    driver = Mover()
    async with Controller(drivers={"mover": driver}, on_damage="report") as controller:
        network = await controller.create_network("front", driver="mover")
        driver.links = (1001,)
        (mended,) = await controller.repair()
        assert mended.mended
        assert network.links == (1001,)
        found = controller._services.networks.at
        assert (found(1000), found(1001)) == ((), (network,))


async def test_it_is_only_reported(passive: Controller) -> None:
    async with passive as controller:
        await built(controller)
        async with controller.subscribe(cnm.DamageFound) as events:
            with NetlinkSocket() as route:
                route.call(delete_link(index_of("br0")))
            with anyio.fail_after(10):
                event = await anext(events)
            assert [it.mended for it in event.differences] == [False]
            assert "br0" not in host_links()


async def test_our_own_doings_are_no_damage() -> None:
    async with Controller() as controller:
        async with controller.subscribe(cnm.DamageFound) as events:
            for _ in range(3):
                network, one, two = await built(controller)
                assert await controller.check() == ()
                await network.endpoint("one").leave()
                await two.delete()
                await one.delete()
                await network.delete(force=True)
            await anyio.sleep(0.3)
            with anyio.move_on_after(0.1) as scope:
                await anext(events)
            assert scope.cancelled_caught
