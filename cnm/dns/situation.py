"""What a sandbox is joined to, and what follows for the names that it has and sees."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import NamedTuple

from ..requests import HOST_GATEWAY
from ..types import EndpointInfo, IPAddress, SandboxInfo
from .hosts import own_lines
from .resolvconf import Overrides
from .zone import Host

#: Characters of an id by which a sandbox is known as well.
SHORT_ID = 12


class Situation(NamedTuple):
    """A sandbox, and what it is joined to.

    :ivar directory: where its files are
    :ivar adopted: whether its namespace was there before it
    :ivar on_host: whether it is on the host's own network
    :ivar overrides: what its resolv.conf has in place of what the host's has
    :ivar extra_hosts: addresses, or ``HOST_GATEWAY``, by name
    :ivar endpoints: those that are joined to it, the one that comes first for default
        routes first
    :ivar gateways: the next hops of its default routes
    :ivar connected: whether it has a default route
    """

    sandbox: SandboxInfo
    directory: str
    adopted: bool
    on_host: bool
    overrides: Overrides
    extra_hosts: Mapping[str, str]
    endpoints: tuple[EndpointInfo, ...] = ()
    gateways: tuple[IPAddress, ...] = ()
    connected: bool = False

    @property
    def only_ipv6(self) -> bool:
        """Whether it has IPv6 addresses only."""
        return bool(self.endpoints) and all(it.address is None for it in self.endpoints)

    @property
    def serves_names(self) -> bool:
        """Whether a program of it is known to need port 53 for itself."""
        return any(
            53 in (port.port for port in endpoint.exposed)
            or 53 in (port.container_port for port in endpoint.port_requests)
            for endpoint in self.endpoints
        )

    @property
    def hosts(self) -> dict[str, tuple[IPAddress, ...]]:
        """The addresses that its extra hosts stand for at present."""
        return {
            name: self.gateways
            if value == HOST_GATEWAY
            else (ipaddress.ip_address(value),)
            for name, value in self.extra_hosts.items()
        }

    @property
    def hosts_lines(self) -> list[str]:
        """The lines of its hosts file that are its own."""
        return own_lines(
            self.sandbox.hostname,
            self.sandbox.domainname,
            [address for endpoint in self.endpoints for address in addresses(endpoint)],
            self.hosts,
        )


def host_of(sandbox: SandboxInfo, endpoint: EndpointInfo) -> Host:
    """Return what a sandbox is called on the network of one of its endpoints."""
    names = (sandbox.name, endpoint.name, *endpoint.aliases, sandbox.id[:SHORT_ID])
    lower = [name.lower() for name in (*names, sandbox.hostname) if name]
    return Host(names=tuple(dict.fromkeys(lower)), addresses=addresses(endpoint))


def addresses(endpoint: EndpointInfo) -> tuple[IPAddress, ...]:
    """Return the addresses of an endpoint that others know."""
    own = (endpoint.address, endpoint.address6)
    return tuple(address.ip for address in own if address is not None)
