"""The addresses of a subnet: who has which, and which one is next.

Inside, addresses are integers. Nothing is proportional to the size of the subnet: a /8
or a /64 costs what a /24 costs. Choosing never searches: a cursor passes every address
of a range once, and what has been released is remembered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Container, Mapping
from heapq import heappop, heappush
from ipaddress import IPv4Interface, IPv6Interface

from ..errors import AddressInUse, ForbiddenError, InvalidError, NoAvailableAddress
from ..types import IPAddress, IPInterface, IPNetwork, PoolStatus

# Once more addresses than a /16 has are waiting for their turn, the first of them is
# chosen again: else a range that is never used up would remember all it ever gave.
_KEPT_BACK = 1 << 16
# Where libnetwork's counters saturate (PoolStatus, uint64).
_UINT64_MAX = (1 << 64) - 1


def bounds(network: IPNetwork) -> tuple[int, int]:
    """Return the first and the last address of a network."""
    return int(network.network_address), int(network.broadcast_address)


def usable_bounds(subnet: IPNetwork) -> tuple[int, int]:
    """Return the first and the last address of a subnet that an endpoint can have.

    The network address (in IPv6 the subnet-router anycast address, RFC 4291 section
    2.6.1) and the IPv4 broadcast address are reserved, but not where there is no room
    for that: IPv4 /31 (RFC 3021), IPv6 /127 (RFC 6164), and single addresses.
    """
    first, last = bounds(subnet)
    if last - first < 2:
        return first, last
    return first + 1, last - (subnet.version == 4)


class Range(ABC):
    """The part of a subnet from which a pool's addresses are chosen.

    :ivar block: the part of the subnet that the pool was given
    """

    def __init__(
        self, block: IPNetwork, usable: tuple[int, int], taken: Mapping[int, object]
    ) -> None:
        """Make the range of those addresses of ``block`` that are usable.

        :param block: the part of the subnet that the pool was given
        :param usable: the first and the last usable address of the subnet
        :param taken: the addresses of the subnet that are taken; the caller keeps it
            up to date
        """
        first, last = bounds(block)
        self.block = block
        self._first = max(first, usable[0])
        self._last = min(last, usable[1])
        self._taken = taken
        self._used = sum(address in self for address in taken)
        self._cursor = self._first

    def __contains__(self, address: int) -> bool:
        return self._first <= address <= self._last

    @property
    def available(self) -> int:
        """How many addresses can still be chosen."""
        return max(0, self._last - self._first + 1) - self._used

    def choose(self) -> int | None:
        """Take a free address, or return None if there is none left."""
        address = self._next()
        if address is not None:
            self._used += 1
        return address

    def take(self, address: int) -> None:
        """Take an address of the range that is known to be free."""
        self._used += 1
        self._took(address)

    def release(self, address: int) -> None:
        """Let an address of the range that was taken be chosen again."""
        self._used -= 1
        self._released(address)

    @abstractmethod
    def _next(self) -> int | None: ...

    @abstractmethod
    def _took(self, address: int) -> None: ...

    @abstractmethod
    def _released(self, address: int) -> None: ...

    def _unvisited(self, skip: Container[int] = ()) -> int | None:
        while self._cursor <= self._last:
            address = self._cursor
            self._cursor += 1
            if address not in self._taken and address not in skip:
                return address
        return None


class SerialRange(Range):
    """A range that is used up first, and then used again in the order of release.

    What talked to an address that has been released, or still has it in a cache,
    does not meet another endpoint there at once.
    """

    def __init__(
        self, block: IPNetwork, usable: tuple[int, int], taken: Mapping[int, object]
    ) -> None:
        super().__init__(block, usable, taken)
        self._waiting: OrderedDict[int, None] = OrderedDict()

    def _next(self) -> int | None:
        if len(self._waiting) < _KEPT_BACK:
            address = self._unvisited(skip=self._waiting)
            if address is not None:
                return address
        return self._waiting.popitem(last=False)[0] if self._waiting else None

    def _took(self, address: int) -> None:
        self._waiting.pop(address, None)

    def _released(self, address: int) -> None:
        self._waiting[address] = None


class LowestFirstRange(Range):
    """A range of which always the lowest free address is chosen."""

    def __init__(
        self, block: IPNetwork, usable: tuple[int, int], taken: Mapping[int, object]
    ) -> None:
        super().__init__(block, usable, taken)
        self._heap: list[int] = []
        self._in_heap: set[int] = set()

    def _next(self) -> int | None:
        while self._heap:
            address = heappop(self._heap)
            self._in_heap.remove(address)
            if address not in self._taken:
                return address
        return self._unvisited()

    def _took(self, address: int) -> None:
        """Leave it in the heap, which has no cheap way to lose it."""

    def _released(self, address: int) -> None:
        if address < self._cursor and address not in self._in_heap:
            heappush(self._heap, address)
            self._in_heap.add(address)


class AddressSet:
    """The addresses of one subnet, and the pools that share it.

    Pools share a subnet if each has a range of its own. An address is given once,
    whichever pool it was asked from.

    :ivar subnet: the subnet
    """

    def __init__(self, subnet: IPNetwork) -> None:
        self.subnet = subnet
        self._usable = usable_bounds(subnet)
        self._claims: dict[int, tuple[str, str]] = {}
        self._ranges: dict[str, Range] = {}

    @property
    def unused(self) -> bool:
        """Whether no pool is left."""
        return not self._ranges

    def overlaps(self, block: IPNetwork) -> bool:
        """Tell whether a pool already chooses its addresses from part of a block."""
        first, last = bounds(block)
        return any(
            low <= last and first <= high
            for low, high in (bounds(range_.block) for range_ in self._ranges.values())
        )

    def add_pool(self, pool_id: str, block: IPNetwork, *, serial: bool) -> None:
        """Let a pool choose its addresses from a block that does not overlap others.

        :param pool_id: the pool
        :param block: the subnet, or a part of it
        :param serial: whether a released address is chosen again as late as possible,
            rather than the lowest free address
        """
        kind = SerialRange if serial else LowestFirstRange
        self._ranges[pool_id] = kind(block, self._usable, self._claims)

    def remove_pool(self, pool_id: str) -> None:
        """Remove a pool, and release every address that was requested from it."""
        del self._ranges[pool_id]
        claimed = [n for n, claim in self._claims.items() if claim[0] == pool_id]
        for number in claimed:
            self._drop(number)

    def request(
        self, pool_id: str, owner: str, address: IPAddress | None
    ) -> IPInterface:
        """Give an address to an owner.

        Who asks again for an address that he has gets it again. An address that is
        asked for may lie outside the pool's range.

        :param pool_id: the pool that is asked
        :param owner: who can release it
        :param address: the address that is asked for, or None for any of the range
        :raises InvalidError: the address is not in the subnet, or is reserved
        :raises AddressInUse: the address is somebody else's
        :raises NoAvailableAddress: every address of the range is taken
        """
        if address is None:
            number = self._choose(pool_id)
        else:
            number = self._number(address)
            if number in self._claims:
                if self._claims[number][1] == owner:
                    return self._interface(number)
                raise AddressInUse(
                    f"address {address} is already in use in {self.subnet}; ask for"
                    " another one, or for any"
                )
            self._check_usable(number, address)
            range_ = self._range_of(number)
            if range_ is not None:
                range_.take(number)
        self._claims[number] = (pool_id, owner)
        return self._interface(number)

    def release(self, owner: str, address: IPAddress) -> None:
        """Take an address back. One that nobody has is no error.

        :param owner: who requested it
        :param address: the address
        :raises ForbiddenError: the address is somebody else's
        """
        if address not in self.subnet:
            return
        claim = self._claims.get(int(address))
        if claim is None:
            return
        if claim[1] != owner:
            raise ForbiddenError(
                f"address {address} belongs to {claim[1]!r}, and cannot be released by"
                f" {owner!r}"
            )
        self._drop(int(address))

    def status(self, pool_id: str) -> PoolStatus:
        """Tell how full the subnet is, and a pool's range in it.

        As in libnetwork, reserved addresses are in use, and no figure is larger than
        2**64 - 1.
        """
        first, last = bounds(self.subnet)
        reserved = (self._usable[0] - first) + (last - self._usable[1])
        return PoolStatus(
            in_use=min(reserved + len(self._claims), _UINT64_MAX),
            available=min(self._ranges[pool_id].available, _UINT64_MAX),
        )

    def _choose(self, pool_id: str) -> int:
        range_ = self._ranges[pool_id]
        number = range_.choose()
        if number is None:
            raise NoAvailableAddress(
                f"no available IPv{self.subnet.version} address is left in"
                f" {range_.block}; release one, or ask for one by name that is in"
                f" {self.subnet}"
            )
        return number

    def _number(self, address: IPAddress) -> int:
        if address not in self.subnet:
            raise InvalidError(
                f"address {address} is not in subnet {self.subnet}; ask for one between"
                f" {self._interface(self._usable[0]).ip} and"
                f" {self._interface(self._usable[1]).ip}"
            )
        return int(address)

    def _check_usable(self, number: int, address: IPAddress) -> None:
        first, last = self._usable
        if not first <= number <= last:
            raise InvalidError(
                f"address {address} is reserved in subnet {self.subnet}; ask for one"
                f" between {self._interface(first).ip} and {self._interface(last).ip}"
            )

    def _drop(self, number: int) -> None:
        del self._claims[number]
        range_ = self._range_of(number)
        if range_ is not None:
            range_.release(number)

    def _range_of(self, number: int) -> Range | None:
        return next((r for r in self._ranges.values() if number in r), None)

    def _interface(self, number: int) -> IPInterface:
        kind = IPv4Interface if self.subnet.version == 4 else IPv6Interface
        return kind((number, self.subnet.prefixlen))
