"""Two controllers that choose the same subnet at the same time."""

from __future__ import annotations

from dataclasses import replace

import pytest

import cnm
from cnm.driver import hookimpl
from cnm.events import PoolRequested
from cnm.ipam.default import DefaultIPAM
from cnm.types import Pool

from ..publishing.reach import Probe, reach_all, unanswered
from .traffic import addresses, serving


@pytest.mark.parametrize("internal", [False, True], ids=["front", "internal"])
async def test_who_is_second_chooses_another_one(internal: bool) -> None:
    async def create(controller: cnm.Controller, ipam: str) -> cnm.Network:
        return await controller.create_network(
            "front", ipam=ipam, ipv6=True, internal=internal
        )

    class Late(DefaultIPAM):
        """Chooses a subnet when somebody else has just taken it."""

        @hookimpl
        async def cnm_pool_requested(self, event: PoolRequested) -> Pool:
            if not one.networks:
                await create(one, "default")
            return await super().cnm_pool_requested(event)

    async with (
        cnm.Controller(name="one") as one,
        cnm.Controller(name="two", ipam_drivers={"late": Late}) as two,
    ):
        second = await create(two, "late")
        (first,) = one.networks
        assert first.subnets != second.subnets
        assert not any(
            mine.overlaps(other)
            for mine in first.subnets
            for other in second.subnets
            if mine.version == other.version
        )
        boxes = []
        for controller, network in ((one, first), (two, second)):
            boxes.append(await controller.create_sandbox("box"))
            await network.connect(boxes[-1])
        async with serving(*boxes):
            probes: list[Probe] = [
                (None, address, 80, "tcp")
                for box, network in zip(boxes, (first, second), strict=True)
                for address in addresses(box, network)
            ]
            assert unanswered(await reach_all(probes)) == {}


async def test_subnets_that_are_always_in_use_are_refused() -> None:
    class Stubborn(DefaultIPAM):
        """Chooses the same subnet whatever is excluded."""

        @hookimpl
        async def cnm_pool_requested(self, event: PoolRequested) -> Pool:
            event = replace(event, subnet=first.subnets[0])
            return await super().cnm_pool_requested(event)

    async with (
        cnm.Controller(name="one") as one,
        cnm.Controller(name="two", ipam_drivers={"stubborn": Stubborn}) as two,
    ):
        first = await one.create_network("front")
        with pytest.raises(cnm.PoolOverlap, match="is in use on another link"):
            await two.create_network("front", ipam="stubborn")
        assert two.networks == ()
