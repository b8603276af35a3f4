"""The world of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from cnm.linux import set_bridge_port, set_ipv4_configuration
from tests.integration.lab import Namespace, make_router

from .world import NETWORKS, World, rules


@pytest.fixture
def host() -> Iterator[Namespace]:
    with Namespace("host") as namespace:
        yield namespace


@pytest.fixture(params=[False])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Networks with servers; the parameter is whether br_netfilter is in use."""
    with ExitStack() as stack:
        host = stack.enter_context(Namespace("host"))
        client = stack.enter_context(Namespace("client"))
        world = World(host, client)
        world.boxes |= {"host": host, "client": client}
        servers = world.servers
        stack.callback(servers.close)
        make_router(host, filter_bridges=request.param)
        outside, _ = host.connect(client, "out0", "192.0.2.2/24", "2001:db8::2/64")
        host.add_addresses(outside, "192.0.2.1/24", "192.0.2.9/24", "2001:db8::1/64")
        client.add_default_routes("192.0.2.1", "2001:db8::1")
        for number, name in enumerate(NETWORKS, 1):
            bridge = world.bridges[name] = host.add_bridge(
                name, f"10.{number}.0.1/24", f"fd00:{number}::1/64"
            )
            host.route.call(set_ipv4_configuration(bridge, route_localnet=1))
            for last in (2, 3):
                box = stack.enter_context(Namespace(f"{name}{last}"))
                world.boxes[box.name] = box
                world.ports[box.name], _ = host.connect(
                    box,
                    f"v-{box.name}",
                    f"10.{number}.0.{last}/24",
                    f"fd00:{number}::{last}/64",
                    master=bridge,
                    isolated=name == "apart",
                )
                if request.param:
                    hairpin = set_bridge_port(world.ports[box.name], hairpin=True)
                    host.route.call(hairpin)
                box.add_default_routes(f"10.{number}.0.1", f"fd00:{number}::1")
                for port in (80, 81):
                    servers.add(box, port)
                servers.add(box, 53, "udp")
            world.firewall.update(host, add=rules(number, name).elements())
        world.firewall.rebuild(host)
        for box in (host, client):
            servers.add(box, 99)
            servers.add(box, 53, "udp")
        yield world
