"""What a network is to the firewall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from ..linux.nftables import ACCEPT, Element, Set
from .ruleset import (
    BRIDGES,
    DROP_ICC,
    DROP_INTERNAL,
    ENTERING4,
    ENTERING6,
    IN_DIRECT,
    IN_NAT,
    IN_ROUTED,
    LEAVING,
    NAT4,
    NAT6,
    NETS4,
    NETS6,
    SAME,
    SNAT4,
    SNAT6,
    TRUSTED,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address, IPv6Address

    from ..types import IPAddress, IPNetwork

Mode: TypeAlias = Literal["nat", "nat-unprotected", "routed", "isolated"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkRules:
    """The rules of one network (libnetwork's firewaller.NetworkConfig).

    The modes are libnetwork's gateway modes: with ``nat`` only published ports can be
    reached from elsewhere, with ``nat-unprotected`` all of them, with ``routed`` the
    exposed ones, with ``isolated`` none. None stands for a family that the network does
    not have; nothing of that family is let in.

    :ivar interface: name of the network's bridge
    :ivar internal: nothing is forwarded into the network or out of it
    :ivar icc: containers may talk to each other. Within a bridge that is up to the
        ports' isolation; packets do not come by here
    :ivar masquerade: what leaves a ``nat`` network gets a source address of the host
    :ivar snat4: which one, in place of the address of the interface it leaves by
    :ivar trusted: interfaces of the host from where the open ports of a ``nat`` network
        can be reached under the containers' own addresses
    :ivar direct: they can be reached like that from everywhere
    """

    interface: str
    subnets4: tuple[IPNetwork, ...] = ()
    subnets6: tuple[IPNetwork, ...] = ()
    internal: bool = False
    icc: bool = True
    mode4: Mode | None = "nat"
    mode6: Mode | None = None
    masquerade: bool = True
    snat4: IPv4Address | None = None
    snat6: IPv6Address | None = None
    trusted: tuple[str, ...] = ()
    direct: bool = False

    def elements(self) -> tuple[Element, ...]:
        """Return the elements that make the table treat the network like this."""
        name = (self.interface,)
        elements = [
            Element(BRIDGES, name),
            Element(SAME, name * 2, ACCEPT if self.icc else DROP_ICC),
        ]
        if self.internal:
            elements.append(Element(LEAVING, name, DROP_INTERNAL))
        elements += self._entering("ipv4", ENTERING4, self.mode4)
        elements += self._entering("ipv6", ENTERING6, self.mode6)
        if self._translates(self.mode4):
            elements += _ranges(NETS4, self.subnets4)
            elements += self._leaving(NAT4, SNAT4, self.snat4)
        if self._translates(self.mode6):
            elements += _ranges(NETS6, self.subnets6)
            elements += self._leaving(NAT6, SNAT6, self.snat6)
        return tuple(elements)

    def _entering(
        self, family: str, entering: Set, mode: Mode | None
    ) -> Iterator[Element]:
        name = (self.interface,)
        if self.internal or mode in (None, "isolated"):
            yield Element(entering, name, DROP_INTERNAL)
        elif mode == "nat":
            yield Element(entering, name, IN_DIRECT if self.direct else IN_NAT)
            for interface in dict.fromkeys(self.trusted):
                yield Element(TRUSTED, (family, interface, *name), IN_DIRECT)
        elif mode == "routed":
            yield Element(entering, name, IN_ROUTED)

    def _translates(self, mode: Mode | None) -> bool:
        return mode in ("nat", "nat-unprotected") and not self.internal

    def _leaving(
        self, nat: Set, snat: Set, address: IPAddress | None
    ) -> Iterator[Element]:
        if not self.masquerade:
            return
        if address is None:
            yield Element(nat, (self.interface,))
        else:
            yield Element(snat, (self.interface,), (address,))


def _ranges(nets: Set, subnets: tuple[IPNetwork, ...]) -> Iterator[Element]:
    for subnet in subnets:
        first, last = subnet.network_address, subnet.broadcast_address
        yield Element(nets, (first,), end=(last,))
