"""The smallest drivers: what they leave out, and what they cannot be made of."""

from __future__ import annotations

import pytest

import cnm
from cnm import Controller
from cnm.driver import NetworkDriver, hookimpl
from cnm.events import EndpointLeft, Event, JoinInfo
from cnm.linux import Placement


class Plain(NetworkDriver):
    """The smallest driver; it makes no link, but says it does."""

    @hookimpl
    async def cnm_endpoint_joined(self, event: Event) -> JoinInfo:
        return JoinInfo(plan=self.plan)

    @hookimpl
    async def cnm_endpoint_left(self, event: EndpointLeft) -> None:
        return None

    def plan(self, placement: Placement) -> None:
        """Plan: do nothing."""


async def test_a_plan_that_makes_no_link() -> None:
    async with Controller(drivers={"plain": Plain}) as controller:
        network = await controller.create_network("net", "plain")
        sandbox = await controller.create_sandbox("box")
        with pytest.raises(cnm.KernelError):
            await network.connect(sandbox)
        assert (network.endpoints, sandbox.endpoints) == ((), ())


async def test_a_class_that_cannot_be_made() -> None:
    class Demanding(Plain):
        def __init__(self, more: int) -> None:
            self.more = more

    class Ending(Plain):
        def __init__(self) -> None:
            raise SystemExit("no more")

    drivers = {"bad": Demanding, "end": Ending}
    async with Controller(drivers=drivers) as controller:
        for name in ("bad", "end") * 2:
            with pytest.raises(cnm.DriverLoadError, match=rf"'{name}'.*more"):
                await controller.create_network("net", name)
        await controller.create_network("net")
        described = {info.name: info for info in controller.drivers.available}
        assert "more" in described["bad"].refused
        assert described["bridge"].loaded
        assert controller.drivers.loaded == ("bridge",)
