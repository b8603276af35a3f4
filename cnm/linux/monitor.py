"""What others do to the links and tables of a network namespace."""

from __future__ import annotations

import errno
import select
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeAlias

import anyio

from ..errors import MissingFeature
from .filters import damaged_links, lost_routes, not_by
from .links import RTM_DELLINK, RTM_NEWLINK, RTNLGRP_LINK, parse_link
from .netlink import NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkSocket
from .nftables.batch import (
    GENERAL,
    INET,
    NFNL_SUBSYS_NFTABLES,
    NFT_MSG_DELCHAIN,
    NFT_MSG_DELRULE,
    NFT_MSG_DELSET,
    NFT_MSG_DELSETELEM,
    NFT_MSG_DELTABLE,
    NFT_MSG_NEWGEN,
    NFT_MSG_NEWTABLE,
    NFTA_TABLE_NAME,
)
from .routes import (
    RTM_DELROUTE,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_ROUTE,
    parse_route,
)
from .wire import attributes, text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from types import TracebackType

    from .netlink import Message

# include/uapi/linux/netfilter/nfnetlink.h
_NFNLGRP_NFTABLES = 7
_AF_UNSPEC = 0
#: All of these name their table in their first attribute.
_DELETIONS = (NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET, NFT_MSG_DELSETELEM)
#: Sockets that are disregarded, at most: the last ones.
_DISREGARDED = 64
_ROUTES = (RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE)


@dataclass(frozen=True, slots=True)
class LinkGone:
    """A link has been deleted, or moved to another network namespace."""

    index: int
    name: str
    alias: str


@dataclass(frozen=True, slots=True)
class LinkDown:
    """A link has been set down, and not to be reaped."""

    index: int
    name: str
    alias: str


@dataclass(frozen=True, slots=True)
class PortGone:
    """A link that is up has been taken off its bridge.

    :ivar bridge: index of the bridge
    """

    index: int
    bridge: int


@dataclass(frozen=True, slots=True)
class TableGone:
    """An nftables table of family inet has been deleted, and not made again at once."""

    name: str


@dataclass(frozen=True, slots=True)
class TableChanged:
    """Something has been deleted from an nftables table of family inet.

    :ivar port: port of the netlink socket that has done it
    """

    name: str
    port: int


@dataclass(frozen=True, slots=True)
class Overrun:
    """Changes came faster than they were read: look at everything anew."""


@dataclass(frozen=True, slots=True)
class RouteGone:
    """A route of the main table has been deleted.

    Its link may be down, or lack an address.
    """

    index: int


Change: TypeAlias = (
    LinkGone | LinkDown | PortGone | RouteGone | TableGone | TableChanged | Overrun
)


class Monitor:
    """Watches the network namespace of the thread that makes it.

    Changes are kept from the moment it is made, whether or not anybody is watching.

    :raises MissingCapability: if the process may not listen
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._disregarded: list[int] = []
        self._tables_socket: NetlinkSocket | None = None
        self._deleted: list[str] = []
        self._changed: dict[str, int] = {}
        with ExitStack() as stack:
            # one file descriptor to wait for, in place of two
            self._ready = stack.enter_context(select.epoll())
            self._sockets: list[NetlinkSocket] = []
            for protocol, program, groups in (
                (NETLINK_ROUTE, damaged_links(), (RTNLGRP_LINK,)),
                (NETLINK_ROUTE, lost_routes(), _ROUTES),
                (NETLINK_NETFILTER, b"", (_NFNLGRP_NFTABLES,)),
            ):
                try:
                    socket = stack.enter_context(NetlinkSocket(protocol))
                except MissingFeature:
                    continue  # a kernel without tables does not lose any
                if program:
                    socket.keep(program)
                for group in groups:
                    socket.subscribe(group)
                if protocol == NETLINK_NETFILTER:
                    self._tables_socket = socket
                self._ready.register(socket, select.EPOLLIN)
                self._sockets.append(socket)
            self._resources = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def disregard(self, port: int) -> None:
        """Hear no more of what is done to tables by way of a netlink socket.

        For one's own sockets: what they do would wake up whoever watches. It may be
        called from any thread.
        """
        with self._lock:
            self._disregarded = [*self._disregarded[1 - _DISREGARDED :], port]
            if self._tables_socket is not None:
                self._tables_socket.keep(not_by(self._disregarded))

    def close(self) -> None:
        """Stop listening; nothing may be in :meth:`watch` any more."""
        self._resources.close()

    async def watch(self) -> AsyncGenerator[Change, None]:
        """Yield what happens, in order, until cancelled. One task at a time may watch.

        Links and tables have no order between them. Whoever leaves the loop early uses
        :func:`contextlib.aclosing`.
        """
        while True:
            await anyio.wait_readable(self._ready)
            for socket in self._sockets:
                for change in self._changes(socket):
                    yield change

    def _changes(self, socket: NetlinkSocket) -> Iterator[Change]:
        try:
            arrived = socket.receive()
        except OSError as exc:
            if exc.errno != errno.ENOBUFS:
                raise
            self._deleted.clear()
            self._changed.clear()
            yield Overrun()
            return
        for message in arrived:
            if message.kind in (RTM_DELLINK, RTM_NEWLINK):
                yield _link(message)
            elif message.kind == RTM_DELROUTE:
                yield RouteGone(parse_route(message).index)
            elif message.kind >= NFNL_SUBSYS_NFTABLES:
                yield from self._tables(message)

    def _tables(self, message: Message) -> Iterator[TableGone | TableChanged]:
        """Follow the tables; a transaction may delete one and make it again."""
        kind = message.kind - NFNL_SUBSYS_NFTABLES
        if kind == NFT_MSG_NEWGEN:
            deleted, self._deleted = self._deleted, []
            changed, self._changed = self._changed, {}
            yield from map(TableGone, deleted)
            for name in changed.keys() - set(deleted):
                yield TableChanged(name, changed[name])
        elif kind in _DELETIONS and message.body[0] == INET:
            name = text(attributes(message.body, GENERAL.size).get(NFTA_TABLE_NAME))
            self._changed[name] = message.port
        elif kind in (NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE) and message.body[0] == INET:
            name = text(attributes(message.body, GENERAL.size).get(NFTA_TABLE_NAME))
            if name in self._deleted:
                self._deleted.remove(name)
            if kind == NFT_MSG_DELTABLE:
                self._deleted.append(name)


def _link(message: Message) -> LinkGone | LinkDown | PortGone:
    """Return what has become of a link: the filter lets nothing else pass."""
    link = parse_link(message)
    if message.kind == RTM_NEWLINK:
        return LinkDown(link.index, link.name, link.alias)
    if message.body[0] == _AF_UNSPEC:
        return LinkGone(link.index, link.name, link.alias)
    # a bridge says of what it loses that it is no port any more
    return PortGone(link.index, link.master)
