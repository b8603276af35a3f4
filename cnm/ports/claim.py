"""Taking the ports of a publication: all of them, or none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, suppress
from itertools import chain
from socket import socket
from typing import Protocol

from ..errors import UnavailableError
from ..linux import sysctl
from ..types import IPAddress, PortBinding, Proto
from .ephemeral import Ephemeral, Pool, read_pool
from .holding import Holding
from .ledger import Ledger, Owner
from .places import HostPort, Places, are_both_families, host_port
from .publication import PortGroup
from .refusals import Refusals
from .sockets import hold_both

_logger = logging.getLogger(__name__)


class Take(Protocol):
    """Takes a port."""

    def __call__(self, place: HostPort, *, absent: bool = False) -> socket | None:
        """Return the socket that has it, if it needs one.

        :param absent: whether the host need not have the address
        :raises OSError: if it cannot be taken
        """
        ...


class Registry:
    """The ports that a controller has taken.

    :ivar ledger: who has which
    :ivar wanted: the first and the last port that would have done as well
    :ivar ephemeral: which ones are next
    """

    def __init__(self) -> None:
        self.ledger: Ledger = Ledger()
        self.wanted: dict[HostPort, tuple[int, int]] = {}
        self.ephemeral: Ephemeral = Ephemeral()

    def release(self, places: Iterable[HostPort], holding: Holding) -> None:
        """Give ports up."""
        gone = frozenset(places)
        for place in gone:
            self.ledger.remove(place)
            self.wanted.pop(place, None)
        try:
            holding.release(gone)
        except UnavailableError:
            _logger.warning("ports are held that are not published", exc_info=True)


class Claim:
    """The ports that an endpoint gets, one group after the other.

    What the endpoint has already stays its own if it is asked for again. Once ports
    have been taken, either :meth:`settle` or :meth:`undo` ends the claim. The methods
    are for plans, one at a time.

    :param take: takes a port
    :param before: the bindings that the endpoint has
    :param holding: the sockets of those; new ones are put to them
    :param preferred: bindings of former times, whose ports are tried first
    :param busy: ports that are not chosen where others will do
    :param setting: reads a setting of the kernel
    """

    def __init__(
        self,
        registry: Registry,
        owner: Owner,
        take: Take,
        *,
        before: Iterable[PortBinding],
        holding: Holding,
        preferred: Iterable[PortBinding] = (),
        busy: Collection[tuple[Proto, int]] = (),
        setting: Callable[[str], str] = sysctl.read,
    ) -> None:
        self._registry = registry
        self._owner = owner
        self._take = take
        self._before = {host_port(it): it for it in before if it.host_port}
        self._holding = holding
        self._preferred: dict[tuple[int, Proto], dict[int, None]] = {}
        self._former: set[HostPort] = set()
        for it in chain(self._before.values(), preferred):
            if it.host_port:
                self._former.add(host_port(it))
                key = (it.container_port, it.proto)
                self._preferred.setdefault(key, {})[it.host_port] = None
        self._busy = busy
        self._setting = setting
        self._claimed = Ledger()
        self._fresh = Holding(parks=holding.parks)
        self._new: list[HostPort] = []
        self._kept: set[HostPort] = set()
        self._wanted: dict[HostPort, tuple[int, int]] = {}
        self._displaced: list[HostPort] = []
        self._pool: Pool | None = None
        self._others: dict[tuple[object, ...], Iterator[int]] = {}

    def take(self, groups: Iterable[PortGroup]) -> tuple[PortBinding, ...]:
        """Take a port of the host for each group, at all of its addresses.

        :raises PortInUse: if ports are in use
        :raises NoAvailablePort: if every port of a range is
        :raises MissingCapability: if ports are for the privileged only
        :raises InvalidError: if addresses are not there, or for several reasons
        :raises UnavailableError: if there is no room for so many sockets
        """
        refusals = Refusals()
        bindings: list[PortBinding] = []
        for group in groups:
            if port := self._choose(group, refusals):
                bindings.extend(group.bindings(port))
        refusals.check()
        self._fresh.park()
        return tuple(bindings)

    def settle(self) -> None:
        """Keep what has been taken, and let go of what was not asked for again."""
        self._registry.release(self._before.keys() - self._kept, self._holding)
        for place in self._new:
            self._registry.ledger.add(place, self._owner)
        self._registry.wanted |= self._wanted
        self._holding.absorb(self._fresh)

    def undo(self) -> None:
        """Let go of what has been taken."""
        self._fresh.close()
        for place in self._displaced:
            try:
                if held := self._take(place, absent=True):
                    self._holding.add((place,), held)
                self._registry.ledger.add(place, self._owner)
            except (OSError, UnavailableError):
                title = self._owner.title
                _logger.exception("%s of %s is lost", place.described, title)

    def _choose(self, group: PortGroup, refusals: Refusals) -> int:
        """Take a port for a group, and return it, or 0."""
        if group.exact:
            return group.first * self._try(group, group.first, refusals)
        for port in self._candidates(group):
            tried = Refusals()
            if self._try(group, port, tried):
                if not group.first:
                    self._registry.ephemeral.chosen(group.proto, port)
                return port
            if not tried.is_busy:
                refusals.absorb(tried)
                return 0
        refusals.exhausted(self._exhausted(group))
        return 0

    def _candidates(self, group: PortGroup) -> Iterator[int]:
        """Yield the ports that will do, those of former times first."""
        key = (group.container_port, group.proto)
        former = [
            port
            for port in self._preferred.get(key, ())
            if not group.first or group.first <= port <= group.last
        ]
        # what was another request's may be had, unless there is one of its own
        yield from sorted(former, key=lambda port: not self._was_for(group, port))
        # What one group has got, or could not have, no other of its kind can have: they
        # go through the rest together. (``yield from`` would end it with the first.)
        kind = (group.proto, group.first, group.last, *(it for it, _ in group.ways))
        if kind not in self._others:
            self._others[kind] = self._all_of(group)
        for port in self._others[kind]:  # noqa: UP028
            yield port

    def _all_of(self, group: PortGroup) -> Iterator[int]:
        """Return all ports that may be chosen for a group."""
        if not group.first:
            return self._registry.ephemeral.candidates(
                group.proto, self._ephemeral_pool(), self._busy
            )
        ports = range(group.first, group.last + 1)
        return (it for it in ports if (group.proto, it) not in self._busy)

    def _was_for(self, group: PortGroup, port: int) -> bool:
        """Tell whether a port was taken for the same request."""
        wanted = self._registry.wanted
        places = (HostPort(address, group.proto, port) for address, _ in group.ways)
        return any(wanted.get(it) == (group.first, group.last) for it in places)

    def _ephemeral_pool(self) -> Pool:
        if self._pool is None:
            self._pool = read_pool(self._setting)
        return self._pool

    def _try(self, group: PortGroup, port: int, refusals: Refusals) -> bool:
        """Take a port at all addresses of a group; return False if one is refused."""
        kept: list[HostPort] = []
        free: list[HostPort] = []
        refused = False
        # what is served has been given up before, if it is in the way
        displaces = group.exact and self._holding.parks
        for address, target in group.ways:
            place = HostPort(address, group.proto, port)
            if self._is_ours(place, group, target):
                kept.append(place)
            elif rival := self._rival(place, displaces=displaces):
                refusals.in_use(place, rival)
                refused = True
            else:
                free.append(place)
        with ExitStack() as stack:
            taken = self._take_all(tuple(free), refusals, stack)
            if refused or len(tuple(chain(*taken))) < len(free):
                return False
            self._keep(group, kept, free, taken)
            stack.pop_all()
        return True

    def _take_all(
        self, places: Places, refusals: Refusals, stack: ExitStack
    ) -> dict[Places, socket | None]:
        """Take ports as far as they can be had, with as few sockets as possible."""
        if self._holding.parks and are_both_families(places):
            # whatever is in the way is told when they are taken one by one
            with suppress(OSError):
                return {places: stack.enter_context(hold_both(places[1]))}
        taken: dict[Places, socket | None] = {}
        for place in places:
            try:
                # an address that has gone since it was published may come back
                absent = place in self._former
                taken[place,] = held = self._take(place, absent=absent)
            except OSError as exc:
                refusals.refused(place, exc, len(self._new))
            else:
                stack.callback(_close, held)
        return taken

    def _keep(
        self,
        group: PortGroup,
        kept: Iterable[HostPort],
        new: Iterable[HostPort],
        taken: dict[Places, socket | None],
    ) -> None:
        self._kept.update(kept)
        wanted = group.first, group.last
        for place in chain(kept, new):
            self._claimed.add(place, self._owner)
            self._wanted[place] = wanted
        self._new += new
        for places, held in taken.items():
            if held is not None:
                self._fresh.add(places, held)

    def _is_ours(self, place: HostPort, group: PortGroup, target: IPAddress) -> bool:
        """Tell whether the endpoint has a port that no other request has claimed.

        A socket that only holds a port does not care where the port leads.
        """
        binding = self._before.get(place)
        if binding is None or self._claimed.rivals(place):
            return False
        leads_to = binding.container_address, binding.container_port
        return self._holding.parks or leads_to == (target, group.container_port)

    def _rival(self, place: HostPort, *, displaces: bool) -> str:
        """Return who has a port, or ``""``.

        :param displaces: whether the endpoint's own ports make room, for instance one
            at all addresses for the same one at a single address
        """
        if self._claimed.rivals(place):
            return self._owner.title
        rivals = self._registry.ledger.rivals(place)
        for _, owner in rivals:
            if owner.id != self._owner.id or not displaces:
                return owner.title
        for rival, _ in rivals:
            self._holding.release({rival})
            self._registry.ledger.remove(rival)
            del self._before[rival]
            self._displaced.append(rival)
        return ""

    def _exhausted(self, group: PortGroup) -> str:
        first, last = group.first, group.last
        if not first:
            pool = self._ephemeral_pool()
            first, last = pool.first, pool.last
        addresses = " and ".join(str(address) for address, _ in group.ways)
        return f"every port of {first}-{last}/{group.proto} is in use at {addresses}"


def _close(held: socket | None) -> None:
    if held is not None:
        held.close()
