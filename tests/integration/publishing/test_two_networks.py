"""Ports of sandboxes whose default routes go through different networks."""

from __future__ import annotations

import socket
from ipaddress import ip_interface

import anyio
import pytest

import cnm
from cnm.linux import NetlinkSocket, add_address, delete_address
from tests.integration.api.traffic import serving
from tests.integration.lab import LOOPBACK


@pytest.fixture
async def endpoints(
    controller: cnm.Controller,
) -> tuple[cnm.Endpoint, cnm.Endpoint]:
    """The endpoints of a sandbox that have the IPv6 and the IPv4 default route."""
    six = await controller.create_network("six", subnets=["fd00:6::/64"], ipv4=False)
    four = await controller.create_network("four", subnets=["10.4.0.0/24"])
    box = await controller.create_sandbox("box")
    return await six.connect(box), await four.connect(box)


def is_free(port: int) -> bool:
    """Tell whether a port is free at all IPv6 addresses."""
    with socket.socket(socket.AF_INET6) as made:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            made.bind(("::", port))
        except OSError:
            return False
        return True


def places(endpoint: cnm.Endpoint) -> list[str]:
    return [f"{it.host_address}:{it.host_port}" for it in endpoint.ports]


async def test_localhost_is_served_by_one_of_them(
    endpoints: tuple[cnm.Endpoint, cnm.Endpoint],
) -> None:
    six, four = endpoints
    await four.publish("[::1]:8080:80", "127.0.0.1:8080:80")
    assert (places(six), places(four)) == (["::1:8080"], ["127.0.0.1:8080"])
    await four.unpublish()
    assert (places(six), places(four)) == ([], [])


async def test_localhost_is_served_if_the_other_network_publishes_nothing(
    controller: cnm.Controller,
) -> None:
    six = await controller.create_network(
        "six", "ptp", subnets=["fd00:6::/64"], ipv4=False
    )
    four = await controller.create_network("four", subnets=["10.4.0.0/24"])
    box = await controller.create_sandbox("box")
    await six.connect(box)
    endpoint = await four.connect(box, ports=["[::1]:8080:80", "8081:81"])
    assert places(endpoint) == ["::1:8080", "0.0.0.0:8081", "::1:8081"]


async def test_a_failure_gives_ports_of_ranges_back(
    endpoints: tuple[cnm.Endpoint, cnm.Endpoint],
) -> None:
    six, four = endpoints
    await six.publish("[::]:8004-8006:80")
    assert places(six) == [":::8004"]
    with socket.create_server(("127.0.0.1", 9000)), pytest.raises(cnm.PortInUse):
        # the first one has the range go to another port, before the second fails
        await six.publish("[::1]:8004:81", "127.0.0.1:9000:81")
    assert (places(six), places(four)) == ([":::8004"], [])
    assert [is_free(port) for port in (8004, 8005)] == [False, True]
    await six.unpublish()
    assert is_free(8004)


async def test_ports_at_an_address_that_has_gone_survive_a_failure(
    controller: cnm.Controller,
) -> None:
    address = ip_interface("192.0.2.77/32")
    one = await controller.create_network("one", subnets=["10.1.0.0/24"])
    two = await controller.create_network("two", subnets=["10.2.0.0/24"])
    box = await controller.create_sandbox("box")
    with NetlinkSocket() as route:
        route.call(add_address(LOOPBACK, address))
        endpoint = await one.connect(box, ports=["192.0.2.77:8080:80", "8081:80"])
        before = endpoint.ports
        route.call(delete_address(LOOPBACK, address))
        # the ports would move, and have to be given back
        with pytest.raises(cnm.InvalidError, match="is not an address of this host"):
            await two.connect(box, gateway_priority=1)
        assert endpoint.ports == before
        async with serving(box):
            assert await reached("127.0.0.1", 8081)
            route.call(add_address(LOOPBACK, address))
            assert await reached("192.0.2.77", 8080)
        await endpoint.unpublish()
        route.call(delete_address(LOOPBACK, address))


async def reached(address: str, port: int) -> bool:
    async with await anyio.connect_tcp(address, port) as stream:
        return bool(await stream.receive())
