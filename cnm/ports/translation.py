"""Ports that the kernel translates: plans that publish them, and take them back."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..linux import set_ipv4_configuration
from .claim import Claim, Registry
from .elements import elements, is_proxied
from .holding import Holding
from .ledger import owner_of
from .places import HostPort, host_port
from .publication import LOOPBACK6, groups, open_ports
from .sockets import hold

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ..firewall import Element, Firewall
    from ..linux import Sockets
    from ..linux.forgetter import Forgetter, Port
    from ..types import PortBinding, Proto
    from .publication import Host, Publication
    from .routes import Routes, Target


@dataclass(frozen=True, slots=True)
class _Published:
    """What an endpoint has published.

    :ivar direct: whether translated ports are open under the sandbox's own addresses
    """

    bindings: tuple[PortBinding, ...] = ()
    direct: bool = False
    elements: frozenset[Element] = frozenset()


_NOTHING = _Published()


class Translation:
    """Keeps the table, the sockets that hold ports, and the proxy's routes in step.

    The methods are for plans, and may be called from several threads.

    :param routes: where the proxy sends what comes to ``::1``; None without a proxy
    :param forgetter: is told, while nobody else can have them, of ports whose
        connections are out of date
    """

    def __init__(
        self, firewall: Firewall, routes: Routes | None, forgetter: Forgetter | None
    ) -> None:
        self._firewall = firewall
        self._routes = routes
        self._forgetter = forgetter
        self._lock = threading.Lock()
        self._registry = Registry()
        self._holdings: dict[str, Holding] = {}
        self._published: dict[str, _Published] = {}
        self._local_bridges: set[int] = set()

    def __contains__(self, endpoint_id: str) -> bool:
        """Tell whether an endpoint has published anything."""
        return endpoint_id in self._published

    def bindings(self, endpoint_id: str) -> tuple[PortBinding, ...]:
        """Return what an endpoint has published."""
        return self._published.get(endpoint_id, _NOTHING).bindings

    def publish(
        self,
        sockets: Sockets,
        publication: Publication,
        host: Host,
        busy: Collection[tuple[Proto, int]] = (),
    ) -> tuple[tuple[PortBinding, ...], list[Port]]:
        """Plan: publish exactly what a publication says, or change nothing.

        :param busy: ports that are not to be chosen where others will do
        :return: all bindings, and the ports whose connections are out of date
        """
        endpoint = publication.endpoint
        with self._lock:
            old = self._published.get(endpoint.id, _NOTHING)
            holding = self._holdings.get(endpoint.id) or Holding()
            claim = Claim(
                self._registry,
                owner_of(endpoint),
                hold,
                before=old.bindings,
                holding=holding,
                preferred=endpoint.ports,
                busy=busy,
                setting=sockets.setting,
            )
            try:
                bound = claim.take(groups(publication, host))
                bindings = (*bound, *open_ports(publication))
                new = self._made(bindings, publication.direct)
                change = _Change(old, new)
                if change.is_local:
                    self._reach_from_loopback(sockets, publication.bridge)
                self._forget_former(sockets, change)
                self._commit(sockets, change)
            except BaseException:
                claim.undo()
                raise
            claim.settle()
            self._note(endpoint.id, new, holding)
            return bindings, self._told(change.outdated(known=endpoint.ports))

    def withdraw(
        self, sockets: Sockets, endpoint_id: str, gone: Iterable[PortBinding] | None
    ) -> list[Port]:
        """Plan: take bindings of an endpoint back, or all of them for None.

        :return: the ports whose connections are out of date
        """
        with self._lock:
            old = self._published.get(endpoint_id)
            if old is None:
                return []
            goes = set(old.bindings if gone is None else gone)
            stay = tuple(it for it in old.bindings if it not in goes)
            new = self._made(stay, old.direct)
            change = _Change(old, new)
            self._commit(sockets, change)
            holding = self._holdings[endpoint_id]
            places = [host_port(it) for it in change.went if it.host_port]
            self._registry.release(places, holding)
            self._note(endpoint_id, new, holding)
            return self._told(change.outdated())

    def close(self) -> None:
        """Let go of all ports; the table stays as it is."""
        with self._lock:
            for holding in self._holdings.values():
                holding.close()
            self._registry = Registry()
            self._holdings, self._published = {}, {}

    def forget_bridge(self, bridge: int) -> None:
        """Note that a bridge is gone, or another one."""
        self._local_bridges.discard(bridge)

    def _forget_former(self, sockets: Sockets, change: _Change) -> None:
        """Forget connections of those who had ports until a moment ago."""
        came = {(it.proto, it.host_port) for it in change.came}
        if self._forgetter is not None and came & self._forgetter.busy:
            self._forgetter.flush_now(sockets)

    def _told(self, outdated: list[Port]) -> list[Port]:
        if self._forgetter is not None:
            self._forgetter.ports(outdated)
        return outdated

    def _reach_from_loopback(self, sockets: Sockets, bridge: int) -> None:
        """Have what the host sends from 127.0.0.1 reach the sandboxes of a bridge."""
        if bridge and bridge not in self._local_bridges:
            sockets.route.call(set_ipv4_configuration(bridge, route_localnet=1))
            self._local_bridges.add(bridge)

    def _made(self, bindings: tuple[PortBinding, ...], direct: bool) -> _Published:
        made = elements(bindings, direct=direct, proxy=self._routes is not None)
        return _Published(bindings, direct, made)

    def _commit(self, sockets: Sockets, change: _Change) -> None:
        """Make a change in the table and in the routes, or none in either."""
        old, new = change.old, change.new
        add, remove = new.elements - old.elements, old.elements - new.elements
        came, went = _targets(change.came), _targets(change.went)
        if self._routes is None:
            self._firewall.update(sockets, add=add, remove=remove)
            return
        self._routes.add(came)  # before the kernel sends anything
        try:
            self._firewall.update(sockets, add=add, remove=remove)
        except BaseException:
            self._routes.remove(came)
            self._routes.add(went)
            raise
        # as long as the kernel knows the clients, they are told of the end
        self._routes.remove(went)

    def _note(self, endpoint_id: str, new: _Published, holding: Holding) -> None:
        if new.bindings:
            self._published[endpoint_id] = new
            self._holdings[endpoint_id] = holding
        else:
            self._published.pop(endpoint_id, None)
            self._holdings.pop(endpoint_id, None)


class _Change:
    """What becomes of an endpoint's bindings.

    :ivar came: those that it did not have before
    :ivar went: those that it does not have any more
    """

    def __init__(self, old: _Published, new: _Published) -> None:
        self.old = old
        self.new = new
        before, after = frozenset(old.bindings), frozenset(new.bindings)
        self.came = after - before
        self.went = before - after

    @property
    def is_local(self) -> bool:
        """Whether ports are to be reached by 127.0.0.1."""
        return any(map(_is_local, self.new.bindings))

    def outdated(self, known: Collection[PortBinding] = ()) -> list[Port]:
        """Return the ports whose connections are to be looked at anew.

        Those to ports that have gone end. Of those to ports that have come, only UDP
        has any: clients that have asked in vain, and keep asking.

        :param known: bindings that come back after a restart; theirs go on
        """
        new = {it for it in self.came if it.proto == "udp"}
        if new:
            new -= frozenset(known)
        ports: list[Port] = [
            _seen_by_clients(it) for it in (*new, *self.went) if it.host_port
        ]
        ports += [
            _seen_in_sandbox(binding)
            for binding in self.went
            if self.old.direct or not binding.host_port
        ]
        return ports


def _seen_by_clients(binding: PortBinding) -> Port:
    return binding.proto, binding.host_address, binding.host_port


def _seen_in_sandbox(binding: PortBinding) -> Port:
    return binding.proto, binding.container_address, binding.container_port


def _is_local(binding: PortBinding) -> bool:
    """Tell whether a translated port is reached by 127.0.0.1."""
    address = binding.host_address
    local = address.is_unspecified or address.is_loopback
    return binding.host_port != 0 and address.version == 4 and local


def _targets(bindings: Iterable[PortBinding]) -> dict[HostPort, Target]:
    """Return where the proxy sends what comes to ``::1``."""
    return {
        HostPort(LOOPBACK6, binding.proto, binding.host_port): (
            binding.container_address,
            binding.container_port,
        )
        for binding in bindings
        if is_proxied(binding)
    }
