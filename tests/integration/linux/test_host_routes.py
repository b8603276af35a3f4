from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from cnm.linux import (
    HostRoutes,
    Request,
    add_address,
    add_bridge,
    add_route,
    add_veth,
    delete_address,
    delete_link,
    delete_route,
    set_link,
)
from cnm.linux.wire import ROUTE, attribute, u32
from tests.integration.lab import Namespace

BRIDGE, OTHER = 40, 41


@pytest.fixture
def host() -> Iterator[Namespace]:
    with Namespace("host") as namespace:
        namespace.route.call(
            add_bridge("br0", index=BRIDGE, up=True),
            add_bridge("br1", index=OTHER, up=True),
            add_address(BRIDGE, ip_interface("10.1.0.1/24")),
            add_address(BRIDGE, ip_interface("fd00:1::1/64")),
        )
        yield namespace


@pytest.fixture
def routes(host: Namespace) -> Iterator[HostRoutes]:
    with host.run(HostRoutes) as found:
        yield found


def known(routes: HostRoutes, version: int = 4, *disregarded: int) -> list[str]:
    routes.disregard(*disregarded)
    try:
        return [str(it) for it in routes.networks(version)]
    finally:
        routes.regard(*disregarded)


def test_what_is_there_at_first(routes: HostRoutes) -> None:
    assert known(routes) == ["10.1.0.0/24"]
    assert known(routes, 6) == ["fd00:1::/64"]
    assert known(routes, 4, BRIDGE) == []
    assert known(routes, 6, BRIDGE, OTHER) == []


def test_what_comes_and_goes(host: Namespace, routes: HostRoutes) -> None:
    for address in ("10.9.0.1/16", "fd00:9::1/48"):
        host.route.call(add_address(OTHER, ip_interface(address)))
    assert known(routes) == ["10.1.0.0/24", "10.9.0.0/16"]
    assert known(routes, 6) == ["fd00:1::/64", "fd00:9::/48"]
    assert known(routes, 4, BRIDGE) == ["10.9.0.0/16"]
    for address in ("10.9.0.1/16", "fd00:9::1/48"):
        host.route.call(delete_address(OTHER, ip_interface(address)))
    assert known(routes) == ["10.1.0.0/24"]
    assert known(routes, 6) == ["fd00:1::/64"]


def test_a_link_that_goes_takes_its_routes_along(
    host: Namespace, routes: HostRoutes
) -> None:
    host.route.call(set_link(BRIDGE, up=False))
    assert known(routes) == []
    assert known(routes, 6) == []
    host.route.call(set_link(BRIDGE, up=True))
    assert known(routes) == ["10.1.0.0/24"]
    host.route.call(delete_link(BRIDGE))
    assert known(routes) == []


def test_a_link_that_moves_takes_its_routes_along(
    host: Namespace, routes: HostRoutes
) -> None:
    with Namespace("elsewhere") as elsewhere:
        host.route.call(add_veth("v0", "v1", index=50))
        host.route.call(add_address(50, ip_interface("10.5.0.1/24")))
        assert known(routes, 4, BRIDGE) == ["10.5.0.0/24"]
        host.route.call(set_link(50, netns=elsewhere.netns))
        assert known(routes, 4, BRIDGE) == []


def test_what_says_nothing_about_addresses_in_use(
    host: Namespace, routes: HostRoutes
) -> None:
    via, via6 = ip_address("10.1.0.9"), ip_address("fd00:1::9")
    host.route.call(
        add_route(None, via=via),
        add_route(None, via=via6),
        # a VPN's
        add_route(ip_network("0.0.0.0/1"), via=via),
        add_route(ip_network("128.0.0.0/7"), via=via),
        add_route(ip_network("2000::/3"), via=via6),
        add_route(ip_network("fe80::/64"), index=OTHER),
        add_route(ip_network("224.0.0.0/4"), index=OTHER),
    )
    assert known(routes) == ["10.1.0.0/24"]
    assert known(routes, 6) == ["fd00:1::/64"]
    host.route.call(
        add_route(ip_network("11.0.0.0/8"), via=via),
        add_route(ip_network("12.0.0.0/6"), index=OTHER),
        add_route(ip_network("fc01::/16"), via=via6),
        add_route(ip_network("fc80::/9"), index=OTHER),
    )
    assert known(routes) == ["10.1.0.0/24", "11.0.0.0/8", "12.0.0.0/6"]
    assert known(routes, 6) == ["fc01::/16", "fc80::/9", "fd00:1::/64"]


def test_a_route_that_is_replaced(host: Namespace, routes: HostRoutes) -> None:
    target = ip_network("10.8.0.0/16")
    host.route.call(add_route(target, index=BRIDGE))
    assert known(routes, 4, BRIDGE) == []
    host.route.call(add_route(target, index=OTHER, replace=True))
    assert known(routes, 4, BRIDGE) == ["10.8.0.0/16"]
    host.route.call(delete_route(target))
    assert known(routes) == ["10.1.0.0/24"]


def test_a_route_by_several_links(host: Namespace, routes: HostRoutes) -> None:
    target = ip_network("fd08::/32")
    several = 0x800  # NLM_F_APPEND: another next hop

    def hop(last: int, flags: int, kind: int = 24) -> Request:
        body = ROUTE.pack(10, 32, 0, 0, 254, 4, 0, 1, 0)
        body += attribute(1, target.network_address.packed) + u32(4, BRIDGE)
        body += attribute(5, ip_address(f"fd00:1::{last}").packed)
        return Request(kind, flags, body, "route")

    host.route.call(hop(8, 0x600))
    assert known(routes, 6) == ["fd00:1::/64", "fd08::/32"]
    host.route.call(hop(9, 0x400 | several))
    assert known(routes, 6) == ["fd00:1::/64", "fd08::/32"]
    host.route.call(hop(9, 0, 25))
    assert known(routes, 6) == ["fd00:1::/64", "fd08::/32"]
    host.route.call(hop(8, 0, 25))
    assert known(routes, 6) == ["fd00:1::/64"]


def test_other_tables_do_not_count(host: Namespace, routes: HostRoutes) -> None:
    body = ROUTE.pack(socket.AF_INET, 8, 0, 0, 100, 4, 253, 1, 0)
    body += attribute(1, ip_address("13.0.0.0").packed) + u32(4, BRIDGE)
    host.route.call(Request(24, 0x600, body, "add route in table 100"))
    assert known(routes) == ["10.1.0.0/24"]


def test_more_changes_than_the_buffer_holds(host: Namespace) -> None:
    with host.run(HostRoutes) as routes:
        routes._events._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        targets = [ip_network(f"10.7.{it}.0/24") for it in range(200)]
        host.route.call(*(add_route(it, index=OTHER) for it in targets))
        host.route.call(*(delete_route(it) for it in targets[:100]))
        expected = [ip_network("10.1.0.0/24"), *targets[100:]]
        assert list(routes.networks(4)) == expected
        host.route.call(delete_route(targets[100]))
        assert targets[100] not in routes.networks(4)


def test_threads(host: Namespace, routes: HostRoutes) -> None:
    failures: list[str] = []

    def look() -> None:
        seen = [known(routes) for _ in range(200)]
        failures.extend(str(it) for it in seen if "10.1.0.0/24" not in it)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for it in range(100):
        network = ip_network(f"10.7.{it}.0/24")
        host.route.call(add_route(network, index=OTHER), delete_route(network))
    for thread in threads:
        thread.join()
    assert failures == []
    assert known(routes) == ["10.1.0.0/24"]
