"""Which ports are to be taken at which addresses of the host, for which targets.

The semantics are those of libnetwork's bridge driver (port_mapping_linux.go). Nothing
in here asks the kernel anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ..requests.specs import PROTOCOLS, overlap
from ..types import EndpointInfo, IPAddress, PortBinding, PortRequest, Proto

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..firewall import Mode

UNSPECIFIED4 = IPv4Address("0.0.0.0")
UNSPECIFIED6 = IPv6Address("::")
#: IPv6's loopback: the kernel does not forward what is sent to it, so that only the
#: proxy serves it.
LOOPBACK6 = IPv6Address("::1")
#: What the user-space proxy is able to serve.
PROXIED_PROTOCOLS: tuple[Proto, ...] = ("tcp", "udp")

_UNSPECIFIED: dict[int, IPAddress] = {4: UNSPECIFIED4, 6: UNSPECIFIED6}
#: an address of the host, and the address of the sandbox that it leads to
_Way: TypeAlias = tuple[IPAddress, IPAddress]


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """What a driver wants published for an endpoint.

    :ivar requests: the ports
    :ivar mode4: how the network treats IPv4, or None if it does not have it
    :ivar mode6: how the network treats IPv6, or None if it does not have it
    :ivar gateway4: whether the endpoint provides its sandbox's IPv4 default route:
        ports are translated only if it does, because the answers go there
    :ivar gateway6: the same for IPv6
    :ivar binding4: address of the host for requests that name none, or None for the
        controller's. If it is an IPv6 address, there are no IPv4 bindings
    :ivar binding6: the same for IPv6; without one, a specific ``binding4`` means that
        there are no IPv6 bindings
    :ivar direct: whether the network also lets in what is sent to translated ports
        under the sandbox's own address
    :ivar bridge: index of the link by which packets that the host has sent from its
        IPv4 loopback reach the sandbox; 0 if they do not
    :ivar elsewhere6: whether another endpoint of the sandbox provides its IPv6 default
        route: that one then serves ``::1``
    """

    endpoint: EndpointInfo
    requests: tuple[PortRequest, ...]
    mode4: Mode | None
    mode6: Mode | None
    gateway4: bool
    gateway6: bool
    binding4: IPAddress | None = None
    binding6: IPAddress | None = None
    direct: bool = False
    bridge: int = 0
    elsewhere6: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """What the host has for publishing.

    :ivar binding4: address of the host for requests of networks that have no default
    :ivar binding6: the same for IPv6
    :ivar ipv6: whether the kernel has IPv6
    :ivar loopback6: whether there is ``::1``
    :ivar proxy: whether there is a user-space proxy
    :ivar firewall: whether the kernel translates; otherwise it is all up to the proxy
    """

    binding4: IPAddress | None = None
    binding6: IPAddress | None = None
    ipv6: bool = True
    loopback6: bool = True
    proxy: bool = True
    firewall: bool = True

    def serves(self, proto: Proto) -> bool:
        """Tell whether the proxy serves a protocol."""
        return self.proxy and proto in PROXIED_PROTOCOLS


@dataclass(frozen=True, kw_only=True, slots=True)
class PortGroup:
    """A port of a sandbox, and the addresses at which it gets one port of the host.

    :ivar first: lowest port that will do, or 0 if any will that is free
    :ivar last: highest port that will do
    :ivar ways: addresses of the host, and the address of the sandbox behind each
    """

    container_port: int
    proto: Proto
    first: int
    last: int
    ways: tuple[tuple[IPAddress, IPAddress], ...]

    @property
    def exact(self) -> bool:
        """Whether only one port will do."""
        return self.first == self.last != 0

    def bindings(self, port: int) -> Iterator[PortBinding]:
        """Yield the bindings, given the port of the host."""
        for host_address, container_address in self.ways:
            yield PortBinding(
                container_port=self.container_port,
                proto=self.proto,
                host_port=port,
                host_address=host_address,
                container_address=container_address,
            )


def groups(publication: Publication, host: Host) -> tuple[PortGroup, ...]:
    """Return what has to be bound, in the order in which ports are to be chosen.

    Requests that differ only in the host's address get the same port at all addresses.
    """
    found: dict[tuple[int, Proto, int, int], dict[_Way, None]] = {}
    placing = _Placing(publication, host)
    for request in publication.requests:
        if ways := placing.ways(request.host_address, request.proto):
            last = max(request.host_port, request.host_port_end)
            key = (request.container_port, request.proto, request.host_port, last)
            found.setdefault(key, {}).update(dict.fromkeys(ways))
    made = (
        PortGroup(
            container_port=container_port,
            proto=proto,
            first=first,
            last=last,
            ways=_without_covered(tuple(ways)),
        )
        for (container_port, proto, first, last), ways in found.items()
    )
    return tuple(sorted(made, key=_order))


def open_ports(publication: Publication) -> tuple[PortBinding, ...]:
    """Return the ports that are open under the endpoint's own, routed, addresses."""
    modes = (publication.mode4, publication.mode6)
    if publication.endpoint.network.internal or "routed" not in modes:
        return ()
    found: dict[PortBinding, None] = {}
    for family in _families(publication):
        if family.address is None or family.mode != "routed":
            continue
        for request in publication.requests:
            if family.is_meant(request):
                binding = PortBinding(
                    container_port=request.container_port,
                    proto=request.proto,
                    host_port=0,
                    host_address=_UNSPECIFIED[family.version],
                    container_address=family.address,
                )
                found[binding] = None
    return tuple(found)


