"""The ``default`` IPAM driver: subnets and addresses of this host."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidError
from ..events import (
    AddressReleased,
    AddressRequested,
    PoolInspected,
    PoolReleased,
    PoolRequested,
)
from ..hookspecs import IPAMDriver, hookimpl
from ..options import boolean, option, parse_options
from ..types import Address, IPNetwork, Pool, PoolStatus
from .allocator import PoolAllocator


@dataclass(frozen=True, kw_only=True, slots=True)
class IPAMOptions:
    """What can be asked for of the driver; the label is libnetwork's (netlabel)."""

    serial: bool = option(
        True,
        boolean,
        label="com.docker.network.ipam.serial",
        help="first give addresses that nobody has had yet, rather than the lowest",
    )


class DefaultIPAM(IPAMDriver):
    """Gives out subnets and addresses, and remembers them while it lives.

    A network gets the subnet that it asks for, one of the size that it asks for
    (``0.0.0.0/24``, ``::/120``), or the first free one of the controller's address
    pools. Subnets never overlap. Networks share one only if each has an ``ip_range``
    of its own in it; an address is given once all the same.

    An endpoint gets the address that it asks for, or one of the network's
    ``ip_range``: first those that nobody has had yet, in ascending order, then the
    one whose release is longest ago. With the option ``serial=false`` it is the lowest
    free address. The gateway gets the first one, if it is asked for first. Only who
    has an address or a subnet can release it.
    """

    def __init__(self) -> None:
        self._pools = PoolAllocator()

    @hookimpl
    async def cnm_pool_requested(self, event: PoolRequested) -> Pool:
        """Choose a subnet, or reserve the one that was asked for.

        :raises InvalidError: an option or the range is wrong, or no pool has room for
            a subnet of the size that was asked for
        :raises PoolOverlap: the subnet overlaps one that is in use
        :raises NoAvailablePool: the address pools are used up
        """
        serial = parse_options(IPAMOptions, event.options, "ipam_options").serial
        _check_subnet(event)
        if event.subnet is not None and not _is_size(event.subnet):
            return self._pools.reserve(
                event.network_id, event.subnet, event.ip_range, serial=serial
            )
        return self._pools.choose(
            event.network_id,
            event.version,
            None if event.subnet is None else event.subnet.prefixlen,
            event.address_pools,
            event.exclude,
            serial=serial,
        )

    @hookimpl
    async def cnm_pool_released(self, event: PoolReleased) -> None:
        """Take a subnet back, with all addresses that were given from its pool.

        :raises ForbiddenError: the pool belongs to another network
        """
        self._pools.release(event.network_id, event.pool_id)

    @hookimpl
    async def cnm_address_requested(self, event: AddressRequested) -> Address:
        """Choose an address, or reserve the one that was asked for.

        :raises PoolNotFound: there is no such pool
        :raises InvalidError: the address is not in the subnet, or is reserved
        :raises AddressInUse: somebody else has the address
        :raises NoAvailableAddress: the range is used up
        """
        return Address(
            interface=self._pools.request_address(
                event.pool_id, event.owner, event.address
            )
        )

    @hookimpl
    async def cnm_address_released(self, event: AddressReleased) -> None:
        """Take an address back.

        :raises ForbiddenError: somebody else has the address
        """
        self._pools.release_address(event.pool_id, event.owner, event.address)

    @hookimpl
    async def cnm_pool_inspected(self, event: PoolInspected) -> PoolStatus:
        """Tell how full a pool is.

        :raises PoolNotFound: there is no such pool
        """
        return self._pools.status(event.pool_id)


def _is_size(subnet: IPNetwork) -> bool:
    return subnet.network_address.is_unspecified


def _check_subnet(event: PoolRequested) -> None:
    subnet, ip_range = event.subnet, event.ip_range
    if subnet is not None and subnet.version != event.version:
        raise InvalidError(f"subnet {subnet} is not an IPv{event.version} subnet")
    if ip_range is None:
        return
    if subnet is None or _is_size(subnet):
        raise InvalidError(f"ip_range {ip_range} needs a subnet that contains it")
    first, last = ip_range.network_address, ip_range.broadcast_address
    if first not in subnet or last not in subnet:
        raise InvalidError(f"ip_range {ip_range} is not inside subnet {subnet}")
