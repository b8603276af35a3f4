"""Traffic between sandboxes, their host, and machines outside."""

# ruff: noqa: ASYNC110 - the kernel has no event for it

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute, SocketStream

import cnm
from cnm import Controller
from cnm.firewall.ruleset import IN_NAT
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
)

from ...conftest import host_links
from ..barriers import Host, rule
from ..lab import Namespace, Servers, until_links
from ..publishing.reach import Probe, check
from .conftest import HOST4, HOST6, OUTSIDE4, OUTSIDE6
from .traffic import addresses, blocked, pair, plain, serving, tcp, udp

DUAL = ["10.9.0.0/24", "fd00:9::/64"]
INTERNAL_ISOLATED = {"gateway_mode_ipv4": "isolated", "gateway_mode_ipv6": "isolated"}


def bridge_addresses(name: str) -> list[str]:
    with NetlinkSocket() as route:
        index = parse_link(route.call(get_link(name=name))[0]).index
        found = [parse_address(m) for m in route.dump(dump_addresses(index))]
        return sorted(str(a.interface) for a in found if a.index == index)


async def setting(sandbox: cnm.Sandbox, name: str) -> str:
    path = "/proc/sys/" + name.replace(".", "/")
    return (await sandbox.run(["cat", path])).stdout.decode().strip()


@pytest.mark.parametrize(
    "subnets", [DUAL[:1], DUAL[1:], DUAL], ids=["ipv4", "ipv6", "dual"]
)
async def test_sandboxes_reach_each_other(
    controller: Controller, subnets: list[str]
) -> None:
    four = subnets != DUAL[1:]
    network = await controller.create_network("front", subnets=subnets, ipv4=four)
    one, two = await pair(controller, network)
    sources, targets = addresses(one, network), addresses(two, network)
    assert len(sources) == len(targets) == len(subnets)
    async with serving(two):
        for source, target in zip(sources, targets, strict=True):
            assert await tcp(one, target) == source
            assert await udp(one, target) == source


async def test_host_and_sandbox_reach_each_other(controller: Controller) -> None:
    network = await controller.create_network("front", subnets=DUAL)
    one, two = await pair(controller, network)
    async with serving(one):
        for address, gateway in zip(
            addresses(one, network), network.gateways, strict=True
        ):
            async with await anyio.connect_tcp(address, 80) as stream:
                assert (await stream.receive()).decode() == str(gateway)

    async def answer(stream: SocketStream) -> None:
        async with stream:
            peer = stream.extra(SocketAttribute.remote_address)
            await stream.send(plain(peer[0]).encode())

    for gateway, own in zip(network.gateways, addresses(two, network), strict=True):
        listener = await anyio.create_tcp_listener(
            local_host=str(gateway), local_port=80
        )
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, answer)
            assert await tcp(two, gateway) == own
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def servers(*hosts: Namespace) -> AsyncIterator[Servers]:
    running = Servers()
    try:
        for host in hosts:
            running.add(host, 80)
            running.add(host, 80, "udp")
        yield running
    finally:
        running.close()


async def test_way_out_is_masqueraded(
    reporting_controller: Controller, outside: Namespace
) -> None:
    network = await reporting_controller.create_network("front", subnets=DUAL)
    one, _ = await pair(reporting_controller, network)
    outside.add_default_routes(HOST4, HOST6)
    async with servers(outside), serving(one):
        for target, host in ((OUTSIDE4, HOST4), (OUTSIDE6, HOST6)):
            assert await tcp(one, target) == f"outside {host}"
            assert await udp(one, target) == f"outside {host}"
        with Host() as sockets:
            directly: list[Probe] = [
                (outside, own, 80, proto)
                for own in addresses(one, network)
                for proto in ("tcp", "udp", "icmp")
            ]
            await check(directly, rule(sockets, IN_NAT.chain))


async def test_host_address_instead_of_masquerading(
    controller: Controller, outside: Namespace
) -> None:
    with NetlinkSocket() as route:
        uplink = parse_link(route.call(get_link(name="uplink"))[0]).index
        route.call(add_address(uplink, ipaddress.ip_interface("203.0.113.77/24")))
    network = await controller.create_network(
        "front", subnets=DUAL[:1], options={"host_ipv4": "203.0.113.77"}
    )
    one, _ = await pair(controller, network)
    async with servers(outside):
        assert await tcp(one, OUTSIDE4) == "outside 203.0.113.77"


