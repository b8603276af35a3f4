"""Pools: subnets that networks hold, alone or each with a range of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ForbiddenError, PoolNotFound, PoolOverlap
from ..types import AddressPool, IPAddress, IPInterface, IPNetwork, Pool, PoolStatus
from .addresses import AddressSet
from .subnets import SubnetAllocator


@dataclass(frozen=True, kw_only=True, slots=True)
class _Held:
    """A pool and the network that holds it."""

    network_id: str
    addresses: AddressSet


class PoolAllocator:
    """Gives subnets to networks, and the addresses in them to whom they need.

    No two subnets overlap, and no address is given twice. Networks may share the very
    same subnet if each chooses its addresses from a range of its own; two macvlan
    networks on one wire do.
    """

    def __init__(self) -> None:
        self._subnets = {4: SubnetAllocator(4), 6: SubnetAllocator(6)}
        self._addresses: dict[IPNetwork, AddressSet] = {}
        self._pools: dict[str, _Held] = {}

    def reserve(
        self,
        network_id: str,
        subnet: IPNetwork,
        ip_range: IPNetwork | None,
        *,
        serial: bool,
    ) -> Pool:
        """Give a network the subnet that it asks for.

        :param network_id: the network, which alone can release the pool
        :param subnet: the subnet
        :param ip_range: the part of it from which addresses are chosen, None for all
        :param serial: whether a released address is chosen again as late as possible,
            rather than the lowest free address
        :raises PoolOverlap: the subnet overlaps one that is taken, or is the same as
            one and the ranges overlap
        """
        space = self._subnets[subnet.version]
        taken = space.overlapping(subnet)
        if taken is None:
            space.reserve(subnet)
        elif taken != subnet:
            raise PoolOverlap(
                f"subnet {subnet} overlaps {taken}, which is in use; ask for one that"
                " does not, or for any"
            )
        elif self._addresses[taken].overlaps(ip_range or subnet):
            raise PoolOverlap(
                f"subnet {subnet} is in use, and so are addresses of"
                f" {ip_range or subnet}; networks share a subnet only if each has an"
                " ip_range that does not overlap the others"
            )
        return self._hold(network_id, subnet, ip_range, serial=serial)

    def choose(
        self,
        network_id: str,
        version: int,
        size: int | None,
        pools: Sequence[AddressPool],
        exclude: Sequence[IPNetwork],
        *,
        serial: bool,
    ) -> Pool:
        """Give a network the first free subnet of the pools, in their order.

        :param network_id: the network, which alone can release the pool
        :param version: 4 or 6
        :param size: prefix length of the subnet, or None for that of the pool
        :param pools: where to look
        :param exclude: what the subnet must not overlap
        :param serial: see :meth:`reserve`
        :raises InvalidError: no pool has room for a subnet of that size
        :raises NoAvailablePool: every subnet is taken or excluded
        """
        subnet = self._subnets[version].choose(size, pools, exclude)
        return self._hold(network_id, subnet, None, serial=serial)

    def release(self, network_id: str, pool_id: str) -> None:
        """Take a pool back with all its addresses. Releasing it twice is no error.

        :param network_id: the network that holds it
        :param pool_id: the pool
        :raises ForbiddenError: another network holds it
        """
        held = self._pools.get(pool_id)
        if held is None:
            return
        if held.network_id != network_id:
            raise ForbiddenError(
                f"pool {pool_id!r} belongs to network {held.network_id!r}, and cannot"
                f" be released by {network_id!r}"
            )
        del self._pools[pool_id]
        held.addresses.remove_pool(pool_id)
        if held.addresses.unused:
            subnet = held.addresses.subnet
            del self._addresses[subnet]
            self._subnets[subnet.version].release(subnet)

    def request_address(
        self, pool_id: str, owner: str, address: IPAddress | None
    ) -> IPInterface:
        """Give an address of a pool, see :meth:`AddressSet.request`.

        :raises PoolNotFound: there is no such pool
        """
        return self._held(pool_id).addresses.request(pool_id, owner, address)

    def release_address(self, pool_id: str, owner: str, address: IPAddress) -> None:
        """Take an address back, see :meth:`AddressSet.release`.

        An address of a pool that has been released is no error.
        """
        held = self._pools.get(pool_id)
        if held is not None:
            held.addresses.release(owner, address)

    def status(self, pool_id: str) -> PoolStatus:
        """Tell how full a pool is, see :meth:`AddressSet.status`.

        :raises PoolNotFound: there is no such pool
        """
        return self._held(pool_id).addresses.status(pool_id)

    def _hold(
        self,
        network_id: str,
        subnet: IPNetwork,
        ip_range: IPNetwork | None,
        *,
        serial: bool,
    ) -> Pool:
        # libnetwork's form (defaultipam.PoolID): address space, subnet, sub-pool.
        pool_id = (
            f"local/{subnet}" if ip_range is None else f"local/{subnet}/{ip_range}"
        )
        if subnet not in self._addresses:
            self._addresses[subnet] = AddressSet(subnet)
        addresses = self._addresses[subnet]
        addresses.add_pool(pool_id, ip_range or subnet, serial=serial)
        self._pools[pool_id] = _Held(network_id=network_id, addresses=addresses)
        return Pool(id=pool_id, subnet=subnet, ip_range=ip_range)

    def _held(self, pool_id: str) -> _Held:
        try:
            return self._pools[pool_id]
        except KeyError:
            raise PoolNotFound(pool_id) from None
