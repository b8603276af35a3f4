"""Point-to-point networks: how many lines lead to a sandbox."""

from __future__ import annotations

import pytest

import cnm
from cnm import Controller

from ...conftest import host_links


async def test_a_network_has_one_line_to_a_sandbox(controller: Controller) -> None:
    subnets = ["10.20.0.0/24", "fd00:20::/64"]
    network = await controller.create_network("lines", "ptp", subnets=subnets)
    box = await controller.create_sandbox("box")
    first = await network.connect(box, name="first")
    second = await network.create_endpoint("second")
    before = host_links()
    reason = "sandbox 'box' has endpoint 'first' of network 'lines' already"
    with pytest.raises(cnm.ConflictError, match=reason):
        await second.join(box)
    with pytest.raises(cnm.ConflictError, match=reason):
        await network.connect(box)
    assert host_links() == before
    assert network.endpoints == (first, second)
    other = await controller.create_network("others", "ptp")
    await other.connect(box)
    await first.leave()
    await second.join(box)
    assert await controller.check() == ()
