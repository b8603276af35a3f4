"""Which names a sandbox sees.

The order is libnetwork's (sandbox.go, ResolveName): a name is looked for as a whole on
every network, then as a name on the network that its last labels are the name of, a
longer and longer one; each time a sandbox's own links go before the names of others,
and the first network that knows the name has the say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from ..types import IPAddress, ServiceRecord
from .records import Found, Target
from .zone import Zone

_REVERSE4 = ".in-addr.arpa"
_REVERSE6 = ".ip6.arpa"
_VERSIONS = {"A": 4, "AAAA": 6}


@dataclass(frozen=True, kw_only=True, slots=True)
class Membership:
    """A network that a sandbox has joined.

    :ivar links: further names that only this sandbox knows, for names of the network
    """

    zone: Zone
    links: Mapping[str, str]


class SandboxView:
    """The names that one sandbox sees (:class:`cnm.dns.records.View`).

    :param changed: is called when something that was found, or not, may have changed
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._memberships: tuple[Membership, ...] = ()
        self._hosts: Mapping[str, tuple[IPAddress, ...]] = {}
        self._keeps_single = False

    def show(
        self,
        memberships: Sequence[Membership],
        hosts: Mapping[str, tuple[IPAddress, ...]],
        *,
        keeps_single: bool = False,
    ) -> None:
        """Set what there is to see.

        :param memberships: the sandbox's networks, the first one first
        :param hosts: names that the sandbox has been given, in lower case
        :param keeps_single: whether a name without a dot is ours even if nobody has it,
            so that no other name server is asked for its addresses
        """
        for membership in self._memberships:
            membership.zone.unwatch(self._changed)
        self._memberships = tuple(memberships)
        self._hosts = hosts
        self._keeps_single = keeps_single
        self._changed()

    def find(self, name: str, kind: str) -> Found | None:
        """Look for a name; None if it is none of ours."""
        for membership in self._memberships:
            membership.zone.watch(self._changed)
        if kind == "PTR" and (address := _reversed(name)):
            names = self._names_of(address)
            return Found(names=names) if names else None
        if name in self._hosts:
            return Found(addresses=_of_version(self._hosts[name], kind))
        for local, memberships in self._places(name):
            if found := self._find_on(local, memberships, kind):
                return found
        for local, memberships in self._places(name):
            for membership in memberships:
                if wildcard := membership.zone.wildcard(local):
                    return _found(membership.zone, wildcard, kind)
        if self._keeps_single and kind in _VERSIONS and "." not in name:
            return Found()
        return None

    def _find_on(
        self, local: str, memberships: Sequence[Membership], kind: str
    ) -> Found | None:
        for membership in memberships:
            if local in membership.links:
                target = membership.links[local]
                if found := _found(membership.zone, target, kind):
                    return found
        for membership in memberships:
            linked = local in membership.links
            if not linked and (found := _found(membership.zone, local, kind)):
                return found
        return None

    def _places(self, name: str) -> Iterator[tuple[str, Sequence[Membership]]]:
        """Yield what a name may be called, and on which networks."""
        yield name, self._memberships
        named = sorted(self._memberships, key=lambda it: len(it.zone.name))
        for membership in named:
            suffix = f".{membership.zone.name}"
            if name.endswith(suffix):
                yield name.removesuffix(suffix), (membership,)

    def _names_of(self, address: IPAddress) -> tuple[str, ...]:
        for membership in self._memberships:
            zone = membership.zone
            if name := zone.name_of(address):
                return (f"{name}.{zone.name}",)
        return ()


def _found(zone: Zone, name: str, kind: str) -> Found | None:
    addresses = zone.addresses(name)
    services = zone.services(name)
    if addresses is None and not services:
        return None
    if kind == "SRV":
        return Found(services=tuple(_targets(zone, services)))
    if kind == "TXT":
        return Found(texts=tuple(text for it in services for text in it.texts))
    return Found(addresses=_of_version(addresses or (), kind))


def _targets(zone: Zone, services: Sequence[ServiceRecord]) -> Iterator[Target]:
    for record in services:
        if record.target:
            yield Target(
                host=f"{record.target.lower()}.{zone.name}",
                port=record.port,
                priority=record.priority,
                weight=record.weight,
                addresses=zone.addresses(record.target.lower()) or (),
            )


def _of_version(addresses: Sequence[IPAddress], kind: str) -> tuple[IPAddress, ...]:
    version = _VERSIONS.get(kind)
    return tuple(address for address in addresses if address.version == version)


def _reversed(name: str) -> IPAddress | None:
    """Return the address that a name of in-addr.arpa or ip6.arpa stands for."""
    try:
        if name.endswith(_REVERSE4):
            labels = name.removesuffix(_REVERSE4).split(".")
            return IPv4Address(".".join(reversed(labels)))
        if name.endswith(_REVERSE6):
            digits = name.removesuffix(_REVERSE6).split(".")
            if len(digits) == 32 and all(len(digit) == 1 for digit in digits):
                return IPv6Address(int("".join(reversed(digits)), 16))
    except ValueError:
        return None
    return None
