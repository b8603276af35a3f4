"""From where a published port is reached."""

from __future__ import annotations

import cnm
from tests.integration.api.conftest import HOST4, HOST6
from tests.integration.api.traffic import serving
from tests.integration.lab import Namespace

from .reach import Place, none_reached, reach, reach_all, unanswered


async def _networks(controller: cnm.Controller) -> tuple[cnm.Network, cnm.Network]:
    front = await controller.create_network(
        "front", subnets=["10.9.0.0/24", "fd00:9::/64"]
    )
    other = await controller.create_network(
        "other", subnets=["10.8.0.0/24", "fd00:8::/64"]
    )
    return front, other


async def test_everywhere(
    controller: cnm.Controller, outside: Namespace, filtered_bridges: bool
) -> None:
    front, other = await _networks(controller)
    api = await controller.create_sandbox("api")
    db = await controller.create_sandbox("db")
    far = await controller.create_sandbox("far")
    published = await front.connect(api, ports=["8080:80/tcp", "8080:80/udp"])
    await front.connect(db)
    await other.connect(far)
    assert sorted(map(str, published.ports)) == [
        "0.0.0.0:8080->10.9.0.2:80/tcp",
        "0.0.0.0:8080->10.9.0.2:80/udp",
        "[::]:8080->[fd00:9::2]:80/tcp",
        "[::]:8080->[fd00:9::2]:80/udp",
    ]
    places: list[Place] = [outside, None, api, db, far]
    probes = [
        (where, address, 8080, proto)
        for where in places
        for address in (HOST4, HOST6)
        for proto in ("tcp", "udp")
    ]
    probes += [
        (None, address, 8080, proto)
        for address in ("127.0.0.1", "127.0.0.2", "::1", "10.9.0.1", "fd00:9::1")
        for proto in ("tcp", "udp")
    ]
    async with serving(api, db):
        assert unanswered(await reach_all(probes)) == {}
        # the server sees clients outside as they are
        assert await reach(outside, HOST4, 8080) == "203.0.113.2"
        assert await reach(outside, HOST6, 8080, "udp") == "2001:db8::2"
        # other ports are not
        others = [(where, to, 8081, proto) for where, to, _, proto in probes]
        assert await none_reached(others) == {}


async def test_without_ipv6(controller: cnm.Controller, outside: Namespace) -> None:
    network = await controller.create_network("front", subnets=["10.9.0.0/24"])
    api = await controller.create_sandbox("api")
    published = await network.connect(api, ports=["8080:80", "8080:80/udp"])
    assert sorted(map(str, published.ports)) == [
        "0.0.0.0:8080->10.9.0.2:80/tcp",
        "0.0.0.0:8080->10.9.0.2:80/udp",
        "[::1]:8080->10.9.0.2:80/tcp",
        "[::1]:8080->10.9.0.2:80/udp",
    ]
    probes = [
        (where, to, 8080, proto)
        for where, to in (
            (outside, HOST4),
            (None, HOST4),
            (None, "127.0.0.1"),
            (None, "::1"),
        )
        for proto in ("tcp", "udp")
    ]
    async with serving(api):
        assert unanswered(await reach_all(probes)) == {}


async def test_without_proxy(outside: Namespace) -> None:
    async with cnm.Controller(userland_proxy=False) as controller:
        front, _ = await _networks(controller)
        api = await controller.create_sandbox("api")
        await front.connect(api, ports=["8080:80", "8080:80/udp"])
        async with serving(api):
            reached = [(None, "127.0.0.1", 8080, "tcp"), (None, HOST6, 8080, "udp")]
            assert unanswered(await reach_all(reached)) == {}
            refused = await reach(None, "::1", 8080, "tcp")
            assert refused == "ECONNREFUSED"


async def test_one_address(controller: cnm.Controller, outside: Namespace) -> None:
    front, _ = await _networks(controller)
    api = await controller.create_sandbox("api")
    await front.connect(api, ports=["127.0.0.1:8080:80", f"[{HOST6}]:8081:80"])
    async with serving(api):
        reached = [
            (None, "127.0.0.1", 8080, "tcp"),
            (None, HOST6, 8081, "tcp"),
            (outside, HOST6, 8081, "tcp"),
        ]
        assert unanswered(await reach_all(reached)) == {}
        blocked = [
            (None, HOST4, 8080, "tcp"),
            (None, "127.0.0.2", 8080, "tcp"),
            (None, "::1", 8080, "tcp"),
            (None, "::1", 8081, "tcp"),
            (outside, HOST4, 8080, "tcp"),
            (outside, HOST4, 8081, "tcp"),
        ]
        assert await none_reached(blocked) == {}


async def test_loopback_address_of_both_families(controller: cnm.Controller) -> None:
    front, _ = await _networks(controller)
    api = await controller.create_sandbox("api")
    endpoint = await front.connect(api, ports=["127.0.0.1::80", "[::1]::80"])
    port = endpoint.ports[0].host_port
    assert {binding.host_port for binding in endpoint.ports} == {port}
    async with serving(api):
        reached = [(None, to, port, "tcp") for to in ("127.0.0.1", "::1")]
        assert unanswered(await reach_all(reached)) == {}
        assert await none_reached([(None, HOST4, port, "tcp")]) == {}


async def test_ranges(controller: cnm.Controller, outside: Namespace) -> None:
    front, _ = await _networks(controller)
    api = await controller.create_sandbox("api")
    endpoint = await front.connect(api, ports=["79-180:79-180", "8080-8083:80"])
    assert len(endpoint.ports) == 2 * (102 + 1)
    async with serving(api):
        reached = [
            (where, to, port, "tcp")
            for where, to in ((outside, HOST4), (outside, HOST6), (None, "127.0.0.1"))
            for port in (80, 8080)
        ]
        assert unanswered(await reach_all(reached)) == {}
        assert await none_reached([(outside, HOST4, 8081, "tcp")]) == {}
        # a range can be taken apart
        await endpoint.unpublish("80:80")
        assert await none_reached([(outside, HOST4, 80, "tcp")]) == {}
        assert len(endpoint.ports) == 2 * 102