def problems(publication: Publication, host: Host) -> list[str]:
    """Return why requests can never be met, whoever provides the default routes."""
    endpoint = publication.endpoint
    network = endpoint.network.name
    if not publication.requests:
        return []
    if endpoint.network.internal:
        return [f"ports: network {network!r} is internal: nothing can be published"]
    families = [each for each in _families(publication) if each.present]
    if not families:
        return [f"ports: endpoint {endpoint.name!r} has no address to publish"]
    if all(family.mode == "isolated" for family in families):
        return [f"ports: network {network!r} is isolated: nothing can be published"]
    placing = _Placing(publication, host, at_best=True)
    routed = [family for family in families if family.mode == "routed"]
    found: dict[str, None] = {}
    for request in publication.requests:
        if any(family.is_meant(request) for family in routed):
            continue
        if not placing.ways(request.host_address, request.proto):
            found[placing.reason(request)] = None
    return list(found)


class _Family(NamedTuple):
    """What an endpoint is in one address family."""

    version: int
    address: IPAddress | None
    mode: Mode | None
    gateway: bool

    @property
    def present(self) -> bool:
        return self.address is not None and self.mode is not None

    @property
    def target(self) -> IPAddress | None:
        """The address that ports are translated to, if they are."""
        translates = self.mode in ("nat", "nat-unprotected") and self.gateway
        return self.address if translates else None

    def is_meant(self, request: PortRequest) -> bool:
        """Tell whether a request is for this family, among others or alone."""
        address = request.host_address
        return address is None or address.version == self.version


def _families(
    publication: Publication, *, at_best: bool = False
) -> tuple[_Family, _Family]:
    endpoint = publication.endpoint
    address = endpoint.address and endpoint.address.ip
    address6 = endpoint.address6 and endpoint.address6.ip
    return (
        _Family(4, address, publication.mode4, at_best or publication.gateway4),
        _Family(6, address6, publication.mode6, at_best or publication.gateway6),
    )


