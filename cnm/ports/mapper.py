"""Publishing ports: what network drivers use."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..answers import PublishInfo
from .plans import Withdrawing, publish
from .publication import (
    LOOPBACK6,
    UNSPECIFIED6,
    Host,
    Publication,
    open_ports,
    problems,
)
from .service import Service
from .sockets import has_address
from .translation import Translation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..firewall import Firewall
    from ..linux import Kernel, Sockets
    from ..linux.forgetter import Forgetter
    from ..types import IPAddress, PortBinding
    from .proxy import Proxy


class PortMapper:
    """Makes ports of sandboxes reachable at addresses of the host.

    Each port of the host is held by a socket, so that no other program can take it; who
    has it, a program or another endpoint, is named if it is asked for again. Packets
    are translated by the firewall; what the kernel cannot translate, the proxy serves.
    With a firewall that is not enabled, the proxy serves everything.

    Calls for one endpoint come one after the other, those for several at once.

    :param binding4: address of the host for requests that name none, and whose network
        has no default either; without one, all addresses
    :param binding6: the same for IPv6
    :param proxy: the user-space proxy, or None to have none
    :param forgetter: has connections to ports that are taken back be forgotten in the
        background; without one, they are when the call returns
    """

    def __init__(
        self,
        kernel: Kernel,
        firewall: Firewall,
        *,
        binding4: IPAddress | None = None,
        binding6: IPAddress | None = None,
        proxy: Proxy | None,
        forgetter: Forgetter | None = None,
    ) -> None:
        self._kernel = kernel
        self._forgetter = forgetter
        self._proxy = proxy
        self._host = Host(
            binding4=binding4,
            binding6=binding6,
            proxy=proxy is not None,
            firewall=firewall.enabled,
        )
        self._translation: Translation | None = None
        self._service: Service | None = None
        if firewall.enabled:
            routes = None if proxy is None else proxy.routes
            self._translation = Translation(firewall, routes, forgetter)
        elif proxy is not None:
            self._service = Service(kernel, proxy)
        self._has_ipv6: bool | None = None

    def problems(self, publication: Publication) -> list[str]:
        """Return why ports can never be published, one sentence each.

        They are the same whichever endpoint provides the sandbox's default routes.
        Whether ports of the host are free turns out when they are published.
        """
        return problems(publication, self._host)

    async def publish(self, publication: Publication) -> tuple[PortBinding, ...]:
        """Publish exactly what a publication says: all of it, or nothing changes.

        What the endpoint has published before, and is to be published still, is not
        touched; the rest is taken back. Otherwise a port of a range, or any port, is
        preferably the one that the endpoint's ``ports`` have.

        :return: all bindings of the endpoint
        :raises PortInUse: if ports of the host are taken; it says by whom
        :raises NoAvailablePort: if every port of a range is taken
        :raises MissingCapability: if ports are for privileged processes only
        :raises InvalidError: if the host does not have an address, or for several of
            these reasons
        :raises UnavailableError: if there is no room for so many sockets
        :raises KernelError: if the kernel refuses the change
        """
        ready = await self.publishing(publication)
        if isinstance(ready, PublishInfo):
            return await self._kernel.run(ready.plan)
        return ready

    async def publishing(
        self, publication: Publication
    ) -> tuple[PortBinding, ...] | PublishInfo:
        """Get ready for :meth:`publish`.

        :return: the plan that publishes, for a driver to return; or all bindings, if
            they have been published, because there is no firewall
        """
        forgetter = self._forgetter
        if forgetter is not None:
            former = publication.endpoint.ports
            await forgetter.settle_ports(publication.requests, former)
        host = await self._present_host(publication)
        if self._translation is not None:
            arguments = (self._translation, publication, host, forgetter)
            return PublishInfo(plan=partial(publish, *arguments))
        if self._service is not None:
            return await self._service.publish(publication, host)
        return open_ports(publication)

    async def unpublish(
        self, endpoint_id: str, bindings: Iterable[PortBinding] | None = None
    ) -> None:
        """Take an endpoint's bindings back: all of it, or nothing changes.

        It is no error if they are gone.

        :param bindings: which ones, or None for all
        :raises KernelError: if the kernel refuses the change
        """
        ready = await self.unpublishing(endpoint_id, bindings)
        if ready is not None:
            await self._kernel.run(ready.plan)
            if ready.done is not None:
                ready.done()

    async def unpublishing(
        self, endpoint_id: str, bindings: Iterable[PortBinding] | None = None
    ) -> PublishInfo | None:
        """Get ready for :meth:`unpublish`.

        :return: the plan that takes them back, for a driver to return; None if they are
            gone
        """
        if self._translation is not None and endpoint_id in self._translation:
            withdrawing = Withdrawing(
                self._translation, endpoint_id, bindings, self._forgetter
            )
            return PublishInfo(plan=withdrawing.run, done=withdrawing.done)
        if self._service is not None and endpoint_id in self._service:
            await self._service.withdraw(endpoint_id, bindings)
        return None

    def forget_bridge(self, bridge: int) -> None:
        """Note that a bridge that publications had is gone, or has been made again.

        :param bridge: its index
        """
        if self._translation is not None:
            self._translation.forget_bridge(bridge)

    async def close(self) -> None:
        """Let go of all ports. The table stays as it is."""
        if self._translation is not None:
            await self._kernel.run(_close, self._translation)
        if self._service is not None:
            self._service.close()
        if self._proxy is not None:
            self._proxy.close()

    async def _present_host(self, publication: Publication) -> Host:
        """Return what the host has at present; addresses of loopback may come and go.

        :raises KernelError: if the proxy cannot be opened
        """
        if not publication.requests:
            return self._host
        if self._has_ipv6 is None:
            self._has_ipv6 = await self._kernel.run(_has_address, UNSPECIFIED6)
        if not self._has_ipv6 or self._proxy is None:
            loopback6 = False
        elif self._host.firewall:
            requests = publication.requests
            proxy = self._proxy
            loopback6 = proxy.is_open(requests) or await proxy.open(requests)
        else:
            loopback6 = await self._kernel.run(_has_address, LOOPBACK6)
        host = self._host
        if (host.ipv6, host.loopback6) != (self._has_ipv6, loopback6):
            host = replace(host, ipv6=self._has_ipv6, loopback6=loopback6)
            self._host = host
        return host


def _has_address(sockets: Sockets, address: IPAddress) -> bool:
    return has_address(address)


def _close(sockets: Sockets, translation: Translation) -> None:
    translation.close()
