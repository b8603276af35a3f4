"""Networks: groups of endpoints that reach each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import anyio

import cnm

from . import allocation, connecting, leaving
from .directory import Directory
from .endpoint import Endpoint
from .errors import (
    ActiveEndpointsError,
    EndpointNotFound,
    ForbiddenError,
    NetworkNotFound,
    TeardownError,
    UnavailableError,
)
from .events import EndpointPublished, NetworkDeleted
from .plugins import Driver
from .records import NETWORK, frozen, network_record
from .requests import EndpointRequest, endpoint_request
from .service_records import Change, ServiceRecords
from .services import Services
from .store import Put
from .types import (
    JSON,
    IPAddress,
    IPNetwork,
    NetworkInfo,
    NetworkState,
    PoolStatus,
    PortRequest,
    TransportPort,
)


class Network:
    """A group of endpoints that reach each other."""

    def __init__(
        self,
        services: Services,
        driver: Driver | None,
        info: NetworkInfo,
        state: NetworkState,
        *,
        fault: str = "",
    ) -> None:
        self._services = services
        self._driver = driver
        self._info = info
        self._state = state
        self._fault = fault
        self._deleting = False
        self.lock: anyio.Lock = anyio.Lock(fast_acquire=True)
        self.directory: Directory[Endpoint] = Directory(
            EndpointNotFound,
            f" in network {info.name}",
            services.networks.endpoints,
        )

    def __repr__(self) -> str:
        subnets = ", ".join(str(subnet) for subnet in self.subnets)
        return f"<Network {self.name!r} ({self.driver}) [{subnets}]>"

    @property
    def info(self) -> NetworkInfo:
        """A snapshot of the network."""
        return self._info

    @property
    def id(self) -> str:
        """The id: 64 hexadecimal digits."""
        return self._info.id

    @property
    def name(self) -> str:
        """The name, unique in the controller."""
        return self._info.name

    @property
    def driver(self) -> str:
        """Name of the driver."""
        return self._info.driver

    @property
    def subnets(self) -> tuple[IPNetwork, ...]:
        """The subnets, IPv4 first."""
        return self._info.subnets

    @property
    def gateways(self) -> tuple[IPAddress, ...]:
        """The gateways, in the order of their subnets."""
        return self._info.gateways

    @property
    def internal(self) -> bool:
        """Whether the network has no way out."""
        return self._info.internal

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels."""
        return self._info.labels

    @property
    def options(self) -> Mapping[str, JSON]:
        """The options that were given to the driver."""
        return self._info.options

    @property
    def created(self) -> datetime:
        """When the network was created."""
        return self._info.created

    @property
    def services(self) -> ServiceRecords:
        """What the network says of services: SRV and TXT records, to add and remove."""
        return ServiceRecords(self._info.services, self._serve)

    @property
    def deleting(self) -> bool:
        """Whether the network is gone or going."""
        return self._deleting

    @property
    def fault(self) -> str:
        """Why it could not be restored, and cannot be used until it is repaired."""
        return self._fault

    @property
    def handler(self) -> Driver | None:
        """The driver; None for a configuration."""
        return self._driver

    @property
    def links(self) -> tuple[int, ...]:
        """Indexes of its links in the controller's namespace."""
        return self._state.links

    @property
    def state(self) -> NetworkState:
        """What its driver wants remembered."""
        return self._state

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints, in the order of their creation."""
        return tuple(self.directory)

    def endpoint(self, ref: str) -> Endpoint:
        """Return an endpoint by name, id or unique id prefix.

        :raises EndpointNotFound: if there is none
        """
        return self.directory.find(ref)

    async def create_endpoint(
        self,
        name: str,
        *,
        address: str | IPAddress | None = None,
        address6: str | IPAddress | None = None,
        mac: str = "",
        link_local: Iterable[str | IPAddress] = (),
        aliases: Iterable[str] = (),
        links: Mapping[str, str] | None = None,
        ports: Iterable[str | PortRequest] = (),
        exposed: Iterable[str | int | TransportPort] = (),
        publish_all: bool = False,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, JSON] | None = None,
        gateway_priority: int = 0,
        interface_name: str = "",
        sysctls: Mapping[str, str] | None = None,
    ) -> Endpoint:
        """Create an endpoint: reserve its addresses.

        If it fails or is cancelled, nothing is left of it.

        :param name: its name, unique in the network
        :param address: IPv4 address; any of the network's if None
        :param address6: IPv6 address; any of the network's if None
        :param mac: MAC address; chosen by the driver if empty
        :param link_local: further addresses, of 169.254.0.0/16 or fe80::/10
        :param aliases: further names under which sandboxes on the network know it;
            several endpoints may have one, ``"*.app"`` stands for all that end so
        :param links: names on the network by names that only the sandbox itself knows
        :param ports: ports to publish at addresses of the host, as docker's
            ``--publish``: ``"8080:80"``, ``"127.0.0.1:5353:53/udp"``, ``"80"`` for any
            free port of the host, ``"8000-8010:8000-8010"``, ``"8080-8083:80"`` for one
            of several. They are published while the endpoint is joined, see
            :attr:`Endpoint.ports`
        :param exposed: ports on which the sandbox serves, ``"80"`` or ``"53/udp"``
        :param publish_all: publish the exposed ports, each at any free port
        :param options: options of the driver; libnetwork's labels
            ``com.docker.network.endpoint.sysctls`` and ``.ifname`` are understood
        :param gateway_priority: of the sandbox's endpoints, the one of the highest
            priority provides the default route
        :param interface_name: name of the interface in the sandbox; the network's
            prefix and the lowest free number if empty
        :param sysctls: settings of the interface, ``net.ipv4.conf.IFNAME.log_martians``
            for example, to their values
        :raises InvalidError: with everything that is wrong with the parameters
        :raises NameConflict: if the network has an endpoint of the name
        :raises AddressInUse: if the address belongs to somebody else
        :raises NoAvailableAddress: if all addresses are taken
        :raises NetworkNotFound: if the network has been deleted
        :raises UnavailableError: if it has a :attr:`fault`
        """
        await self._services.turns.take()
        driver, request = self._asked(
            name,
            address=address,
            address6=address6,
            mac=mac,
            link_local=link_local,
            aliases=aliases,
            links=links,
            ports=ports,
            exposed=exposed,
            publish_all=publish_all,
            labels=labels,
            options=options,
            gateway_priority=gateway_priority,
            interface_name=interface_name,
            sysctls=sysctls,
        )
        return await connecting.create(self._services, self, driver, request)

    async def connect(
        self,
        sandbox: cnm.Sandbox,
        *,
        name: str = "",
        address: str | IPAddress | None = None,
        address6: str | IPAddress | None = None,
        mac: str = "",
        link_local: Iterable[str | IPAddress] = (),
        aliases: Iterable[str] = (),
        links: Mapping[str, str] | None = None,
        ports: Iterable[str | PortRequest] = (),
        exposed: Iterable[str | int | TransportPort] = (),
        publish_all: bool = False,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, JSON] | None = None,
        gateway_priority: int = 0,
        interface_name: str = "",
        sysctls: Mapping[str, str] | None = None,
    ) -> Endpoint:
        """Create an endpoint and join it to a sandbox: all, or nothing.

        The parameters are those of :meth:`create_endpoint`. Traffic can flow when this
        returns.

        :param name: name of the endpoint; the sandbox's name if empty
        """
        await self._services.turns.take()
        self._services.require_sandbox(sandbox)
        driver, request = self._asked(
            name or sandbox.name,
            address=address,
            address6=address6,
            mac=mac,
            link_local=link_local,
            aliases=aliases,
            links=links,
            ports=ports,
            exposed=exposed,
            publish_all=publish_all,
            labels=labels,
            options=options,
            gateway_priority=gateway_priority,
            interface_name=interface_name,
            sysctls=sysctls,
        )
        return await connecting.connect(self._services, self, driver, request, sandbox)

    def _asked(self, name: object, **parameters: Any) -> tuple[Driver, EndpointRequest]:
        """Check the parameters of an endpoint, and that the network can have one."""
        request = endpoint_request(
            name, **parameters, driver=self.driver, publishes=self._publishes
        )
        self.require()
        if self._driver is None:
            raise ForbiddenError(
                f"cannot create endpoint on configuration-only network {self.name!r}"
            )
        return self._driver, request

    async def disconnect(self, sandbox: cnm.Sandbox) -> None:
        """Remove the sandbox's endpoints on this network.

        :raises EndpointNotFound: if it has none
        :raises TeardownError: if something failed on the way; they are gone then
        """
        self._services.require_sandbox(sandbox)
        mine = [it for it in sandbox.endpoints if it.network is self]
        if not mine:
            raise EndpointNotFound(sandbox.name, f" on network {self.name!r}")
        if failures := await leaving.remove_endpoints(mine):
            raise TeardownError(f"disconnecting sandbox {sandbox.name!r}", failures)

    async def _serve(self, change: Change) -> None:
        async with self.lock:
            self.require()
            if self._info.config_only:
                raise ForbiddenError(
                    f"configuration-only network {self.name!r} has no services"
                )
            info = replace(self._info, services=change(self._info.services))
            await self._record(info, self._state)
            self._info = info
            self._services.names.serve(info)

    async def _record(self, info: NetworkInfo, state: NetworkState) -> None:
        record = network_record(info, state)
        await self._services.journal.write(Put(NETWORK + self.id, record, durable=True))

    async def renew(self, state: NetworkState) -> None:
        """Note what the driver wants remembered now; the caller has the lock."""
        info = replace(self._info, driver_state=frozen(state.state))
        await self._record(info, state)
        self._services.networks.move(self, state)
        self._info, self._state = info, state
        for endpoint in self.endpoints:
            endpoint.renew(info)

    def recovered(self, driver: Driver) -> None:
        """Note that the network can be used, whatever was wrong with it."""
        self._driver, self._fault = driver, ""

    async def delete(self, *, force: bool = False) -> None:
        """Remove the network.

        Once begun, it is not interrupted by cancellation. To do it twice is no error.

        :param force: remove its endpoints first, and go on past failures; they are
            raised together at the end, when the network is gone
        :raises ActiveEndpointsError: if the network has endpoints, unless forced
        :raises ForbiddenError: if other networks take their configuration from it
        :raises DriverError: if the driver fails; the network is still there then
        :raises TeardownError: if something failed on the way of a forced removal
        """
        async with self.lock:
            if self._deleting:
                return
            self._check_unused(force=force)
            self._deleting = True
            failures: list[Exception] = []
            try:
                with anyio.CancelScope(shield=True):
                    remove = leaving.remove_network
                    failures += await remove(self._services, self, force=force)
            except BaseException:
                self._deleting = False
                raise
            self._services.networks.remove(self)
            self._services.names.drop(self._info)
            self._services.reaper.want(singly=True)
            self._services.bus.publish(NetworkDeleted(network=self._info))
        if failures:
            raise TeardownError(f"removing network {self.name!r}", failures)

    def _check_unused(self, *, force: bool) -> None:
        if self._info.config_only and any(
            other.info.config_from == self.name for other in self._services.networks
        ):
            raise ForbiddenError(f"configuration network {self.name!r} is in use")
        active = [(each.name, each.id) for each in self.endpoints]
        active += [(name, "") for name in self.directory.reserved]
        if active and not force:
            raise ActiveEndpointsError(self.name, active)

    async def ipam_status(self) -> Mapping[IPNetwork, PoolStatus]:
        """Return how full each subnet is, if the IPAM driver tells."""
        ipam = await self._services.ipam(self._info.ipam)
        return await allocation.status(ipam, self._info)

    @property
    def _publishes(self) -> bool:
        return self._driver is None or self._driver.handles(EndpointPublished)

    def require(self) -> None:
        """Raise if the network is gone or going, or could not be restored."""
        if self._deleting:
            raise NetworkNotFound(self.name)
        if self._fault:
            raise UnavailableError(
                f"network {self.name!r} could not be restored: {self._fault}"
            )
