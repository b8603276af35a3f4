"""A server that runs in a namespace of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from cnm.dns.forwarder import Forwarder
from cnm.dns.server import Server

from ..lab import Namespace
from .world import RESOLVER, World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with Namespace("box") as there:
        world = World(there, Server(), Forwarder())
        world.listen(world.box, RESOLVER)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.server.run)
            yield world
            tasks.cancel_scope.cancel()
        world.server.shut()
