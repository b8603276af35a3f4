"""The networks that the host has routes to, kept up to date by the kernel."""

from __future__ import annotations

import errno
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Self

from .links import RTM_DELLINK, RTM_NEWLINK, RTNLGRP_LINK, parse_link
from .netlink import NetlinkSocket
from .routes import (
    RT_TABLE_MAIN,
    RTM_DELROUTE,
    RTM_NEWROUTE,
    RTN_UNICAST,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_ROUTE,
    KernelRoute,
    dump_routes,
    parse_route,
)
from .wire import LINK, NLM_F_APPEND, NLM_F_REPLACE, ROUTE

if TYPE_CHECKING:
    from types import TracebackType

    from ..types import IPNetwork
    from .netlink import Message

# A VPN takes all traffic with routes such as 0.0.0.0/1 via its gateway: they say
# nothing about which addresses are in use.
_SHORTEST_GATEWAYED = {4: 8, 6: 16}
#: the index that a route with several next hops has
_SEVERAL_LINKS = 0


class HostRoutes:
    """The networks that are in use in the network namespace of the calling thread.

    The routes are read once; from then on the kernel tells what changes. Safe to use
    from any thread.

    :raises KernelError: if the routes cannot be read or listened to
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # by the index of the link, because an IPv4 route goes without a message when
        # its link goes down
        self._routes: defaultdict[int, set[KernelRoute]] = defaultdict(set)
        self._disregarded: set[int] = set()
        self._networks: dict[int, tuple[IPNetwork, ...]] = {}
        self._dumps = NetlinkSocket()
        self._events = NetlinkSocket()
        try:
            for group in (RTNLGRP_LINK, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE):
                self._events.subscribe(group)
            self._reload()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._events.close()
        self._dumps.close()

    def disregard(self, *indexes: int) -> None:
        """Leave out routes that lead to some links, from now on."""
        with self._lock:
            self._disregarded.update(indexes)
            self._forget_selection(*indexes)

    def regard(self, *indexes: int) -> None:
        """Undo :meth:`disregard`."""
        with self._lock:
            self._disregarded.difference_update(indexes)
            self._forget_selection(*indexes)

    def networks(self, version: int) -> tuple[IPNetwork, ...]:
        """Return the destinations of the host's routes, as of now.

        Left out are default routes, link-local and multicast destinations, and what
        says little about addresses in use: routes by way of a gateway to more than a
        /8 (IPv4) or a /16 (IPv6).

        :param version: 4 or 6
        """
        with self._lock:
            self._catch_up()
            if not self._networks:
                self._networks = {version: self._select(version) for version in (4, 6)}
            return self._networks[version]

    def _forget_selection(self, *indexes: int) -> None:
        if any(self._routes.get(index) for index in indexes):
            self._networks = {}

    def _changed(self, index: int) -> None:
        if index not in self._disregarded:
            self._networks = {}

    def _catch_up(self) -> None:
        try:
            arrived = self._events.receive()
        except OSError as exc:
            if exc.errno != errno.ENOBUFS:
                raise
            self._reload()
            return
        for message in arrived:
            if not self._apply(message):
                self._reload()  # it is newer than all that has arrived
                return

    def _reload(self) -> None:
        routes = defaultdict(set)
        for version in (4, 6):
            for message in self._dumps.dump(dump_routes(version)):
                # each link has routes in others, which are not worth the parsing
                if ROUTE.unpack_from(message.body)[4] != RT_TABLE_MAIN:
                    continue
                route = parse_route(message)
                if _counts(route):
                    routes[route.index].add(route)
        self._routes = routes
        self._networks = {}

    def _apply(self, message: Message) -> bool:
        """Follow a change, and return whether that was possible.

        To do so twice, or after a later dump, does no harm.
        """
        if message.kind in (RTM_NEWROUTE, RTM_DELROUTE):
            return self._apply_route(message)
        if message.kind in (RTM_NEWLINK, RTM_DELLINK):
            index: int = LINK.unpack_from(message.body)[2]
            if index in self._routes and not parse_link(message).up:
                del self._routes[index]
                self._changed(index)
        return True

    def _apply_route(self, message: Message) -> bool:
        route = parse_route(message)
        if not _counts(route):
            return True
        self._changed(route.index)
        same_link = self._routes[route.index]
        if message.kind == RTM_NEWROUTE:
            same_link.add(route)
            # the kernel does not say which routes made way, or were joined
            return not message.flags & (NLM_F_REPLACE | NLM_F_APPEND)
        known = route in same_link
        same_link.discard(route)
        # it may have been one next hop of a route that has several
        return known or not self._routes.get(_SEVERAL_LINKS)

    def _select(self, version: int) -> tuple[IPNetwork, ...]:
        found = {
            route.destination
            for index, routes in self._routes.items()
            if index not in self._disregarded
            for route in routes
            if route.destination.version == version
        }
        return tuple(sorted(found, key=_order))


def _order(network: IPNetwork) -> tuple[int, int]:
    return int(network.network_address), network.prefixlen


def _counts(route: KernelRoute) -> bool:
    """Return whether a route says that the addresses it leads to are in use."""
    network = route.destination
    return (
        route.table == RT_TABLE_MAIN
        and route.type == RTN_UNICAST
        and not route.cached
        and network.prefixlen > 0
        and not network.is_multicast
        and not (network.version == 6 and network.is_link_local)
        and not (
            route.gatewayed and network.prefixlen < _SHORTEST_GATEWAYED[network.version]
        )
    )
