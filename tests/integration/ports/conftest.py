"""The world of the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from tests.integration.lab import Namespace, make_router

from .world import BOX4, BOX6, HOST4, HOST6, Publisher, World, publisher


@pytest.fixture
def world() -> Iterator[World]:
    """A host, a sandbox with servers on ports 80, 81 and 53/udp, a client outside."""
    with ExitStack() as stack:
        host = stack.enter_context(Namespace("host"))
        client = stack.enter_context(Namespace("client"))
        box = stack.enter_context(Namespace("box"))
        make_router(host)
        outside, _ = host.connect(client, "out0", "192.0.2.2/24", "2001:db8::2/64")
        host.add_addresses(
            outside, f"{HOST4}/24", "192.0.2.9/24", f"{HOST6}/64", "2001:db8::9/64"
        )
        bridge = host.add_bridge("br9", "10.9.0.1/24", "fd00:9::1/64")
        host.connect(box, "v-box", f"{BOX4}/24", f"{BOX6}/64", master=bridge)
        box.add_default_routes("10.9.0.1", "fd00:9::1")
        world = World(host, box, client, bridge)
        stack.callback(world.servers.close)
        for port in (80, 81):
            world.servers.add(box, port)
        world.servers.add(box, 53, "udp")
        yield world


@pytest.fixture(params=[True, False], ids=["redirected", "served"])
async def proxied(
    request: pytest.FixtureRequest, world: World
) -> AsyncIterator[Publisher]:
    """The ways to the proxy: redirected by the firewall, or served without one."""
    async with publisher(world, enabled=request.param) as it:
        yield it
