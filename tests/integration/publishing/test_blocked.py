"""What must not get through, each with the setting or the rule that does it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

import pytest

import cnm
from cnm.firewall.ruleset import IN_DIRECT, IN_NAT, IN_ROUTED
from cnm.linux import add_route
from tests.integration.api.conftest import HOST4, HOST6
from tests.integration.api.traffic import serving
from tests.integration.barriers import ELSEWHERE, Host, rule, without
from tests.integration.lab import Namespace

from .reach import Probe, check, none_reached, reach, reach_all, unanswered

API4, API6 = "10.9.0.2", "fd00:9::2"


def route_to_sandboxes(outside: Namespace) -> None:
    """Have a machine outside send to the sandboxes' own addresses."""
    outside.route.call(
        add_route(ip_network("10.9.0.0/24"), via=ip_address(HOST4)),
        add_route(ip_network("fd00:9::/64"), via=ip_address(HOST6)),
    )


async def front(
    controller: cnm.Controller, options: Mapping[str, cnm.JSON] | None = None
) -> cnm.Network:
    return await controller.create_network(
        "front", subnets=["10.9.0.0/24", "fd00:9::/64"], options=options
    )


def probes(where: Namespace, port: int) -> list[Probe]:
    return [(where, to, port, proto) for to in (API4, API6) for proto in ("tcp", "udp")]


NAT, DIRECT, ROUTED = IN_NAT.chain, IN_DIRECT.chain, IN_ROUTED.chain
UNPROTECTED = {f"gateway_mode_ipv{version}": "nat-unprotected" for version in (4, 6)}
ROUTING = {f"gateway_mode_ipv{version}": "routed" for version in (4, 6)}
MODES: dict[str, tuple[Mapping[str, cnm.JSON], bool, str, str]] = {
    # options of the network, whether there is direct routing; which chain keeps packets
    # from a sandbox's own address: from a port that is published, and from another one
    "nat": ({}, False, NAT, NAT),
    "trusted": ({"trusted_host_interfaces": "uplink"}, False, "", DIRECT),
    "trusted other": ({"trusted_host_interfaces": "eth7:eth8"}, False, NAT, NAT),
    "direct": ({}, True, "", DIRECT),
    "unprotected": (UNPROTECTED, False, "", ""),
    "routed": (ROUTING, False, "", ROUTED),
}


async def check_chain(probes: list[Probe], chain: str) -> None:
    """Check that the last rule of a chain blocks probes, or that nothing does."""
    if chain:
        with Host() as host:
            await check(probes, rule(host, chain))
    else:
        assert unanswered(await reach_all(probes)) == {}


@pytest.mark.parametrize(
    ("options", "direct", "published", "unpublished"), MODES.values(), ids=MODES
)
async def test_own_addresses(
    outside: Namespace,
    options: Mapping[str, cnm.JSON],
    direct: bool,
    published: str,
    unpublished: str,
) -> None:
    route_to_sandboxes(outside)
    async with cnm.Controller(
        allow_direct_routing=direct, on_damage="report"
    ) as controller:
        network = await front(controller, options)
        api = await controller.create_sandbox("api")
        endpoint = await network.connect(api, ports=["8080:80", "8080:80/udp"])
        async with serving(api):
            await check_chain(probes(outside, 80), published)
            await endpoint.unpublish()
            await check_chain(probes(outside, 80), unpublished)


async def test_marked_packets(outside: Namespace) -> None:
    """Nothing here marks packets: that the rule lets them in is seen elsewhere."""
    route_to_sandboxes(outside)
    async with cnm.Controller(
        accept_fwmark="0x1/0x3", on_damage="report"
    ) as controller:
        network = await front(controller)
        api = await controller.create_sandbox("api")
        await network.connect(api)
        async with serving(api):
            await check_chain(probes(outside, 80), NAT)


async def test_routed_ports_have_no_port_of_the_host(
    controller: cnm.Controller, outside: Namespace
) -> None:
    network = await front(controller, {"gateway_mode_ipv6": "routed"})
    api = await controller.create_sandbox("api")
    endpoint = await network.connect(api, ports=["8080:80"])
    assert sorted(map(str, endpoint.ports)) == [
        "0.0.0.0:8080->10.9.0.2:80/tcp",
        "[fd00:9::2]:80/tcp",
    ]
    async with serving(api):
        assert await reach(outside, HOST4, 8080) == "203.0.113.2"
        assert await none_reached([(outside, HOST6, 8080, "tcp")]) == {}


async def test_foreign_ports_of_the_same_number(
    controller: cnm.Controller, outside: Namespace
) -> None:
    """What is sent elsewhere is not taken for the published port."""
    network = await front(controller)
    api = await controller.create_sandbox("api")
    db = await controller.create_sandbox("db")
    await network.connect(api, ports=["8080:80"])
    await network.connect(db)
    async with serving(api):
        assert await reach(db, HOST4, 8080) != "ECONNREFUSED"
        elsewhere = ("203.0.113.2", "2001:db8::2")
        for to in elsewhere:
            assert await reach(db, to, 8080) == "ECONNREFUSED"
            assert await reach(None, to, 8080) == "ECONNREFUSED"
        with Host() as host, without(rule(host, "publish", ELSEWHERE)):
            taken: list[Probe] = [
                (where, to, 8080, "tcp") for where in (db, None) for to in elsewhere
            ]
            assert unanswered(await reach_all(taken)) == {}


async def test_unpublished(controller: cnm.Controller, outside: Namespace) -> None:
    network = await front(controller)
    api = await controller.create_sandbox("api")
    endpoint = await network.connect(api, ports=["8080:80", "8080:80/udp"])
    wanted: list[Probe] = [
        (where, to, 8080, proto)
        for where, to in ((outside, HOST4), (outside, HOST6), (None, "127.0.0.1"))
        for proto in ("tcp", "udp")
    ]
    async with serving(api):
        assert unanswered(await reach_all(wanted)) == {}
        await endpoint.unpublish("80/tcp", "80/udp")
        assert endpoint.ports == ()
        assert await none_reached(wanted) == {}
        assert await reach(outside, HOST4, 8080) == "ECONNREFUSED"