class _Placing:
    """Finds the ways that lead to an endpoint's ports.

    :param at_best: whether to suppose that the endpoint provides all default routes,
        and that the host has IPv6
    """

    def __init__(
        self, publication: Publication, host: Host, *, at_best: bool = False
    ) -> None:
        self._endpoint = publication.endpoint
        self._host = host
        self._ipv6 = at_best or host.ipv6
        self._loopback6 = at_best or host.loopback6
        self._four, self._six = _families(publication, at_best=at_best)
        self._default4 = _default4(publication, host)
        self._default6 = _default6(publication, host)
        self._elsewhere6 = publication.elsewhere6
        # there may be thousands of requests, and they are all alike
        self._known: dict[tuple[IPAddress | None, Proto], tuple[_Way, ...]] = {}

    def ways(self, address: IPAddress | None, proto: Proto) -> tuple[_Way, ...]:
        """Return how a port is reached that was requested at an address, or at none."""
        key = (address, proto)
        if key not in self._known:
            self._known[key] = tuple(self._find(address, proto))
        return self._known[key]

    def _find(self, address: IPAddress | None, proto: Proto) -> Iterator[_Way]:
        host = self._host
        if self._endpoint.network.internal:
            return
        if not host.firewall and not host.serves(proto):
            return
        if address is not None:
            yield from self._at(address, proto)
            return
        if self._default4 is not None:
            yield from self._at(self._default4, proto)
        if self._default6 is not None and (
            self._ipv6 or self._default6 != UNSPECIFIED6
        ):
            yield from self._at(self._default6, proto)
        if self._loopback6 and self._localhost_is_ours():
            yield from self._at(LOOPBACK6, proto)

    def _at(self, address: IPAddress, proto: Proto) -> Iterator[_Way]:
        target = self._target(address)
        if target is None:
            return
        if address != LOOPBACK6 or self._host.serves(proto):
            yield address, target

    def _target(self, address: IPAddress) -> IPAddress | None:
        """Return the address of the sandbox that an address of the host leads to."""
        if address.version == 4:
            return self._four.target
        if self._six.present or self._elsewhere6 or address != LOOPBACK6:
            return self._six.target
        return self._four.target

    def _localhost_is_ours(self) -> bool:
        """Tell whether programs of the host look for the ports at ``::1``.

        They do so before they try 127.0.0.1. If there is IPv6, ``::`` includes it.
        """
        return (
            self._endpoint.address6 is None
            and not self._elsewhere6
            and self._default4 == UNSPECIFIED4
            and self._default6 == UNSPECIFIED6
        )

    def reason(self, request: PortRequest) -> str:
        """Return why there is no way for a request."""
        host = self._host
        if not host.firewall and not host.proxy:
            return "ports: without firewall and proxy nothing can be published"
        return f"ports: {request}: {self._reason(request.host_address, request.proto)}"

    def _reason(self, address: IPAddress | None, proto: Proto) -> str:
        host = self._host
        served = " and ".join(PROXIED_PROTOCOLS)
        if not host.firewall and proto not in PROXIED_PROTOCOLS:
            return f"without the firewall, only {served} can be published"
        if address == LOOPBACK6 and not host.proxy:
            return "::1 is served by the proxy, and there is none"
        if address == LOOPBACK6 and proto not in PROXIED_PROTOCOLS:
            return f"::1 is served by the proxy, for {served} only"
        if address is None:
            defaults = [it for it in (self._default4, self._default6) if it is not None]
            listed = " and ".join(map(str, defaults))
            return f"nothing can be published at {listed}, the default: {self._has()}"
        family = self._four if address.version == 4 else self._six
        if family.present:
            network = self._endpoint.network.name
            return f"network {network!r} is isolated for IPv{family.version}"
        return f"IPv{family.version} cannot be published: {self._has()}"

    def _has(self) -> str:
        """Return what addresses the endpoint has."""
        families = [each for each in (self._four, self._six) if each.present]
        listed = " and ".join(f"{it.address} ({it.mode})" for it in families)
        return f"endpoint {self._endpoint.name!r} has {listed}"


def _default4(publication: Publication, host: Host) -> IPv4Address | None:
    for address in (publication.binding4, host.binding4):
        if address is not None:
            return address if isinstance(address, IPv4Address) else None
    return UNSPECIFIED4


def _default6(publication: Publication, host: Host) -> IPAddress | None:
    """Return the IPv6 address for requests that name none.

    A network that is bound to one IPv4 address is not to be reached by IPv6 because
    the controller has a default for it.
    """
    for binding4, binding6 in (
        (publication.binding4, publication.binding6),
        (host.binding4, host.binding6),
    ):
        if isinstance(binding6, IPv6Address):
            return binding6
        if isinstance(binding4, IPv6Address):
            return binding4
        if binding4 is not None:
            everywhere = host.binding6 if host.binding6 is not None else UNSPECIFIED6
            return everywhere if binding4 == UNSPECIFIED4 else None
    return UNSPECIFIED6


def _without_covered(ways: tuple[_Way, ...]) -> tuple[_Way, ...]:
    """Leave out addresses that an unspecified one among them includes."""
    anywhere = [address for address, _ in ways if address.is_unspecified]
    return tuple(
        (address, target)
        for address, target in ways
        if address in anywhere or not any(overlap(address, it) for it in anywhere)
    )


def _order(group: PortGroup) -> tuple[int, int, int, int, int]:
    """Sort exact ports before ranges, and these before ephemeral ports."""
    rank = 0 if group.exact else 1 if group.first else 2
    proto = PROTOCOLS.index(group.proto)
    return rank, group.container_port, proto, group.first, group.last
