"""The ``null`` IPAM driver: no addresses, for networks whose driver needs none."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from ..errors import InvalidError, PoolNotFound
from ..events import (
    AddressReleased,
    AddressRequested,
    PoolInspected,
    PoolReleased,
    PoolRequested,
)
from ..hookspecs import IPAMDriver, hookimpl
from ..options import NoOptions, parse_options
from ..types import Address, Pool

#: The only pools there are; every network gets them.
POOLS = {
    4: Pool(id="null/0.0.0.0/0", subnet=IPv4Network("0.0.0.0/0")),
    6: Pool(id="null/::/0", subnet=IPv6Network("::/0")),
}


class NullIPAM(IPAMDriver):
    """Gives every network the same pool, and endpoints no address."""

    @hookimpl
    async def cnm_pool_requested(self, event: PoolRequested) -> Pool:
        """Return 0.0.0.0/0 or ::/0, the only subnets that can be asked for.

        :raises InvalidError: another subnet, a range or an option was asked for
        """
        pool = POOLS[event.version]
        parse_options(NoOptions, event.options, "ipam_options")
        problems = []
        if event.subnet not in (None, pool.subnet):
            problems.append(_refusal(f"subnet {event.subnet}"))
        if event.ip_range is not None:
            problems.append(_refusal(f"ip_range {event.ip_range}"))
        if problems:
            raise InvalidError(*problems)
        return pool

    @hookimpl
    async def cnm_pool_released(self, event: PoolReleased) -> None:
        """Do nothing: the pool belongs to nobody."""

    @hookimpl
    async def cnm_address_requested(self, event: AddressRequested) -> Address:
        """Return no address.

        :raises PoolNotFound: the pool is not of this driver
        :raises InvalidError: an address was asked for
        """
        if event.pool_id not in (pool.id for pool in POOLS.values()):
            raise PoolNotFound(event.pool_id)
        if event.address is not None:
            raise InvalidError(_refusal(f"address {event.address}"))
        return Address(interface=None)

    @hookimpl
    async def cnm_address_released(self, event: AddressReleased) -> None:
        """Do nothing: no address was given."""

    @hookimpl
    async def cnm_pool_inspected(self, event: PoolInspected) -> None:
        """Tell nothing: a pool without addresses is never full."""


def _refusal(asked: str) -> str:
    return f"null ipam driver does not handle specific requests: leave out {asked}"
