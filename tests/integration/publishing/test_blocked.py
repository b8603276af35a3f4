"""What must not get through, each with the setting that lets it through."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

import pytest

import cnm
from cnm.linux import add_route
from tests.integration.api.conftest import HOST4, HOST6
from tests.integration.api.traffic import serving
from tests.integration.lab import Namespace

from .reach import Probe, none_reached, reach, reach_all, unanswered

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


MODES: list[tuple[str, Mapping[str, cnm.JSON], dict[str, bool], bool, bool]] = [
    # options of the network, parameters of the controller; whether a sandbox's own
    # address can be reached: at a port that is published, at another one
    ("nat", {}, {}, False, False),
    ("trusted", {"trusted_host_interfaces": "uplink"}, {}, True, False),
    ("trusted other", {"trusted_host_interfaces": "eth7:eth8"}, {}, False, False),
    ("direct", {}, {"allow_direct_routing": True}, True, False),
    (
        "unprotected",
        {
            "gateway_mode_ipv4": "nat-unprotected",
            "gateway_mode_ipv6": "nat-unprotected",
        },
        {},
        True,
        True,
    ),
    (
        "routed",
        {"gateway_mode_ipv4": "routed", "gateway_mode_ipv6": "routed"},
        {},
        True,
        False,
    ),
]


@pytest.mark.parametrize(
    ("options", "parameters", "published", "unpublished"),
    [mode[1:] for mode in MODES],
    ids=[mode[0] for mode in MODES],
)
async def test_own_addresses(
    outside: Namespace,
    options: Mapping[str, cnm.JSON],
    parameters: dict[str, bool],
    published: bool,
    unpublished: bool,
) -> None:
    route_to_sandboxes(outside)
    direct = parameters.get("allow_direct_routing", False)
    async with cnm.Controller(allow_direct_routing=direct) as controller:
        network = await front(controller, options)
        api = await controller.create_sandbox("api")
        endpoint = await network.connect(api, ports=["8080:80", "8080:80/udp"])
        async with serving(api):
            if published:
                answers = await reach_all(probes(outside, 80))
                assert unanswered(answers) == {}
            else:
                assert await none_reached(probes(outside, 80)) == {}
            await endpoint.unpublish()
            if unpublished:
                answers = await reach_all(probes(outside, 80))
                assert unanswered(answers) == {}
            else:
                assert await none_reached(probes(outside, 80)) == {}


async def test_marked_packets(outside: Namespace) -> None:
    """Nothing here marks packets: that the rule lets them in is seen elsewhere."""
    route_to_sandboxes(outside)
    async with cnm.Controller(accept_fwmark="0x1/0x3") as controller:
        network = await front(controller)
        api = await controller.create_sandbox("api")
        await network.connect(api)
        async with serving(api):
            assert await none_reached(probes(outside, 80)) == {}


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
        for to in ("203.0.113.2", "2001:db8::2"):
            assert await reach(db, to, 8080) == "ECONNREFUSED"
            assert await reach(None, to, 8080) == "ECONNREFUSED"


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


async def test_isolation_is_not_bypassed(controller: cnm.Controller) -> None:
    """icc off stays off by way of the host; internal networks do not get out."""
    apart = await controller.create_network(
        "apart", subnets=["10.9.0.0/24"], options={"enable_icc": False}
    )
    inner = await controller.create_network(
        "inner", subnets=["10.7.0.0/24"], internal=True
    )
    boxes = [await controller.create_sandbox(name) for name in ("api", "db", "shut")]
    api, db, shut = boxes
    await apart.connect(api, ports=["8080:80"])
    await apart.connect(db)
    await inner.connect(shut)
    async with serving(api):
        assert await none_reached([(db, API4, 80, "tcp")]) == {}
        assert await none_reached([(db, "10.9.0.1", 8080, "tcp")]) == {}
        # there is no way, not even with a route
        shut_up = [(shut, to, 8080, "tcp") for to in ("10.7.0.1", "10.9.0.1")]
        assert await none_reached(shut_up) == {}
        assert await reach(None, "10.9.0.1", 8080) != ""