async def test_routed_mode_keeps_the_source(
    controller: Controller, outside: Namespace
) -> None:
    network = await controller.create_network(
        "front",
        subnets=DUAL,
        options={
            "com.docker.network.bridge.gateway_mode_ipv4": "routed",
            "gateway_mode_ipv6": "routed",
        },
    )
    one, _ = await pair(controller, network)
    outside.add_default_routes(HOST4, HOST6)
    async with servers(outside):
        for own, target in zip(
            addresses(one, network), (OUTSIDE4, OUTSIDE6), strict=True
        ):
            assert await tcp(one, target) == f"outside {own}"


async def test_no_masquerading(controller: Controller, outside: Namespace) -> None:
    network = await controller.create_network(
        "front", subnets=DUAL[:1], options={"enable_ip_masquerade": "false"}
    )
    one, _ = await pair(controller, network)
    outside.add_default_routes(HOST4)
    async with servers(outside):
        assert await tcp(one, OUTSIDE4) == f"outside {addresses(one, network)[0]}"


async def test_networks_are_isolated(controller: Controller) -> None:
    front = await controller.create_network("front", subnets=DUAL)
    back = await controller.create_network(
        "back", subnets=["10.10.0.0/24", "fd00:10::/64"]
    )
    one = await controller.create_sandbox("one")
    two = await controller.create_sandbox("two")
    await front.connect(one)
    await back.connect(two)
    async with serving(two):
        for address in addresses(two, back):
            assert await blocked(one, address)
        await back.connect(one)
        for address in addresses(two, back):
            assert await tcp(one, address)


async def test_internal_network(controller: Controller, outside: Namespace) -> None:
    network = await controller.create_network("in", subnets=DUAL, internal=True)
    one, two = await pair(controller, network)
    async with servers(outside), serving(two):
        assert await tcp(one, addresses(two, network)[0])
        for target in (OUTSIDE4, OUTSIDE6):
            with pytest.raises(OSError, match="nreachable"):
                await one.connect_tcp(target, 80)
        async with await anyio.connect_tcp(addresses(two, network)[0], 80) as stream:
            assert await stream.receive()
    assert one.gateways == {}


@pytest.mark.parametrize("subnets", [DUAL[:1], DUAL], ids=["ipv4", "dual"])
async def test_ways_that_are_open_without_inter_container_communication(
    controller: Controller, subnets: list[str], outside: Namespace
) -> None:
    network = await controller.create_network(
        "front", subnets=subnets, options={"enable_icc": False}
    )
    one, two = await pair(controller, network)
    async with servers(outside), serving(two):
        assert await tcp(one, OUTSIDE4) == f"outside {HOST4}"
        async with await anyio.connect_tcp(addresses(two, network)[0], 80) as stream:
            assert await stream.receive()


async def test_isolated_mode(controller: Controller) -> None:
    network = await controller.create_network(
        "pp", subnets=["10.9.0.0/31"], internal=True, options=INTERNAL_ISOLATED
    )
    one, two = await pair(controller, network)
    bridge = next(name for name in host_links() if name.startswith("br-"))
    assert bridge_addresses(bridge) == []
    assert network.gateways == ()
    assert {addresses(one, network)[0], addresses(two, network)[0]} == {
        "10.9.0.0",
        "10.9.0.1",
    }
    async with serving(two):
        assert await tcp(one, addresses(two, network)[0])
    with pytest.raises(OSError, match="failed"):  # the host has no way to it
        await anyio.connect_tcp(addresses(two, network)[0], 80)


async def test_ipv6_only(controller: Controller) -> None:
    network = await controller.create_network("six", subnets=DUAL[1:], ipv4=False)
    one, _ = await pair(controller, network)
    assert one.endpoints[0].address is None
    assert b"eth0" not in (await one.run(["cat", "/proc/net/route"])).stdout
    async with serving(one):
        assert await tcp(one, "127.0.0.1") == "127.0.0.1"


async def test_ipv4_only_disables_ipv6_on_the_interface(
    controller: Controller,
) -> None:
    network = await controller.create_network("four", subnets=DUAL[:1])
    one, _ = await pair(controller, network)
    assert one.endpoints[0].address6 is None
    assert await setting(one, "net.ipv6.conf.eth0.disable_ipv6") == "1"
    assert b"eth0" not in (await one.run(["cat", "/proc/net/if_inet6"])).stdout
    async with serving(one):
        assert await tcp(one, "::1") == "::1"


