"""Endpoints: the attachments of sandboxes to networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from ipaddress import IPv4Interface, IPv6Interface
from types import NoneType
from typing import TYPE_CHECKING

import anyio

from . import allocation
from .errors import (
    ActiveSandboxError,
    EndpointNotFound,
    ForbiddenError,
    TeardownError,
)
from .events import (
    EndpointDeleted,
    EndpointInspected,
    EndpointJoined,
    EndpointLeft,
    JoinInfo,
    LeaveInfo,
)
from .gateways import Candidate
from .interfaces import Interface, place, take_out
from .linux import choose_index
from .plugins import Driver
from .records import ENDPOINT, Attachment, endpoint_record
from .rollback import Rollback
from .services import Services
from .store import Delete, Put
from .types import JSON, EndpointInfo, IPInterface, PortBinding, SandboxInfo

if TYPE_CHECKING:
    from .network import Network
    from .sandbox import Sandbox


class Endpoint:
    """An attachment of a sandbox to a network.

    It has its addresses for as long as it exists, and an interface while it is joined
    to a sandbox. Operations on one endpoint happen one after the other.
    """

    def __init__(
        self,
        services: Services,
        network: Network,
        driver: Driver,
        info: EndpointInfo,
        attachment: Attachment | None = None,
    ) -> None:
        self._services = services
        self._network = network
        self._driver = driver
        self._info = info
        self._attachment = attachment
        self._deleted = False
        self._leaving = False
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
    def network(self) -> Network:
        """The network."""
        return self._network

    @property
    def sandbox(self) -> Sandbox | None:
        """The sandbox that the endpoint is joined to, or None."""
        if self._attachment is None:
            return None
        return self._services.sandboxes.get(self._attachment.sandbox)

    @property
    def joined(self) -> bool:
        """Whether the endpoint is joined to a sandbox."""
        return self._attachment is not None

    @property
    def leaving(self) -> bool:
        """Whether the endpoint is on its way out of its sandbox."""
        return self._leaving

    @property
    def attachment(self) -> Attachment | None:
        """How the endpoint is joined, or None."""
        return self._attachment

    @property
    def interface(self) -> str:
        """Name of the interface in the sandbox, ``""`` while not joined."""
        return self._attachment.interface if self._attachment else ""

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
        """The ports that are published."""
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
        return await self._services.handle(self._driver, event) or {}

    async def join(self, sandbox: Sandbox) -> None:
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
        async with self.lock, sandbox.lock:
            self._require()
            sandbox.require()
            if self._attachment is not None:
                raise ActiveSandboxError(
                    "another container is attached to the same network endpoint "
                    f"{self.name!r}: sandbox {self._attachment.sandbox[:12]}"
                )
            await self._join(sandbox)

    async def _join(self, sandbox: Sandbox) -> None:
        services, info = self._services, self._info
        name = await sandbox.choose_interface(
            info.interface_name, self._network.interface_prefix
        )
        joined = EndpointJoined(endpoint=info, sandbox=sandbox.info, interface=name)
        async with Rollback() as rollback:
            undo = partial(self._undo_join, joined)
            join = await services.answer(self._driver, joined, JoinInfo, undo=undo)
            rollback.push(undo)
            attachment = await self._place(sandbox, name, join)
            rollback.push(self._take_out, sandbox, attachment.index, None)
            rollback.push(sandbox.reroute)
            record = endpoint_record(info, attachment)
            await services.store.transaction(Put(ENDPOINT + self.id, record))
            self._attachment = attachment
            self._leaving = False
            sandbox.attach(self)
        services.bus.publish(joined)
        services.announce(info, join)

    async def _place(self, sandbox: Sandbox, name: str, join: JoinInfo) -> Attachment:
        info = self._info
        interface = Interface(
            name=name,
            index=choose_index(),
            addresses=self._interface_addresses(),
            mac=info.mac,
            sysctls=info.sysctls,
            routes=join.routes,
        )
        candidate = replace(
            self.candidate,
            gateway=join.gateway if info.address else None,
            gateway6=join.gateway6 if info.address6 else None,
            connected4=join.connected4 and info.address is not None,
            connected6=join.connected6 and info.address6 is not None,
        )
        defaults, previous = sandbox.defaults_with(candidate)
        index = await self._services.kernel.run(
            place, sandbox.key, interface, join, defaults, previous
        )
        return Attachment(
            sandbox=sandbox.id,
            interface=name,
            index=index,
            order=self._services.next_order(),
            gateway=candidate.gateway,
            gateway6=candidate.gateway6,
            connected4=candidate.connected4,
            connected6=candidate.connected6,
        )

    def _interface_addresses(self) -> tuple[IPInterface, ...]:
        info = self._info
        own = (info.address, info.address6, *info.link_local)
        return tuple(address for address in own if address is not None)

    @property
    def candidate(self) -> Candidate:
        """The endpoint as a candidate for its sandbox's default routes."""
        attachment = self._attachment
        return Candidate(
            endpoint=self.id,
            network=self._network.name,
            index=attachment.index if attachment else 0,
            priority=self._info.gateway_priority,
            internal=self._network.internal,
            gateway=attachment.gateway if attachment else None,
            gateway6=attachment.gateway6 if attachment else None,
            connected4=attachment.connected4 if attachment else False,
            connected6=attachment.connected6 if attachment else False,
        )

    async def _undo_join(self, joined: EndpointJoined) -> None:
        left = await self.tell_left(joined.sandbox, joined.interface)
        if left is not None and left.plan is not None:
            await self._services.kernel.run(left.plan)
        self._services.reaper.want(joined.sandbox.key)

    async def _take_out(
        self, sandbox: Sandbox, index: int, left: LeaveInfo | None
    ) -> None:
        await self._services.kernel.run(take_out, sandbox.key, index, left)
        self._services.reaper.want(sandbox.key)

    async def tell_left(self, sandbox: SandboxInfo, interface: str) -> LeaveInfo | None:
        """Tell the driver that the endpoint leaves."""
        event = EndpointLeft(endpoint=self._info, sandbox=sandbox, interface=interface)
        self._leaving = True
        try:
            return await self._services.answer(self._driver, event, LeaveInfo, NoneType)
        except BaseException:
            self._leaving = False
            raise

    async def leave(self) -> None:
        """Take the interface out of the sandbox.

        Default routes move to another network of the sandbox first, if there is one
        with a gateway. Once begun, it is not interrupted by cancellation.

        :raises ForbiddenError: if the endpoint is not joined
        :raises DriverError: if the driver fails; the endpoint is still joined then
        """
        async with self.lock:
            self._require()
            await self._leave()

    async def _leave(self) -> None:
        attachment, sandbox = self._attachment, self.sandbox
        if attachment is None or sandbox is None:
            raise ForbiddenError(
                f"cannot leave endpoint {self.name!r} with no attached sandbox"
            )
        async with sandbox.lock:
            with anyio.CancelScope(shield=True):
                await sandbox.reroute_without(self)
                left = await self.tell_left(sandbox.info, attachment.interface)
                await self._take_out(sandbox, attachment.index, left)
                record = endpoint_record(self._info, None)
                await self._services.store.transaction(Put(ENDPOINT + self.id, record))
                self.detached()
                sandbox.detach(self)

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

        Once begun, it is not interrupted by cancellation.

        :param force: leave the sandbox first, and go on past failures; they are raised
            together at the end, when the endpoint is gone
        :raises ActiveSandboxError: if the endpoint is joined, unless forced
        :raises TeardownError: if something failed on the way of a forced removal
        """
        async with self.lock:
            self._require()
            if self._attachment is not None and not force:
                raise ActiveSandboxError(
                    f"endpoint with name {self.name!r} id {self.id[:12]} has active "
                    "containers"
                )
            failures: list[Exception] = []
            with anyio.CancelScope(shield=True):
                if self._attachment is not None:
                    try:
                        await self._leave()
                    except Exception as exc:
                        failures.append(exc)
                        self._abandon()
                failures += await self.remove(force=force)
                await self._services.store.transaction(Delete(ENDPOINT + self.id))
                self.removed()
        if failures:
            raise TeardownError(f"removing endpoint {self.name!r}", failures)

    def _abandon(self) -> None:
        """Forget a sandbox that could not be left in order."""
        sandbox = self.sandbox
        self.detached()
        if sandbox is not None:
            sandbox.detach(self)
            self._services.reaper.want(sandbox.key)

    async def remove(self, *, force: bool) -> list[Exception]:
        """Have the driver forget the endpoint, and give back its addresses.

        :return: what failed, if forced
        """
        failures: list[Exception] = []
        try:
            event = EndpointDeleted(endpoint=self._info)
            await self._services.handle(self._driver, event)
        except Exception as exc:
            if not force:
                raise
            failures.append(exc)
        ipam = await self._services.ipam(self._info.network.ipam)
        own = (self._info.address, self._info.address6)
        try:
            await allocation.release_addresses(ipam, self._info.network, self.id, own)
        except Exception as exc:
            if not force:
                raise
            failures.append(exc)
        return failures

    def removed(self) -> None:
        """Note that the endpoint is gone, and tell subscribers."""
        self._deleted = True
        self._network.directory.remove(self)
        self._services.bus.publish(EndpointDeleted(endpoint=self._info))

    def _require(self) -> None:
        if self._deleted:
            raise EndpointNotFound(self.name)
