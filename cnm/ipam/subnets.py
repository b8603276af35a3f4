"""The subnets of one address family: which are taken, and which one is next.

Inside, subnets are intervals of integers. A request costs the logarithm of how many
subnets there are: what is taken or excluded is jumped over, never walked through.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

import netaddr

from ..errors import InvalidError, NoAvailablePool
from ..types import AddressPool, IPNetwork
from .addresses import bounds


class Intervals:
    """A set of integers as sorted intervals that neither overlap nor touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, first: int, last: int) -> None:
        """Add the integers from ``first`` to ``last``."""
        i = bisect_left(self._ends, first - 1)
        j = bisect_right(self._starts, last + 1)
        if i < j:
            first = min(first, self._starts[i])
            last = max(last, self._ends[j - 1])
        self._starts[i:j] = [first]
        self._ends[i:j] = [last]

    def remove(self, first: int, last: int) -> None:
        """Remove the integers from ``first`` to ``last``."""
        i = bisect_left(self._ends, first)
        j = bisect_right(self._starts, last)
        if i == j:
            return
        low, high = self._starts[i], self._ends[j - 1]
        left, right = low < first, last < high
        self._starts[i:j] = [low] * left + [last + 1] * right
        self._ends[i:j] = [first - 1] * left + [high] * right

    def at_or_after(self, number: int) -> int | None:
        """Return the smallest member that is not smaller than ``number``."""
        i = bisect_left(self._ends, number)
        return max(number, self._starts[i]) if i < len(self._ends) else None

    def overlap(self, first: int, last: int) -> int | None:
        """Return the end of the first interval that has part in the given one."""
        i = bisect_left(self._ends, first)
        if i < len(self._ends) and self._starts[i] <= last:
            return self._ends[i]
        return None


class FreeBlocks:
    """The blocks of one size in a pool that no subnet has part in."""

    def __init__(
        self, base: IPNetwork, size: int, taken: Iterable[IPNetwork] = ()
    ) -> None:
        """Cut a pool into blocks.

        :param base: the pool
        :param size: prefix length of the blocks
        :param taken: subnets, also such that are not in the pool
        """
        self._first, self._last = bounds(base)
        self._block = 1 << (base.max_prefixlen - size)
        self._free = Intervals()
        self._free.add(self._first, self._last)
        for subnet in taken:
            self.take(subnet)

    def take(self, subnet: IPNetwork) -> None:
        """Note that a subnet is taken."""
        first, last = self.around(subnet)
        if first <= last:
            self._free.remove(first, last)

    def release(self, subnet: IPNetwork) -> None:
        """Note that blocks that a subnet has part in are free again."""
        first, last = self.around(subnet)
        if first <= last:
            self._free.add(first, last)

    def around(self, subnet: IPNetwork) -> tuple[int, int]:
        """Return the bounds of the blocks that a subnet has part in.

        The first is larger than the last if there are none.
        """
        first, last = bounds(subnet)
        return (
            max(self._first, first & -self._block),
            min(self._last, last | (self._block - 1)),
        )

    def find(self, excluded: Intervals) -> int | None:
        """Return where the first free block starts that is not excluded."""
        start = self._free.at_or_after(self._first)
        while start is not None:
            end = excluded.overlap(start, start + self._block - 1)
            if end is None:
                return start
            start = self._free.at_or_after((end | (self._block - 1)) + 1)
        return None