async def test_a_sysctl_that_disables_ipv6(controller: Controller) -> None:
    network = await controller.create_network("dual", subnets=DUAL)
    one = await controller.create_sandbox("one")
    endpoint = await network.connect(
        one, sysctls={"net.ipv6.conf.IFNAME.disable_ipv6": "1"}
    )
    assert endpoint.address6 is None
    assert str(endpoint.address) == "10.9.0.2/24"
    assert b"eth0" not in (await one.run(["cat", "/proc/net/if_inet6"])).stdout


async def test_sysctls_of_the_interface(controller: Controller) -> None:
    network = await controller.create_network("front", subnets=DUAL)
    one = await controller.create_sandbox("one")
    await network.connect(one, sysctls={"net.ipv4.conf.IFNAME.log_martians": 1})  # type: ignore[dict-item]
    await network.connect(
        one,
        name="second",
        interface_name="lan.7",
        options={
            "com.docker.network.endpoint.sysctls": "net.ipv4.conf.ifname.log_martians"
            "=1, net.ipv6.conf.IFNAME.accept_ra=2"
        },
    )
    assert await setting(one, "net.ipv4.conf.eth0.log_martians") == "1"
    lan = (await one.run(["cat", "/proc/sys/net/ipv6/conf/lan.7/accept_ra"])).stdout
    assert lan == b"2\n"
    three = await controller.create_sandbox("three")
    with pytest.raises(cnm.KernelError, match="nothing_of_the_kind"):
        await network.connect(
            three, sysctls={"net.ipv4.conf.IFNAME.nothing_of_the_kind": "1"}
        )
    assert three.endpoints == ()


async def test_a_bridge_is_not_flooded_twice(controller: Controller) -> None:
    """An interface says once which groups it joins, not once more within a second."""
    network = await controller.create_network("front", subnets=DUAL)
    one = await controller.create_sandbox("one")
    await network.connect(one)
    # one for the interface, one for its addresses, which may be divided among two
    while await _reports(one) < 2:
        await anyio.sleep(0.01)
    await anyio.sleep(1.1)
    assert await _reports(one) <= 3  # repeated, there are four or five


async def _reports(sandbox: cnm.Sandbox) -> int:
    counters = (await sandbox.run(["cat", "/proc/net/snmp6"])).stdout.decode().split()
    return int(counters[counters.index("Icmp6OutMLDv2Reports") + 1])


async def test_mtu(controller: Controller) -> None:
    network = await controller.create_network(
        "front", options={"com.docker.network.driver.mtu": "1234"}
    )
    one, _ = await pair(controller, network)
    with NetlinkSocket() as route:
        links = [parse_link(route.call(get_link(name=n))[0]) for n in host_links()]
    assert {link.mtu for link in links if link.kind in ("bridge", "veth")} == {1234}
    mtu = (await one.run(["cat", "/sys/class/net/eth0/mtu"])).stdout
    assert mtu == b"1234\n"


async def test_inhibit_ipv4(controller: Controller) -> None:
    network = await controller.create_network(
        "front", subnets=DUAL[:1], options={"inhibit_ipv4": "true", "name": "br0"}
    )
    assert bridge_addresses("br0") == []
    assert [str(gateway) for gateway in network.gateways] == ["10.9.0.1"]


async def test_existing_bridge_is_left_as_found(controller: Controller) -> None:
    index = choose_index()
    with NetlinkSocket() as route:
        route.call(add_bridge("mine", index=index), set_link(index, up=True))
        try:
            before = [a for a in bridge_addresses("mine") if not a.startswith("fe80")]
            network = await controller.create_network(
                "front",
                subnets=DUAL,
                options={"com.docker.network.bridge.name": "mine"},
            )
            assert {"10.9.0.1/24", "fd00:9::1/64"} <= set(bridge_addresses("mine"))
            one, two = await pair(controller, network)
            async with serving(two):
                assert await tcp(one, addresses(two, network)[1])
            await network.delete(force=True)
            after = [a for a in bridge_addresses("mine") if not a.startswith("fe80")]
            assert after == before
            assert parse_link(route.call(get_link(index))[0]).up
        finally:
            route.call(delete_link(index))


async def test_removed_bridges_go_away(controller: Controller) -> None:
    before = host_links()
    network = await controller.create_network("front")
    await network.delete()
    await until_links(lambda: host_links() == before)
