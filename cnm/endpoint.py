"""Endpoints: the attachments of sandboxes to networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from ipaddress import IPv4Interface, IPv6Interface
from types import NoneType

import anyio

import cnm

from . import joining, leaving, publishing
from .attaching import candidate_of
from .errors import (
    ActiveSandboxError,
    EndpointNotFound,
    ForbiddenError,
    TeardownError,
)
from .events import (
    EndpointDeleted,
    EndpointInspected,
    EndpointLeft,
    EndpointPublished,
)
from .gateways import Candidate
from .plugins import Driver
from .records import ENDPOINT, Attachment
from .requests import port_requests, with_more, without
from .roles import NOTHING, Change, Role
from .services import Services
from .store import Delete
from .types import JSON, EndpointInfo, NetworkInfo, PortBinding, PortRequest


class Endpoint:
    """An attachment of a sandbox to a network.

    It has its addresses for as long as it exists, and an interface while it is joined
    to a sandbox. Operations on one endpoint happen one after the other.
    """

    def __init__(
        self,
        services: Services,
        network: cnm.Network,
        driver: Driver,
        info: EndpointInfo,
        attachment: Attachment | None = None,
    ) -> None:
        self._services = services
        self._network = network
        self._driver = driver
        self._info = info
        self._attachment = attachment
        self._role = NOTHING
        self._deleted = False
        #: whether it is on its way out of its sandbox
        self.leaving: bool = False
        self.lock: anyio.Lock = anyio.Lock(fast_acquire=True)

    def __repr__(self) -> str:
        state = "joined" if self.joined else "not joined"
        return f"<Endpoint {self.name!r} of {self._network.name!r}, {state}>"

    @property
    def info(self) -> EndpointInfo:
        """A snapshot of the endpoint."""
        return self._info

    @property
    def id(self) -> str:
        """The id: 64 hexadecimal digits."""
        return self._info.id

    @property
    def name(self) -> str:
        """The name, unique in the network."""
        return self._info.name

    @property
    def network(self) -> cnm.Network:
        """The network."""
        return self._network

    @property
    def sandbox(self) -> cnm.Sandbox | None:
        """The sandbox that the endpoint is joined to, or None."""
        if self._attachment is None:
            return None
        return self._services.sandboxes.get(self._attachment.sandbox)

    @property
    def joined(self) -> bool:
        """Whether the endpoint is joined to a sandbox."""
        return self._attachment is not None

    @property
    def attachment(self) -> Attachment | None:
        """How the endpoint is joined, or None."""
        return self._attachment

    @property
    def interface(self) -> str:
        """Name of the interface in the sandbox, ``""`` while not joined."""
        return self._attachment.interface if self._attachment else ""

    @property
    def order(self) -> int:
        """Position of the joining among those of the controller; 0 if not joined."""
        return self._attachment.order if self._attachment else 0

    @property
    def address(self) -> IPv4Interface | None:
        """The IPv4 address with its prefix length, or None."""
        return self._info.address

    @property
    def address6(self) -> IPv6Interface | None:
        """The IPv6 address with its prefix length, or None."""
        return self._info.address6

    @property
    def mac(self) -> str:
        """The MAC address."""
        return self._info.mac

    @property
    def ports(self) -> tuple[PortBinding, ...]:
        """The ports that are published by way of this endpoint.

        Ports are translated by way of the endpoint that provides the sandbox's default
        route: with several networks that may be another one than asked for them. See
        :attr:`Sandbox.ports`.
        """
        return self._info.ports

    @property
    def aliases(self) -> tuple[str, ...]:
        """Further names of the endpoint on its network."""
        return self._info.aliases

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
        """When the endpoint was created."""
        return self._info.created

    async def inspect(self) -> Mapping[str, JSON]:
        """Return what the driver knows of the endpoint (EndpointOperInfo)."""
        event = EndpointInspected(endpoint=self._info)
        return await self._services.answer(self._driver, event, Mapping, NoneType) or {}

    async def join(self, sandbox: cnm.Sandbox) -> None:
        """Give the sandbox an interface on the network.

        Traffic can flow when this returns. If it fails or is cancelled, the sandbox is
        as before.

        :raises ForbiddenError: if the endpoint is joined already
        :raises ConflictError: if the sandbox has an interface of the name
        :raises SandboxNotFound: if the sandbox has been deleted
        :raises KernelError: if the interface cannot be made or configured
        :raises DriverError: if the driver fails
        """
        self._services.require_sandbox(sandbox)
        await self._services.turns.take()
        async with self.lock, sandbox.lock:
            self._require()
            self._network.require()
            sandbox.require()
            if self._attachment is not None:
                raise ActiveSandboxError(
                    "another container is attached to the same network endpoint "
                    f"{self.name!r}: sandbox {self._attachment.sandbox[:12]}"
                )
            await joining.join(self._services, self, sandbox)

    def attached(self, attachment: Attachment) -> None:
        """Note how the endpoint has been joined."""
        self._attachment = attachment
        self.leaving = False

    def renew(self, network: NetworkInfo) -> None:
        """Note what its network is now."""
        if self._info.network is not network:
            self._info = replace(self._info, network=network)

    def recovered(self, driver: Driver) -> None:
        """Note that its network has a driver now."""
        self._driver = driver

    @property
    def candidate(self) -> Candidate:
        """The endpoint as a candidate for its sandbox's default routes."""
        return candidate_of(self._info, self._attachment)

    # --- ports ------------------------------------------------------------------------

    @property
    def publishes(self) -> bool:
        """Whether its network's driver publishes ports."""
        return self._driver.handles(EndpointPublished)

    @property
    def handler(self) -> Driver:
        """Its network's driver."""
        return self._driver

    @property
    def role(self) -> Role:
        """What is published by way of it at present."""
        return self._role

    def note(self, change: Change) -> None:
        """Note what has become of its ports, and tell subscribers."""
        events = tuple(change.events())
        network = self._info.network  # it may have been renewed meanwhile
        self._role, self._info = change.role, change.info
        self.renew(network)
        for event in events:
            self._services.bus.publish(event)

    async def publish(self, *ports: str | PortRequest) -> tuple[PortBinding, ...]:
        """Publish further ports while the endpoint is joined: all, or none.

        They are published by way of the endpoint that provides the sandbox's default
        route, which may be another one. If it fails or is cancelled, all is as before.

        :param ports: as in :meth:`Network.create_endpoint`
        :return: what has been bound
        :raises InvalidError: with everything that is wrong with the ports
        :raises ConflictError: if the endpoint has such a port already
        :raises PortInUse: if ports of the host are taken
        :raises NoAvailablePort: if no port of a range is free
        :raises ForbiddenError: if the endpoint is not joined
        """
        requests = port_requests(ports)
        if requests and not self.publishes:
            raise ForbiddenError(f"driver {self._driver.name!r} does not publish ports")
        changes = await self._change_ports(lambda own: with_more(own, requests))
        return tuple(binding for change in changes for binding in change.new)

    async def unpublish(self, *ports: str | PortRequest | PortBinding) -> None:
        """Take published ports back while the endpoint is joined: all, or none.

        Connections to them are cut.

        :param ports: what was asked for, or bound; what they leave open (``"80"`` has
            neither address nor port of the host) may be anything. None for all
        :raises InvalidError: with everything that is wrong with the ports
        :raises PortNotFound: if one of them has not been asked for
        :raises ForbiddenError: if the endpoint is not joined
        """
        taken = [it for it in ports if isinstance(it, PortBinding)]
        asked = port_requests([it for it in ports if not isinstance(it, PortBinding)])
        away: tuple[PortRequest | PortBinding, ...] = (*asked, *taken)
        await self._change_ports(lambda own: without(own, away) if ports else ())

    async def _change_ports(
        self, change: Callable[[tuple[PortRequest, ...]], tuple[PortRequest, ...]]
    ) -> tuple[Change, ...]:
        async with self.lock:
            self._require()
            sandbox = self.sandbox
            if sandbox is None:
                raise ForbiddenError(f"endpoint {self.name!r} is not joined")
            async with sandbox.lock:
                requests = change(self._info.port_requests)
                return await publishing.request(
                    self._services, sandbox.info, sandbox.members(), self, requests
                )

    async def leave(self) -> None:
        """Take the interface out of the sandbox.

        Default routes move to another network of the sandbox first, if there is one
        with a gateway. Once begun, it is not interrupted by cancellation.

        :raises ForbiddenError: if the endpoint is not joined
        :raises DriverError: if the driver fails; the endpoint is still joined then
        :raises TeardownError: if the kernel refuses something on the way; the endpoint
            has left nevertheless
        """
        await self._services.turns.take()
        async with self.lock:
            self._require()
            if failures := await self._leave():
                raise TeardownError(f"taking out endpoint {self.name!r}", failures)

    async def _leave(self, *, force: bool = False) -> list[Exception]:
        attachment, sandbox = self._attachment, self.sandbox
        if attachment is None or sandbox is None:
            raise ForbiddenError(
                f"cannot leave endpoint {self.name!r} with no attached sandbox"
            )
        failures: list[Exception] = []
        async with sandbox.lock:
            with anyio.CancelScope(shield=True):
                failures += await leaving.leave(
                    self._services, self, attachment, sandbox, force=force
                )
        return failures

    def detached(self) -> None:
        """Note that the endpoint is not joined any more, and tell subscribers."""
        attachment, sandbox = self._attachment, self.sandbox
        if attachment is None or sandbox is None:
            return
        self._services.announcer.cancel(self.id)
        self._attachment = None
        self._services.bus.publish(
            EndpointLeft(
                endpoint=self._info,
                sandbox=sandbox.info,
                interface=attachment.interface,
            )
        )

    async def delete(self, *, force: bool = False) -> None:
        """Remove the endpoint, and give back its addresses.

        Once begun, it is not interrupted by cancellation. To delete it twice is no
        error.

        :param force: leave the sandbox first, and go on past failures; they are raised
            together at the end, when the endpoint is gone
        :raises ActiveSandboxError: if the endpoint is joined, unless forced
        :raises TeardownError: if something failed on the way of a forced removal
        """
        await self._services.turns.take()
        async with self.lock:
            if self._deleted:
                return
            if self._attachment is not None and not force:
                raise ActiveSandboxError(
                    f"endpoint with name {self.name!r} id {self.id[:12]} has active "
                    "containers"
                )
            await self._delete(force=force)

    async def collect(self) -> bool:
        """Remove the endpoint by force, unless it is in a sandbox, or gone.

        :return: whether it has been removed
        """
        await self._services.turns.take()
        async with self.lock:
            if self._deleted or self._attachment is not None:
                return False
            await self._delete(force=True)
        return True

    async def _delete(self, *, force: bool) -> None:
        failures: list[Exception] = []
        with anyio.CancelScope(shield=True):
            failures += await self._remove(force=force)
            self.removed()
        if failures:
            raise TeardownError(f"removing endpoint {self.name!r}", failures)

    async def _remove(self, *, force: bool) -> list[Exception]:
        failures: list[Exception] = []
        services = self._services
        async with services.journal.operation("endpoint.delete", self.id) as operation:
            if self.sandbox is not None:
                failures += await self._leave(force=True)
            failures += await leaving.forget(
                services, self._driver, self._info, force=force
            )
            await operation.finish(Delete(ENDPOINT + self.id))
        return failures

    def discard(self) -> None:
        """Note that it has not come into being."""
        self._deleted = True
        self._network.directory.remove(self)

    def removed(self) -> None:
        """Note that the endpoint is gone, and tell subscribers."""
        self._deleted = True
        self._network.directory.remove(self)
        self._services.bus.publish(EndpointDeleted(endpoint=self._info))

    def _require(self) -> None:
        if self._deleted:
            raise EndpointNotFound(self.name)
