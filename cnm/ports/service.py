"""Ports that the user-space proxy serves, if there is no firewall to translate them."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import anyio

from ..requests.specs import overlap
from .claim import Claim, Registry
from .holding import Holding
from .ledger import Owner, owner_of
from .places import HostPort, host_port
from .publication import groups, open_ports
from .sockets import listen

if TYPE_CHECKING:
    from collections.abc import Iterable
    from socket import socket

    from ..linux import Kernel, Sockets
    from ..types import PortBinding, Proto
    from .proxy import Proxy
    from .publication import Host, Publication

_logger = logging.getLogger(__name__)


class Service:
    """Has the proxy listen on every port that is published.

    For each endpoint, one method at a time.
    """

    def __init__(self, kernel: Kernel, proxy: Proxy) -> None:
        self._kernel = kernel
        self._proxy = proxy
        self._lock = threading.Lock()
        self._registry = Registry()
        self._published: dict[str, tuple[PortBinding, ...]] = {}

    def __contains__(self, endpoint_id: str) -> bool:
        """Tell whether an endpoint has published anything."""
        return endpoint_id in self._published

    async def publish(
        self, publication: Publication, host: Host
    ) -> tuple[PortBinding, ...]:
        """Publish exactly what a publication says, or change nothing."""
        endpoint = publication.endpoint
        old = self._published.get(endpoint.id, ())
        moving = await self._kernel.run(_moving, publication, host, old)
        await self._give_up(moving)
        stay = tuple(it for it in old if it not in moving)
        try:
            bindings, listeners = await self._kernel.run(
                self._claim, publication, host, stay
            )
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._take_back(owner_of(endpoint), moving)
            raise
        for binding in bindings:
            if listener := listeners.get(host_port(binding)):
                self._proxy.serve(binding, listener)
        kept = frozenset(bindings)
        for binding in stay:
            if binding not in kept:
                self._proxy.stop(binding)
        self._note(endpoint.id, bindings)
        return bindings

    async def withdraw(
        self, endpoint_id: str, gone: Iterable[PortBinding] | None
    ) -> None:
        """Take bindings of an endpoint back, or all of them for None."""
        old = self._published.get(endpoint_id, ())
        goes = frozenset(old if gone is None else gone)
        await self._give_up(frozenset(it for it in old if it in goes))
        self._note(endpoint_id, tuple(it for it in old if it not in goes))

    def close(self) -> None:
        """Let go of all ports."""
        for bindings in self._published.values():
            for binding in bindings:
                self._proxy.stop(binding)
        self._registry = Registry()
        self._published = {}

    def _note(self, endpoint_id: str, bindings: tuple[PortBinding, ...]) -> None:
        if bindings:
            self._published[endpoint_id] = bindings
        else:
            self._published.pop(endpoint_id, None)

    async def _give_up(self, bindings: frozenset[PortBinding]) -> None:
        for binding in bindings:
            self._proxy.stop(binding)
        if bindings:
            await self._kernel.run(self._strike_out, bindings)

    async def _take_back(self, owner: Owner, bindings: frozenset[PortBinding]) -> None:
        """Serve again what has been given up, as far as it is still to be had."""
        listeners = await self._kernel.run(self._listen_again, owner, bindings)
        for binding in bindings:
            if listener := listeners.get(host_port(binding)):
                self._proxy.serve(binding, listener)

    def _claim(
        self,
        sockets: Sockets,
        publication: Publication,
        host: Host,
        before: tuple[PortBinding, ...],
    ) -> tuple[tuple[PortBinding, ...], dict[HostPort, socket]]:
        """Plan: take the ports, and return their bindings and new sockets."""
        holding = Holding(parks=False)
        endpoint = publication.endpoint
        with self._lock:
            claim = Claim(
                self._registry,
                owner_of(endpoint),
                listen,
                before=before,
                holding=holding,
                preferred=endpoint.ports,
            )
            try:
                bound = claim.take(groups(publication, host))
            except BaseException:
                claim.undo()
                raise
            claim.settle()
        return (*bound, *open_ports(publication)), holding.hand_over()

    def _strike_out(self, sockets: Sockets, bindings: Iterable[PortBinding]) -> None:
        """Plan: account for ports that have been given up."""
        with self._lock:
            for binding in bindings:
                self._registry.ledger.remove(host_port(binding))

    def _listen_again(
        self, sockets: Sockets, owner: Owner, bindings: Iterable[PortBinding]
    ) -> dict[HostPort, socket]:
        """Plan: take ports that have been given up."""
        listeners = {}
        with self._lock:
            for place in map(host_port, bindings):
                try:
                    listeners[place] = listen(place, absent=True)
                except OSError:
                    message = "%s of %s is lost"
                    _logger.exception(message, place.described, owner.title)
                else:
                    self._registry.ledger.add(place, owner)
        return listeners


def _moving(
    sockets: Sockets, publication: Publication, host: Host, old: Iterable[PortBinding]
) -> frozenset[PortBinding]:
    """Plan: return the bindings that are in the way of others of the same endpoint.

    One at all addresses is in the way of the same port at a single address, and the
    port of another target in the way of this one.
    """
    exact: dict[tuple[Proto, int], set[PortBinding]] = {}
    for group in groups(publication, host):
        if group.exact:
            wanted = exact.setdefault((group.proto, group.first), set())
            wanted.update(group.bindings(group.first))
    moving = set()
    for binding in old:
        wanted = exact.get((binding.proto, binding.host_port), set())
        if binding not in wanted and any(
            overlap(binding.host_address, it.host_address) for it in wanted
        ):
            moving.add(binding)
    return frozenset(moving)
