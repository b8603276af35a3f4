"""Noticing that somebody damages what is ours, and doing something about it."""

from __future__ import annotations

import errno
import logging
from contextlib import aclosing

import anyio

from . import inspection, repair
from .errors import NetlinkError, SandboxNotFound
from .events import DamageFound, LinkRemoved
from .linux import (
    LinkDown,
    LinkGone,
    Overrun,
    PortGone,
    RouteGone,
    Sockets,
    TableChanged,
    get_link,
    parse_link,
)
from .linux.monitor import Change
from .services import Services

_logger = logging.getLogger(__name__)

#: Seconds that are waited, since damage seldom comes alone.
SETTLE = 0.05
#: Seconds between one repair and the next, so that nobody is fought with.
PAUSE = 1.0


class Watcher:
    """Watches the controller's network namespace.

    The nftables table is put back at once; whatever else may be damaged is looked at,
    and mended if the controller is told to, after a moment.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._damage = services.damage
        self._lacks_table = False

    async def watch(self) -> None:
        """Notice damage, until cancelled."""
        async with aclosing(self._services.monitor.watch()) as changes:
            async for change in changes:
                try:
                    await self._notice(change)
                except Exception:
                    _logger.exception("it cannot be told what %s means", change)
                    self._damage.suspect()

    async def _notice(self, change: Change) -> None:
        if isinstance(change, LinkGone):
            self._link_gone(change)
        elif isinstance(change, LinkDown):
            if self._is_ours(change.alias):
                self._damage.suspect()
        elif isinstance(change, PortGone):
            await self._port_gone(change)
        elif isinstance(change, RouteGone):
            self._route_gone(change)
        elif isinstance(change, TableChanged):
            self._table_changed(change)
        else:
            self._lacks_table = True
            await self._mend_firewall()
            if isinstance(change, Overrun):
                self._damage.suspect()

    async def watch_namespaces(self) -> None:
        """Notice that somebody removes a sandbox's namespace, until cancelled."""
        async with aclosing(self._services.removals.watch()) as removals:
            async for name in removals:
                if self._has_lost(name):
                    self._damage.suspect()

    def _has_lost(self, name: str) -> bool:
        if not name or name == "default":  # several; or the host's, which many share
            return True
        try:
            self._services.sandboxes.find(name).require()
        except SandboxNotFound:
            return False  # it is going, and we have done it
        return True

    async def mend(self) -> None:
        """Deal with the damage that is noticed, until cancelled."""
        while True:
            await self._damage.wait()
            await anyio.sleep(SETTLE)
            self._damage.clear()
            try:
                await self._deal()
            except Exception:  # it is tried again
                _logger.exception("damage cannot be dealt with")
                self._damage.suspect()
            await anyio.sleep(PAUSE)

    async def _deal(self) -> None:
        services = self._services
        if self._lacks_table:
            await self._mend_firewall()
        look = repair.repair if services.repairs else inspection.check
        for difference in (found := await look(services)):
            _logger.warning("%s", difference)
        if found:
            event = DamageFound(controller=services.name, differences=found)
            services.bus.publish(event)

    async def _mend_firewall(self) -> None:
        await self._services.admit()
        await repair.put_table_back(self._services)
        self._lacks_table = False

    def _is_ours(self, alias: str) -> bool:
        """Tell whether a link is one that we should have, by its mark."""
        mark, _, identity = alias.rpartition(":")
        return mark == self._services.mark and self._services.has_link(identity)

    def _is_parent(self, index: int) -> bool:
        """Tell whether a network cannot do without a link that is somebody else's."""
        networks = self._services.networks.at(index)
        return any(index in network.state.parents for network in networks)

    def _link_gone(self, change: LinkGone) -> None:
        if self._is_parent(change.index):
            self._damage.suspect()
        if not self._is_ours(change.alias):
            return
        services, identity = self._services, change.alias.rpartition(":")[2]
        _logger.warning("somebody removed the link %s", change.name)
        services.bus.publish(
            LinkRemoved(controller=services.name, link=change.name, object_id=identity)
        )
        self._damage.suspect()

    async def _port_gone(self, change: PortGone) -> None:
        """Look whose port it was: bridges do not tell."""
        alias = await self._services.kernel.run(_alias, change.index)
        if self._is_ours(alias):
            self._damage.suspect()

    def _table_changed(self, change: TableChanged) -> None:
        """Look whether somebody else has deleted what is ours."""
        firewall = self._services.firewall
        if change.name == firewall.table and not firewall.has_changed_by(change.port):
            self._damage.suspect()

    def _route_gone(self, change: RouteGone) -> None:
        """Take a lost route for a bridge that is down, or has lost an address."""
        for network in self._services.networks.at(change.index):
            if change.index in network.links and not network.deleting:
                self._damage.suspect()


def _alias(sockets: Sockets, index: int) -> str:
    """Plan: return the alias of a link, ``""`` if it is gone."""
    try:
        return parse_link(sockets.route.call(get_link(index))[0]).alias
    except NetlinkError as exc:
        if exc.errno != errno.ENODEV:
            raise
        return ""
