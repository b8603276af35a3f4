"""A host with a sandbox behind a bridge, and a client outside."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address
from typing import Any

import anyio

from cnm.firewall import Firewall, NetworkRules
from cnm.linux import Kernel, Sockets
from cnm.ports import PortMapper, Proxy, Publication, parse_ports
from cnm.types import EndpointInfo, IPAddress, NetworkInfo, PortBinding
from tests.integration.lab import Namespace, Servers, ask

BOX4, BOX6 = "10.9.0.2", "fd00:9::2"
HOST4, HOST6 = "192.0.2.1", "2001:db8::1"
#: for publications of sandboxes that have no IPv6 address
ONLY4: dict[str, Any] = {"address6": ""}
CREATED = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass
class World:
    """What the tests have to do with.

    :ivar bridge: index of the bridge
    """

    host: Namespace
    box: Namespace
    client: Namespace
    bridge: int
    servers: Servers = field(default_factory=Servers)

    async def ask(
        self, where: Namespace, address: str, port: int, proto: str = "tcp", **more: Any
    ) -> str:
        """Return what a server answers; see :func:`tests.integration.lab.ask`."""
        work = partial(ask, where, address, port, proto, **more)
        return await anyio.to_thread.run_sync(work)

    def publication(
        self,
        *specs: str,
        endpoint_id: str = "e1",
        name: str = "web",
        ports: tuple[PortBinding, ...] = (),
        address: str = BOX4,
        address6: str = BOX6,
        **fields: Any,
    ) -> Publication:
        """Return what is to be published for an endpoint."""
        network = NetworkInfo(id="n", name="front", driver="bridge", created=CREATED)
        endpoint = EndpointInfo(
            id=endpoint_id,
            name=name,
            network=network,
            created=CREATED,
            address=IPv4Interface(f"{address}/24") if address else None,
            address6=IPv6Interface(f"{address6}/64") if address6 else None,
            ports=ports,
        )
        defaults = {
            "mode4": "nat" if address else None,
            "mode6": "nat" if address6 else None,
            "gateway4": bool(address),
            "gateway6": bool(address6),
            "bridge": self.bridge,
        }
        return Publication(
            endpoint=endpoint,
            requests=tuple(it for spec in specs for it in parse_ports(spec)),
            **(defaults | fields),
        )

    def bind(
        self, address: str, port: int, proto: str = "tcp", **options: int
    ) -> socket.socket:
        """Return a socket of a program of the host, bound to a port.

        :param options: socket options, by name, and ``V6ONLY``
        """
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
        bound = self.host.socket(family, kind)
        try:
            if family == socket.AF_INET6:
                only = options.pop("V6ONLY", 1)
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            for name, value in options.items():
                option: int = getattr(socket, name)
                bound.setsockopt(socket.SOL_SOCKET, option, value)
            bound.bind((address, port))
        except BaseException:
            bound.close()
            raise
        return bound

    def is_free(self, address: str, port: int, proto: str = "tcp") -> bool:
        """Tell whether a program of the host can have a port.

        Connections in state TIME-WAIT are not in its way.
        """
        options = {"SO_REUSEADDR": 1} if proto == "tcp" else {}
        try:
            self.bind(address, port, proto, **options).close()
        except OSError:
            return False
        return True


@dataclass
class Publisher:
    """A port mapper, and what it works with."""

    kernel: Kernel
    firewall: Firewall
    proxy: Proxy | None
    mapper: PortMapper


@asynccontextmanager
async def publisher(
    world: World,
    *,
    proxy: bool = True,
    enabled: bool = True,
    binding4: IPAddress | None = None,
) -> AsyncIterator[Publisher]:
    """Have a port mapper for a world, as a controller has one."""
    async with Kernel(f"/proc/self/fd/{world.host.netns}") as kernel:
        firewall = Firewall("cnm", enabled=enabled)
        await kernel.run(_build, firewall)
        served = Proxy(kernel, firewall) if proxy else None
        mapper = PortMapper(kernel, firewall, binding4=binding4, proxy=served)
        async with anyio.create_task_group() as tasks:
            if served is not None:
                await tasks.start(served.run)
            try:
                yield Publisher(kernel, firewall, served, mapper)
            finally:
                with anyio.CancelScope(shield=True):
                    await mapper.close()
                tasks.cancel_scope.cancel()


def _build(sockets: Sockets, firewall: Firewall) -> None:
    rules = NetworkRules(
        interface="br9",
        subnets4=(IPv4Network("10.9.0.0/24"),),
        subnets6=(IPv6Network("fd00:9::/64"),),
        mode4="nat",
        mode6="nat",
    )
    firewall.update(sockets, add=rules.elements())
    firewall.rebuild(sockets)


def descriptors() -> int:
    """Return how many file descriptors are open."""
    return len(os.listdir("/proc/self/fd"))


def binding(text_address: str, host_port: int, target: str, port: int) -> PortBinding:
    """Return a TCP binding."""
    return PortBinding(
        container_port=port,
        host_port=host_port,
        host_address=ip_address(text_address),
        container_address=ip_address(target),
    )