class SubnetAllocator:
    """The subnets of one address family (an address space of libnetwork).

    No two subnets overlap.
    """

    def __init__(self, version: Literal[4, 6]) -> None:
        self._network = IPv4Network if version == 4 else IPv6Network
        self._version = version
        self._starts: list[int] = []
        self._subnets: dict[int, IPNetwork] = {}
        self._blocks: dict[tuple[IPNetwork, int], FreeBlocks] = {}
        self._pools: Sequence[AddressPool] = ()
        self._distinct: Sequence[AddressPool] = ()
        self._exclude: Sequence[IPNetwork] = ()
        self._excluded = Intervals()

    def overlapping(self, subnet: IPNetwork) -> IPNetwork | None:
        """Return a subnet that is taken and overlaps the given one, or None."""
        return self._between(*bounds(subnet))

    def reserve(self, subnet: IPNetwork) -> None:
        """Take a subnet that overlaps none that is taken."""
        start = int(subnet.network_address)
        insort(self._starts, start)
        self._subnets[start] = subnet
        for blocks in self._blocks.values():
            blocks.take(subnet)

    def release(self, subnet: IPNetwork) -> None:
        """Let a subnet that was taken be chosen again."""
        start = int(subnet.network_address)
        del self._starts[bisect_left(self._starts, start)]
        del self._subnets[start]
        for blocks in self._blocks.values():
            # Another subnet, smaller than the block, may still have part in it.
            if self._between(*blocks.around(subnet)) is None:
                blocks.release(subnet)

    def choose(
        self,
        size: int | None,
        pools: Sequence[AddressPool],
        exclude: Sequence[IPNetwork],
    ) -> IPNetwork:
        """Take the first free subnet of the pools, in their order.

        A pool that lies in another one is ignored.

        :param size: prefix length of the subnet, or None for that of the pool
        :param pools: where to look; those of the other family are ignored
        :param exclude: what the subnet must not overlap
        :raises InvalidError: no pool has room for a subnet of that size
        :raises NoAvailablePool: every subnet is taken or excluded
        """
        excluded = self._merge(exclude)
        for base, length in self._cut(pools, size):
            start = self._free_blocks(base, length).find(excluded)
            if start is not None:
                subnet = self._network((start, length))
                self.reserve(subnet)
                return subnet
        wanted = "subnet" if size is None else f"subnet of size '/{size}'"
        raise NoAvailablePool(
            "all predefined address pools have been fully subnetted: no"
            f" IPv{self._version} {wanted} is left in them that the host does not use;"
            " name a subnet, delete a network, or give the controller larger pools"
        )

    def _between(self, first: int, last: int) -> IPNetwork | None:
        # Subnets do not overlap, so the last that starts before the end decides.
        i = bisect_right(self._starts, last)
        if i == 0:
            return None
        subnet = self._subnets[self._starts[i - 1]]
        return subnet if first <= int(subnet.broadcast_address) else None

    def _cut(
        self, pools: Sequence[AddressPool], size: int | None
    ) -> Iterator[tuple[IPNetwork, int]]:
        if pools != self._pools:
            self._pools, self._distinct = pools, self._without_contained(pools)
        if size is None:
            return ((pool.base, pool.size) for pool in self._distinct)
        bases = [pool.base for pool in self._distinct if pool.base.prefixlen <= size]
        if not bases:
            known = ", ".join(str(pool.base) for pool in self._distinct) or "none"
            raise InvalidError(
                f"no address pool has room for an IPv{self._version} subnet of size"
                f" '/{size}'; the pools are: {known}"
            )
        return ((base, size) for base in bases)

    def _without_contained(self, pools: Iterable[AddressPool]) -> list[AddressPool]:
        own = [pool for pool in pools if pool.base.version == self._version]
        covered = Intervals()
        kept: set[AddressPool] = set()
        for pool in sorted(own, key=lambda pool: pool.base.prefixlen):
            if covered.overlap(*bounds(pool.base)) is None:
                covered.add(*bounds(pool.base))
                kept.add(pool)
        return [pool for pool in dict.fromkeys(own) if pool in kept]

    def _free_blocks(self, base: IPNetwork, size: int) -> FreeBlocks:
        key = base, size
        if key not in self._blocks:
            self._blocks[key] = FreeBlocks(base, size, self._subnets.values())
        return self._blocks[key]

    def _merge(self, exclude: Sequence[IPNetwork]) -> Intervals:
        # Mostly the same as last time.
        if exclude != self._exclude:
            own = (str(net) for net in exclude if net.version == self._version)
            self._excluded = Intervals()
            for block in netaddr.cidr_merge(own):
                self._excluded.add(block.first, block.last)
            self._exclude = exclude
        return self._excluded
