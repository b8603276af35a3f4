from __future__ import annotations

import anyio
import cnm
import pytest
from cnm.testing.conformance import check_network_driver
from cnm_driver_example import ExampleDriver

pytestmark = pytest.mark.anyio


async def test_it_keeps_to_the_contract() -> None:
    await check_network_driver(ExampleDriver, options={"mtu": 1400})


async def test_the_host_reaches_a_sandbox(cnm_controller: cnm.Controller) -> None:
    network = await cnm_controller.create_network("lines", driver="example")
    box = await cnm_controller.create_sandbox("box")
    endpoint = await network.connect(box)
    assert endpoint.address is not None
    async with (
        await box.listen_tcp(port=80),
        await anyio.connect_tcp(str(endpoint.address.ip), 80),
    ):
        """It does."""
