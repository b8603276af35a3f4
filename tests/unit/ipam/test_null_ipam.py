from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from cnm.errors import InvalidError, NotFoundError
from cnm.events import (
    AddressReleased,
    AddressRequested,
    PoolInspected,
    PoolReleased,
    PoolRequested,
)
from cnm.ipam.null import NullIPAM
from cnm.types import Pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio


async def request(version: int, subnet: str = "", ip_range: str = "") -> Pool:
    return await NullIPAM().cnm_pool_requested(
        PoolRequested(
            network_id="n",
            version=version,
            subnet=ip_network(subnet) if subnet else None,
            ip_range=ip_network(ip_range) if ip_range else None,
        )
    )


@pytest.mark.parametrize(("version", "subnet"), [(4, "0.0.0.0/0"), (6, "::/0")])
async def test_networks_get_the_subnet_of_everything_and_get_it_again(
    version: int, subnet: str
) -> None:
    pool = await request(version)
    assert pool == Pool(id=f"null/{subnet}", subnet=ip_network(subnet))
    assert await request(version, subnet) == pool


@pytest.mark.parametrize(
    ("subnet", "ip_range"),
    [("10.0.0.0/24", ""), ("0.0.0.0/24", ""), ("", "10.0.0.0/24"), ("::/0", "")],
)
async def test_what_is_asked_for_is_refused(subnet: str, ip_range: str) -> None:
    expected = f"does not handle specific .*{subnet or ip_range}"
    with pytest.raises(InvalidError, match=expected):
        await request(4, subnet, ip_range)


async def test_an_option_is_refused() -> None:
    event = PoolRequested(network_id="n", version=4, options={"serial": True})
    with pytest.raises(InvalidError, match="unknown option 'serial'"):
        await NullIPAM().cnm_pool_requested(event)


@pytest.mark.parametrize("version", [4, 6])
async def test_endpoints_get_no_address(version: int) -> None:
    ipam, pool = NullIPAM(), await request(version)
    event = AddressRequested(pool_id=pool.id, owner="e")
    assert (await ipam.cnm_address_requested(event)).interface is None


async def test_an_address_that_is_asked_for_is_refused() -> None:
    event = AddressRequested(
        pool_id="null/0.0.0.0/0", owner="e", address=ip_address("10.0.0.1")
    )
    with pytest.raises(InvalidError, match=r"address 10\.0\.0\.1"):
        await NullIPAM().cnm_address_requested(event)


async def test_a_pool_of_another_driver_is_not_found() -> None:
    event = AddressRequested(pool_id="local/10.0.0.0/24", owner="e")
    with pytest.raises(NotFoundError, match=r"pool 'local/10.0.0.0/24'"):
        await NullIPAM().cnm_address_requested(event)


async def test_releasing_and_inspecting_do_nothing() -> None:
    ipam, pool = NullIPAM(), await request(4)
    for _ in range(2):
        await ipam.cnm_address_released(
            AddressReleased(pool_id=pool.id, owner="e", address=ip_address("::1"))
        )
        await ipam.cnm_pool_released(PoolReleased(network_id="n", pool_id=pool.id))
    inspect: Callable[[PoolInspected], Awaitable[object]] = ipam.cnm_pool_inspected
    assert await inspect(PoolInspected(pool_id=pool.id)) is None
