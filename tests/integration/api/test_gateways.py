"""Default routes of sandboxes with several networks."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from functools import partial

import pytest

import cnm
from cnm import Controller
from cnm.linux import NetlinkSocket, dump_routes, namespaces, parse_route

from ..lab import Namespace, in_thread
from .fakes import FailingStore
from .traffic import serving, tcp

RT_TABLE_MAIN = 254  # include/uapi/linux/rtnetlink.h


def _gateways(version: int) -> list[str]:
    """Return the gateways of the default routes of the thread's namespace."""
    with NetlinkSocket() as route:
        parsed = [parse_route(m) for m in route.dump(dump_routes(version))]
    return [
        str(route.via)
        for route in parsed
        if not route.destination.prefixlen
        and route.table == RT_TABLE_MAIN
        and route.via
    ]


async def defaults(sandbox: cnm.Sandbox) -> dict[int, str]:
    """Return the gateways of the default routes that the kernel has, by family."""
    netns = namespaces.open_namespace(sandbox.key)

    def inside(version: int) -> list[str]:
        namespaces.enter(netns)
        return _gateways(version)

    found = {}
    try:
        for version in (4, 6):
            for gateway in in_thread(partial(inside, version)):
                assert version not in found, "several default routes"
                found[version] = gateway
    finally:
        os.close(netns)
    return found


async def default_interfaces(sandbox: cnm.Sandbox) -> list[str]:
    """Return the interfaces of the IPv4 default routes that the kernel has."""
    shown = await sandbox.run(["ip", "-4", "route", "show", "default"])
    return [
        line.split(" dev ")[1].split()[0] for line in shown.stdout.decode().splitlines()
    ]


async def networks(
    controller: Controller, **kinds: dict[str, object]
) -> list[cnm.Network]:
    """Create networks 10.1.0.0/24, 10.2.0.0/24 and so on."""
    made = []
    for number, (name, options) in enumerate(kinds.items(), start=1):
        subnets = [f"10.{number}.0.0/24"]
        if options.pop("dual", False):
            subnets.append(f"fd00:{number}::/64")
        made.append(
            await controller.create_network(name, subnets=subnets, **options)  # type: ignore[arg-type]
        )
    return made


async def test_names_decide_between_equals(controller: Controller) -> None:
    b, a, c = await networks(controller, b={}, a={}, c={})
    sandbox = await controller.create_sandbox("box")
    await b.connect(sandbox)
    assert await defaults(sandbox) == {4: "10.1.0.1"}
    await a.connect(sandbox)
    assert await defaults(sandbox) == {4: "10.2.0.1"}
    await c.connect(sandbox)
    assert await defaults(sandbox) == {4: "10.2.0.1"}
    assert sandbox.gateways[4].network is a
    await a.disconnect(sandbox)
    assert await defaults(sandbox) == {4: "10.1.0.1"}
    await b.disconnect(sandbox)
    assert await defaults(sandbox) == {4: "10.3.0.1"}
    await c.disconnect(sandbox)
    assert await defaults(sandbox) == {}


async def test_of_two_endpoints_of_a_network_the_first_to_join_decides(
    controller: Controller,
) -> None:
    (network,) = await networks(controller, a={})
    sandbox = await controller.create_sandbox("box")
    pair = [await network.create_endpoint(name) for name in ("one", "two")]
    later, first = sorted(pair, key=lambda it: it.id)
    await first.join(sandbox)
    await later.join(sandbox)
    assert sandbox.gateways[4] is first
    assert await default_interfaces(sandbox) == [first.interface]
    await first.leave()
    assert await default_interfaces(sandbox) == [later.interface]
    await first.join(sandbox)
    assert sandbox.gateways[4] is later
    assert await default_interfaces(sandbox) == [later.interface]
    # an interface that is made again comes as it came first
    await sandbox.run(["ip", "link", "delete", later.interface])
    await controller.repair()
    assert sandbox.gateways[4] is later
    assert await default_interfaces(sandbox) == [later.interface]


async def test_priority_beats_names(controller: Controller) -> None:
    a, b, c = await networks(controller, a={}, b={}, c={})
    sandbox = await controller.create_sandbox("box")
    await a.connect(sandbox)
    await b.connect(sandbox, gateway_priority=10)
    assert await defaults(sandbox) == {4: "10.2.0.1"}
    await c.connect(sandbox, gateway_priority=-1)
    await a.disconnect(sandbox)
    assert await defaults(sandbox) == {4: "10.2.0.1"}
    await b.disconnect(sandbox)
    assert await defaults(sandbox) == {4: "10.3.0.1"}


