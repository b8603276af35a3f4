"""The elements of a controller's table that make bindings true."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from ..firewall import Element
from ..firewall.ruleset import (
    ANY4,
    ANY6,
    OPEN4,
    OPEN6,
    PROXIED,
    PUB4,
    PUB6,
    RANGE4,
    RANGE6,
)
from .places import HostPort, host_port
from .publication import LOOPBACK6, PROXIED_PROTOCOLS, UNSPECIFIED6

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..types import IPAddress, PortBinding, Proto

#: Ports in a row that become one element. An interval of several fields costs 20 ms to
#: change when there are a thousand of them; a port on its own never costs more than
#: 0.1 ms, wherever it is.
SHORTEST_RUN = 64

_LAST4 = IPv4Address((1 << 32) - 1)
_LAST6 = IPv6Address((1 << 128) - 1)


def elements(
    bindings: Iterable[PortBinding], *, direct: bool = False, proxy: bool = False
) -> frozenset[Element]:
    """Return the elements for all bindings of an endpoint.

    :param direct: whether translated ports are open under the sandbox's own addresses
    :param proxy: whether there is a user-space proxy for ``::1``
    """
    found: set[Element] = set()
    straight: dict[tuple[IPAddress, Proto, IPAddress], set[int]] = {}
    for binding in bindings:
        if direct or not binding.host_port:
            found.add(_open(binding))
        if not binding.host_port:
            continue
        if proxy and is_proxied(binding):
            found.add(Element(PROXIED, (binding.proto, binding.host_port)))
        if binding.host_address == LOOPBACK6:
            continue
        if binding.host_port == binding.container_port:
            key = (binding.host_address, binding.proto, binding.container_address)
            straight.setdefault(key, set()).add(binding.host_port)
        else:
            place = host_port(binding)
            found.add(
                _published(place, binding.container_address, binding.container_port)
            )
    for (address, proto, target), ports in straight.items():
        for run in _runs(sorted(ports)):
            found.update(_straight(address, proto, target, run))
    return frozenset(found)


def is_proxied(binding: PortBinding) -> bool:
    """Tell whether connections to ``::1`` come by a binding, by way of the proxy."""
    return (
        binding.host_port != 0
        and binding.host_address in (UNSPECIFIED6, LOOPBACK6)
        and binding.proto in PROXIED_PROTOCOLS
    )


def _open(binding: PortBinding) -> Element:
    address = binding.container_address
    opened = OPEN4 if address.version == 4 else OPEN6
    return Element(opened, (address, binding.proto, binding.container_port))


def _published(place: HostPort, target: IPAddress, port: int) -> Element:
    """Return the element for one port of the host."""
    four = place.address.version == 4
    if place.address.is_unspecified:
        key = (place.proto, place.port)
        return Element(ANY4 if four else ANY6, key, (target, port))
    return Element(PUB4 if four else PUB6, tuple(place), (target, port))


def _runs(ports: list[int]) -> Iterator[range]:
    """Cut sorted ports into runs without a gap."""
    start = 0
    for position, port in enumerate(ports, 1):
        if position == len(ports) or ports[position] != port + 1:
            yield range(ports[start], port + 1)
            start = position


def _straight(
    address: IPAddress, proto: Proto, target: IPAddress, ports: range
) -> Iterator[Element]:
    """Yield what leads ports to the same ports of a sandbox."""
    if len(ports) < SHORTEST_RUN:
        for port in ports:
            yield _published(HostPort(address, proto, port), target, port)
        return
    first = last = address
    if address.is_unspecified:
        last = _LAST4 if address.version == 4 else _LAST6
    yield Element(
        RANGE4 if address.version == 4 else RANGE6,
        (first, proto, ports[0]),
        (target,),
        end=(last, proto, ports[-1]),
    )
