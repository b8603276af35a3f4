"""asyncio's own cancellation goes through shields; nothing may be lost all the same."""

from __future__ import annotations

import asyncio

import pytest

import cnm

from ...conftest import host_links


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("delay", [n / 5000 for n in range(0, 20, 2)])
async def test_cancelled_connect(controller: cnm.Controller, delay: float) -> None:
    network = await controller.create_network("front", ipv6=True)
    sandbox = await controller.create_sandbox("box")
    links = host_links()
    task = asyncio.create_task(network.connect(sandbox))
    await asyncio.sleep(delay)
    task.cancel()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError | cnm.Endpoint)
    # the old state or the new one, and never something in between
    assert network.endpoints == sandbox.endpoints
    if network.endpoints:
        assert network.endpoints[0].joined
    else:
        await controller._services.reaper.reap()
        assert host_links() == links
    again = await network.connect(sandbox, name="again")
    assert again.joined


async def test_timeout_of_asyncio(controller: cnm.Controller) -> None:
    sandbox = await controller.create_sandbox("box")
    network = await controller.create_network("front")

    async def connect_many() -> None:
        for number in range(100):
            await network.connect(sandbox, name=f"e{number}")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(connect_many(), 0.005)
    assert 0 < len(network.endpoints) == len(sandbox.endpoints) < 100
    await sandbox.delete()
    assert network.endpoints == ()
