"""Routes. Constants: include/uapi/linux/rtnetlink.h."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING

from ..errors import InvalidError
from .addresses import RT_SCOPE_LINK, RT_SCOPE_UNIVERSE
from .netlink import Request
from .wire import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    ROUTE,
    attribute,
    attributes,
    number,
    u32,
)

if TYPE_CHECKING:
    from ..types import IPAddress, IPNetwork
    from .netlink import Message

RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
#: multicast groups of routes
RTNLGRP_IPV4_ROUTE = 7
RTNLGRP_IPV6_ROUTE = 11
#: routing table that is used unless a rule says otherwise
RT_TABLE_MAIN = 254
#: type of a route to somewhere else, as opposed to local, broadcast, unreachable ...
RTN_UNICAST = 1
#: who made the route: an administrator
RTPROT_STATIC = 4

_RT_SCOPE_NOWHERE = 255
_RTM_F_CLONED = 0x200
_RTM_F_FIB_MATCH = 0x2000
_RTA_DST = 1
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_PRIORITY = 6
_RTA_MULTIPATH = 9
_RTA_TABLE = 15
_RTA_VIA = 18


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelRoute:
    """A route, as the kernel describes it.

    :ivar destination: ``0.0.0.0/0`` or ``::/0`` for a default route
    :ivar via: the next hop, None if the destination is on the link
    :ivar index: index of the link it leads to, 0 if there are several or none
    :ivar type: ``RTN_...``: unicast, local, unreachable ...
    :ivar protocol: ``RTPROT_...``: who made it
    :ivar gatewayed: whether it leads through a next hop, or several
    :ivar cached: whether it is no route but a remembered exception to one
    """

    destination: IPNetwork
    via: IPAddress | None
    index: int
    table: int
    type: int
    protocol: int
    metric: int
    gatewayed: bool
    cached: bool = False


def parse_route(message: Message) -> KernelRoute:
    """Return what a message of type RTM_NEWROUTE or RTM_DELROUTE describes."""
    family, prefix, _, _, table, protocol, _, kind, flags = ROUTE.unpack_from(
        message.body
    )
    found = attributes(message.body, ROUTE.size)
    gateway = found.get(_RTA_GATEWAY)
    destination: IPNetwork
    via: IPAddress | None = None
    if family == AF_INET:
        destination = IPv4Network((found.get(_RTA_DST, bytes(4)), prefix))
        if gateway is not None:
            via = IPv4Address(gateway)
    else:
        destination = IPv6Network((found.get(_RTA_DST, bytes(16)), prefix))
        if gateway is not None:
            via = IPv6Address(gateway)
    return KernelRoute(
        destination=destination,
        via=via,
        index=number(found.get(_RTA_OIF)),
        table=number(found.get(_RTA_TABLE)) or table,
        type=kind,
        protocol=protocol,
        metric=number(found.get(_RTA_PRIORITY)),
        gatewayed=bool({_RTA_GATEWAY, _RTA_VIA, _RTA_MULTIPATH} & found.keys()),
        cached=bool(flags & _RTM_F_CLONED),
    )


def add_route(
    destination: IPNetwork | None,
    *,
    via: IPAddress | None = None,
    index: int = 0,
    version: int = 4,
    replace: bool = False,
    metric: int = 0,
) -> Request:
    """Add a route to the main table.

    :param destination: None for the default route
    :param via: the next hop; without one, the destination is on the link
    :param index: index of the link; with a next hop, the kernel finds it
    :param version: 4 or 6; needed for a default route without a next hop
    :param replace: whether a route to the same destination, with the same metric,
        makes way
    :param metric: the lower, the better; 0 for the kernel's choice
    :raises InvalidError: if destination and next hop are not of the same IP version
    """
    flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
    scope = RT_SCOPE_LINK if via is None else RT_SCOPE_UNIVERSE
    head = (RTPROT_STATIC, scope, RTN_UNICAST)
    body = _body(destination, via, index, version, metric, head)
    return Request(RTM_NEWROUTE, flags, body, ("add", *_described(destination, via)))


def delete_route(
    destination: IPNetwork | None,
    *,
    via: IPAddress | None = None,
    index: int = 0,
    version: int = 4,
    metric: int = 0,
) -> Request:
    """Delete the first route of the main table that fits what is given."""
    body = _body(destination, via, index, version, metric, (0, _RT_SCOPE_NOWHERE, 0))
    return Request(RTM_DELROUTE, 0, body, ("delete", *_described(destination, via)))


def dump_routes(version: int) -> Request:
    """Ask for the routes of all tables; each is for :func:`parse_route`."""
    family = AF_INET if version == 4 else AF_INET6
    body = ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    return Request(RTM_GETROUTE, 0, body, f"list IPv{version} routes")


def get_route(address: IPAddress) -> Request:
    """Ask for the route that leads to an address; it is for :func:`parse_route`."""
    family = AF_INET if address.version == 4 else AF_INET6
    body = ROUTE.pack(
        family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, _RTM_F_FIB_MATCH
    ) + attribute(_RTA_DST, address.packed)
    return Request(RTM_GETROUTE, 0, body, ("look for the route to", address))


def _described(
    destination: IPNetwork | None, via: IPAddress | None
) -> tuple[object, ...]:
    route = ("route", "default" if destination is None else destination)
    return route if via is None else (*route, "via", via)


def _body(
    destination: IPNetwork | None,
    via: IPAddress | None,
    index: int,
    version: int,
    metric: int,
    head: tuple[int, int, int],
) -> bytes:
    versions = {part.version for part in (destination, via) if part is not None}
    if len(versions) > 1:
        raise InvalidError(
            f"next hop {str(via)!r} is not of the IP version of {str(destination)!r}"
        )
    family = AF_INET if (versions.pop() if versions else version) == 4 else AF_INET6
    prefix = 0 if destination is None else destination.prefixlen
    body = ROUTE.pack(family, prefix, 0, 0, RT_TABLE_MAIN, *head, 0)
    if prefix and destination is not None:
        body += attribute(_RTA_DST, destination.network_address.packed)
    if via is not None:
        body += attribute(_RTA_GATEWAY, via.packed)
    if index:
        body += u32(_RTA_OIF, index)
    if metric:
        body += u32(_RTA_PRIORITY, metric)
    return body