async def test_internal_networks_are_no_way_out(controller: Controller) -> None:
    inside, out = await networks(controller, a={"internal": True}, b={})
    sandbox = await controller.create_sandbox("box")
    await inside.connect(sandbox, gateway_priority=100)
    assert await defaults(sandbox) == {}
    await out.connect(sandbox)
    assert await defaults(sandbox) == {4: "10.2.0.1"}


async def test_dual_stack_beats_single_stack(controller: Controller) -> None:
    single, dual = await networks(controller, a={}, b={"dual": True})
    sandbox = await controller.create_sandbox("box")
    await single.connect(sandbox)
    assert await defaults(sandbox) == {4: "10.1.0.1"}
    await dual.connect(sandbox)
    assert await defaults(sandbox) == {4: "10.2.0.1", 6: "fd00:2::1"}
    await dual.disconnect(sandbox)
    assert await defaults(sandbox) == {4: "10.1.0.1"}


async def test_families_are_independent(controller: Controller) -> None:
    dual, single = await networks(controller, a={"dual": True}, b={})
    sandbox = await controller.create_sandbox("box")
    await dual.connect(sandbox)
    await single.connect(sandbox, gateway_priority=5)
    assert await defaults(sandbox) == {4: "10.2.0.1", 6: "fd00:1::1"}
    assert {v: e.network for v, e in sandbox.gateways.items()} == {4: single, 6: dual}
    await single.disconnect(sandbox)
    assert await defaults(sandbox) == {4: "10.1.0.1", 6: "fd00:1::1"}


async def test_a_failed_join_keeps_the_old_way() -> None:
    store = FailingStore()
    async with Controller(store=store) as controller:
        a, b = await networks(controller, b={"dual": True}, a={"dual": True})
        sandbox = await controller.create_sandbox("box")
        other = await controller.create_sandbox("other")
        await a.connect(sandbox)
        there = await a.connect(other)
        endpoint = await b.create_endpoint("ep", gateway_priority=9)
        before = await defaults(sandbox)
        store.failing = True
        with pytest.raises(cnm.StoreError, match="disk full"):
            await endpoint.join(sandbox)
        store.failing = False
        assert await defaults(sandbox) == before == {4: "10.1.0.1", 6: "fd00:1::1"}
        assert [e.interface for e in sandbox.endpoints] == ["eth0"]
        assert b"eth1" not in (await sandbox.run(["ls", "/sys/class/net"])).stdout
        assert there.address is not None
        async with serving(other):
            assert await tcp(sandbox, there.address.ip)
        await endpoint.join(sandbox)
        assert (await defaults(sandbox))[4] == "10.2.0.1"


async def test_a_bad_setting_keeps_the_old_way(controller: Controller) -> None:
    a, b = await networks(controller, b={}, a={})
    sandbox = await controller.create_sandbox("box")
    await a.connect(sandbox)
    with pytest.raises(cnm.KernelError, match="no_such_thing"):
        await b.connect(sandbox, sysctls={"net.ipv4.conf.IFNAME.no_such_thing": "1"})
    assert await defaults(sandbox) == {4: "10.1.0.1"}
    assert b.endpoints == ()
    await b.connect(sandbox)
    assert await defaults(sandbox) == {4: "10.2.0.1"}


@pytest.fixture
def container() -> Iterator[Namespace]:
    """Somebody's network namespace, with a default route of its own."""
    with Namespace("container") as mine, Namespace("router") as router:
        router.connect(mine, "port", "192.0.2.2/24", interface="own0")
        mine.add_default_routes("192.0.2.1")
        yield mine


async def test_a_foreign_default_route_is_not_replaced(
    controller: Controller, container: Namespace
) -> None:
    (network,) = await networks(controller, a={})
    sandbox = await controller.create_sandbox(
        "box", netns=f"/proc/self/fd/{container.netns}"
    )
    before = await defaults(sandbox)
    assert before == {4: "192.0.2.1"}
    with pytest.raises(cnm.NetlinkError, match="File exists"):
        await network.connect(sandbox)
    assert await defaults(sandbox) == before
    assert (network.endpoints, sandbox.endpoints) == ((), ())
    names = (await sandbox.run(["ls", "/sys/class/net"])).stdout.decode().split()
    assert [name for name in names if name.startswith("eth")] == []
    status = await network.ipam_status()
    assert status[ipaddress.ip_network("10.1.0.0/24")].in_use == 3
