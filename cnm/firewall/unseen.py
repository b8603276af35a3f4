"""Connections that began while a controller's table was not there.

The kernel keeps to what it has made of a connection once: one that has not been
translated never is, and one that was let through counts as established. So they are
forgotten: the table decides on their next packets.
"""

from __future__ import annotations

import logging
import socket
from collections import defaultdict
from typing import TYPE_CHECKING

from ..errors import KernelError
from ..linux import dump_addresses, parse_address
from ..linux.connections import (
    Untranslated,
    count_connections,
    delete_connections,
    deletion,
    untranslated,
)
from .ruleset import (
    ANY4,
    ANY6,
    DROP_INTERNAL,
    ENTERING4,
    ENTERING6,
    IN_ROUTED,
    LEAVING,
    NAT4,
    NAT6,
    OPEN4,
    OPEN6,
    PROXIED,
    PUB4,
    PUB6,
    RANGE4,
    RANGE6,
    SNAT4,
    SNAT6,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..linux import Sockets
    from ..linux.nftables import Element, Set, Value
    from ..types import IPAddress
    from .table import Firewall

_logger = logging.getLogger(__name__)

_PUBLISHED = {4: (PUB4, ANY4), 6: (PUB6, ANY6)}
_RANGES = {4: RANGE4, 6: RANGE6}
_HIDDEN = {4: (NAT4, SNAT4, LEAVING), 6: (NAT6, SNAT6, LEAVING)}
_ENTERING = {4: ENTERING4, 6: ENTERING6}
_OPEN = {4: OPEN4, 6: OPEN6}
_ICMP = ("icmp", "icmpv6")


def forget_unseen(sockets: Sockets, firewall: Firewall) -> None:
    """Plan: forget connections of which the table would have made something else.

    That is, it would have translated them, or kept them out. A failure is logged.
    """
    try:
        if not firewall.enabled or not firewall.bridges or not count_connections():
            return
        table = _Table(sockets, firewall.elements)
        wrong = [it for it in untranslated(sockets.nft) if table.has_missed(it)]
        deletions = [deletion(it.message, it.source.version) for it in wrong]
        delete_connections(sockets.nft, deletions)
    except KernelError:
        _logger.warning("connections could not be forgotten", exc_info=True)


class _Table:
    """What the elements of a table come to, for new connections."""

    def __init__(self, sockets: Sockets, elements: Iterable[Element]) -> None:
        self._data: dict[Set, dict[tuple[Value, ...], object]] = defaultdict(dict)
        self._ranges: dict[Set, list[Element]] = defaultdict(list)
        for element in elements:
            self._data[element.set][element.key] = element.data
            if element.set in _RANGES.values():
                self._ranges[element.set].append(element)
        self._own: set[IPAddress] = set()
        self._subnets: dict[tuple[int, int, int], str] = {}
        for message in sockets.route.dump(dump_addresses()):
            found = parse_address(message)
            self._own.add(found.interface.ip)
            subnet = found.interface.network
            key = _prefix(subnet.network_address, subnet.prefixlen)
            self._subnets[key] = _name(found.index)
        self._lengths = sorted({key[:2] for key in self._subnets}, reverse=True)

    def has_missed(self, it: Untranslated) -> bool:
        """Tell whether a connection would have been translated, or kept out."""
        if it.destination in self._own or it.destination.is_loopback:
            return self._is_published(it)
        if it.source in self._own:
            return False
        start, end = self._link(it.source), self._link(it.destination)
        return start != end and (
            self._hides(start, it.source.version) or self._keeps_out(end, it)
        )

    def _is_published(self, it: Untranslated) -> bool:
        version, port = it.destination.version, (it.proto, it.port)
        exact, any_address = _PUBLISHED[version]
        return (
            (it.destination, *port) in self._data[exact]
            or port in self._data[any_address]
            or (it.destination.is_loopback and port in self._data[PROXIED])
            or any(
                _is_within(element, it) for element in self._ranges[_RANGES[version]]
            )
        )

    def _hides(self, bridge: str, version: int) -> bool:
        """Tell whether what begins on a bridge never leaves it as it is."""
        return any((bridge,) in self._data[it] for it in _HIDDEN[version])

    def _keeps_out(self, bridge: str, it: Untranslated) -> bool:
        version = it.destination.version
        verdict = self._data[_ENTERING[version]].get((bridge,))
        if verdict in (None, DROP_INTERNAL):
            return verdict is not None
        if verdict == IN_ROUTED and it.proto in _ICMP:
            return False
        return (it.destination, it.proto, it.port) not in self._data[_OPEN[version]]

    def _link(self, address: IPAddress) -> str:
        """Return the link on whose subnet an address is, ``""`` for none."""
        prefixes = (
            _prefix(address, length)
            for version, length in self._lengths
            if version == address.version
        )
        return next((self._subnets[it] for it in prefixes if it in self._subnets), "")


def _prefix(address: IPAddress, length: int) -> tuple[int, int, int]:
    return address.version, length, int(address) >> (address.max_prefixlen - length)


def _is_within(ports: Element, it: Untranslated) -> bool:
    """Tell whether a connection goes to some ports of one address, or of all."""
    first, last = ports.key, ports.end or ports.key
    return (
        it.proto == first[1]
        and int(str(first[2])) <= it.port <= int(str(last[2]))
        and (it.destination == first[0] or first[0] != last[0])
    )


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # it has just gone
        return ""
