"""All bundled drivers keep to the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from cnm.driver import NetworkDeleted, hookimpl
from cnm.ipam.default import DefaultIPAM
from cnm.linux import (
    NetlinkSocket,
    add_ifb,
    delete_link,
    dump_links,
    parse_link,
    set_link,
)
from cnm.testing.conformance import (
    ConformanceError,
    check_ipam_driver,
    check_network_driver,
    network,
)
from cnm_drivers_bare import HostDriver, NullDriver
from cnm_drivers_bridge import BridgeDriver
from cnm_drivers_ipvlan import IPvlanDriver
from cnm_drivers_macvlan import MacvlanDriver
from cnm_drivers_ptp import PTPDriver
from tests.features import needs

from . import broken


@pytest.fixture
def parent() -> Iterator[str]:
    with NetlinkSocket() as route:
        route.call(add_ifb("ifb7"), set_link(name="ifb7", up=True))
        yield "ifb7"
        route.call(delete_link(name="ifb7"))


async def test_bridge() -> None:
    await check_network_driver(BridgeDriver, options={"mtu": 1400})


async def test_ptp() -> None:
    await check_network_driver(PTPDriver, options={"mtu": 1400})


async def test_macvlan(parent: str) -> None:
    await check_network_driver(
        MacvlanDriver, options={"parent": parent, "macvlan_mode": "bridge"}
    )


@needs("dummy", "ipvlan")
async def test_ipvlan_without_a_parent() -> None:
    await check_network_driver(IPvlanDriver)


async def test_null() -> None:
    await check_network_driver(NullDriver, subnets=(), networks=1)


async def test_host() -> None:
    await check_network_driver(HostDriver, subnets=(), netns="host", networks=1)


async def test_default_ipam() -> None:
    await check_ipam_driver(DefaultIPAM)


async def test_a_sound_driver() -> None:
    await check_network_driver(broken.Sound)


def on_one_backend(drivers: Sequence[tuple[Any, str, str]]) -> pytest.MarkDecorator:
    """Try every other driver on asyncio, the rest on trio: sound ones are on both."""
    return pytest.mark.parametrize(
        ("driver", "rule", "words", "anyio_backend"),
        [
            pytest.param(*it, ("asyncio", "trio")[number % 2], id=it[0].__name__)
            for number, it in enumerate(drivers)
        ],
    )


@on_one_backend(broken.NETWORK)
async def test_a_broken_driver(
    monkeypatch: pytest.MonkeyPatch,
    driver: Callable[[], object],
    rule: str,
    words: str,
) -> None:
    # what else it breaks, and what it does not, takes much longer
    rules = {it: how for it, how in network.RULES.items() if it in ("life", rule)}
    monkeypatch.setattr(network, "RULES", rules)
    with pytest.raises(ConformanceError) as caught:
        await check_network_driver(driver, timeout=1)
    found = {it.rule: it for it in caught.value.violations}
    assert rule in found, caught.value
    assert any(words in str(it) for it in caught.value.violations), caught.value
    await clean_up()


async def test_the_cause_of_a_failed_removal_is_told() -> None:
    class Fails(broken.Sound):
        @hookimpl
        async def cnm_network_deleted(self, event: NetworkDeleted) -> None:
            await super().cnm_network_deleted(event)
            raise RuntimeError("the reason")

    with pytest.raises(ConformanceError, match=r"failed to handle .*: the reason"):
        await check_network_driver(Fails)


async def clean_up() -> None:
    """Remove what broken drivers have left."""
    with NetlinkSocket() as route:
        for link in map(parse_link, route.dump(dump_links())):
            if link.name.startswith("bk"):
                route.call(delete_link(link.index))


@on_one_backend(broken.IPAM)
async def test_a_broken_ipam_driver(
    driver: Callable[[], object], rule: str, words: str
) -> None:
    with pytest.raises(ConformanceError, match=words) as caught:
        await check_ipam_driver(driver, timeout=1)
    assert rule in {it.rule for it in caught.value.violations}, caught.value
