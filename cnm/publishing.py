"""Having drivers publish the ports of a sandbox's endpoints, and take them back."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, groupby, islice, starmap
from types import NoneType
from typing import TYPE_CHECKING, cast

from .errors import CNMError, DriverError, PortInUse
from .events import (
    DriverFailed,
    EndpointPublished,
    EndpointUnpublished,
    PublishInfo,
)
from .findings import Findings
from .linux import Sockets
from .plugins import Driver
from .roles import NOTHING, Change, Member, Role, change_of, due, published, roles
from .rollback import Rollback
from .services import Services
from .types import EndpointInfo, PortBinding, PortRequest, SandboxInfo
from .validation import shown

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .sandbox import Sandbox

_logger = logging.getLogger(__name__)

#: Endpoints that publish their ports in one trip to a thread, when a controller starts.
_TOGETHER = 64


class Publishing:
    """What a driver is to do about the ports of an endpoint: done, or ready to be done.

    :param role: what the endpoint has to publish then
    :ivar endpoint: the endpoint
    :ivar ports: what it publishes then; None until it is done
    """

    def __init__(
        self,
        services: Services,
        endpoint: Endpoint,
        role: Role,
        event: EndpointPublished | EndpointUnpublished,
        answer: PublishInfo | tuple[PortBinding, ...],
    ) -> None:
        self.ports: tuple[PortBinding, ...] | None = None
        self._services = services
        self.endpoint: Endpoint = endpoint
        self._role = role
        self._event = event
        self._info: PublishInfo | None = None
        if isinstance(answer, PublishInfo):
            self._info = answer
        else:
            self.ports = self._checked(answer)

    def run(self, sockets: Sockets) -> None:
        """Plan: do it, unless it is done."""
        if self._info is not None and self.ports is None:
            self.ports = self._checked(self._info.plan(sockets))

    async def do(self) -> tuple[PortBinding, ...]:
        """Do it in a trip of its own, if it is not done; return what is published."""
        if self.ports is None:
            handler = self.endpoint.handler
            await self._services.run(handler, type(self._event), self.run)
        return self.done()

    def done(self) -> tuple[PortBinding, ...]:
        """Note that it is done; return what is published.

        The driver hears of it; if it fails to listen, what is done is done.
        """
        if self._info is not None and self._info.done is not None:
            try:
                self._info.done()
            except Exception as exc:
                driver = self.endpoint.handler.name
                _logger.exception("driver %r has not noted its ports", driver)
                self._services.bus.publish(
                    DriverFailed(driver=driver, event=self._event, error=str(exc))
                )
        return cast("tuple[PortBinding, ...]", self.ports)

    def change(self, info: EndpointInfo) -> Change:
        """Return what has become of the endpoint's ports, when it is done.

        :param info: the endpoint as it is to be otherwise
        """
        info = replace(info, ports=self.ports or ())
        return change_of(self.endpoint, self._event.sandbox, self._role, info)

    async def take_back(self) -> None:
        """Have the driver publish what it did before, if it is done."""
        if self.ports is not None:
            sandbox = self._event.sandbox
            await _take_back(self._services, sandbox, self.endpoint, self.ports)

    def _checked(self, ports: object) -> tuple[PortBinding, ...]:
        """Return a driver's answer, if it is what it should be."""
        wrong: object = ports
        if isinstance(ports, tuple):
            others = [it for it in ports if not isinstance(it, PortBinding)]
            if not others:
                return ports
            wrong = others[0]
        reason = f"returned {shown(wrong)} among its bindings"
        raise DriverError(self.endpoint.handler.name, self._event.name, reason)


async def settle(
    services: Services,
    sandbox: SandboxInfo,
    members: Sequence[Member],
    rollback: Rollback,
    *,
    tolerant: bool = False,
) -> tuple[Change, ...]:
    """Have the drivers publish what the endpoints of a sandbox have to publish.

    The caller has the sandbox's lock, stores the changes, and then has the endpoints
    note them.

    :param rollback: is told how to undo it
    :param tolerant: whether a port that cannot move to another endpoint is only logged
    """
    done = []
    for member, role in due(members):
        endpoint = member.endpoint
        try:
            publishing = await _tell(services, sandbox, endpoint, endpoint.info, role)
            await publishing.do()
        except CNMError as exc:
            if not tolerant or member.candidate is None:
                raise
            _logger.warning("ports of %r are not published: %s", member.info.name, exc)
            continue
        rollback.push(publishing.take_back)
        done.append(publishing.change(member.info))
    return tuple(done)


async def arrive(
    services: Services, sandbox: Sandbox, mine: Member, rollback: Rollback
) -> tuple[Publishing, ...] | None:
    """Prepare what :func:`settle` would do for an endpoint that joins.

    :return: what is to be done in the plan that makes its interface; None if others are
        concerned as well, and all is to be settled then
    """
    changes = due([*sandbox.members(), mine])
    if any(member is not mine for member, _ in changes):
        return None
    ready = []
    for _, role in changes:
        publishing = await _tell(services, sandbox.info, mine.endpoint, mine.info, role)
        rollback.push(publishing.take_back)
        ready.append(publishing)
    return tuple(ready)


async def _take_back(
    services: Services,
    sandbox: SandboxInfo,
    endpoint: Endpoint,
    ports: tuple[PortBinding, ...],
) -> None:
    """Have the driver publish what it did before.

    :param ports: what it publishes at present
    """
    info, before = replace(endpoint.info, ports=ports), endpoint.info.ports
    role = endpoint.role.pinned(before)
    await (await _tell(services, sandbox, endpoint, info, role, before)).do()


async def _tell(
    services: Services,
    sandbox: SandboxInfo,
    endpoint: Endpoint,
    info: EndpointInfo,
    role: Role,
    again: tuple[PortBinding, ...] = (),
) -> Publishing:
    """Have the driver get ready to publish what a role says.

    :param again: bindings of former times, whose ports of the host are preferred
    """
    if not role.requests:
        gone = EndpointUnpublished(endpoint=info, sandbox=sandbox, bindings=info.ports)
        ready = await services.answer(endpoint.handler, gone, PublishInfo, NoneType)
        return Publishing(services, endpoint, role, gone, ready or ())
    preferred = tuple(dict.fromkeys((*again, *info.ports)))
    if preferred != info.ports:
        info = replace(info, ports=preferred)
    event = published(info, sandbox, role)
    answer = await services.answer(endpoint.handler, event, tuple, PublishInfo)
    return Publishing(services, endpoint, role, event, answer)


async def request(
    services: Services,
    sandbox: SandboxInfo,
    members: Sequence[Member],
    endpoint: Endpoint,
    requests: tuple[PortRequest, ...],
) -> tuple[Change, ...]:
    """Have an endpoint of a sandbox ask for other ports than before: all, or none.

    The caller has the sandbox's lock.
    """
    info = replace(endpoint.info, port_requests=requests)
    wanted = [
        replace(it, info=info) if it.endpoint is endpoint else it for it in members
    ]
    journal = services.journal
    async with journal.operation("ports.change", endpoint.id) as operation:
        changes = await settle(services, sandbox, wanted, operation)
        if all(change.endpoint is not endpoint for change in changes):
            changes += (change_of(endpoint, sandbox, endpoint.role, info),)
        await operation.commit(*(change.record() for change in changes))
    for change in changes:
        change.endpoint.note(change)
    return changes


async def again(services: Services, endpoint: Endpoint) -> None:
    """Publish again what is published, now that the driver has mended the network."""
    sandbox, role = endpoint.sandbox, endpoint.role
    if sandbox is not None and role.requests:
        async with sandbox.lock:
            info = endpoint.info
            publishing = await _tell(services, sandbox.info, endpoint, info, role)
            await publishing.do()


async def withdraw(
    services: Services, sandbox: SandboxInfo, endpoint: Endpoint
) -> Publishing | None:
    """Prepare to publish nothing by way of an endpoint any more; None if nothing is."""
    if not endpoint.role.requests:
        return None
    return await _tell(services, sandbox, endpoint, endpoint.info, NOTHING)


async def revoke(services: Services, sandbox: SandboxInfo, endpoint: Endpoint) -> None:
    """Have a driver publish nothing by way of an endpoint that publishes nothing."""
    publishing = await _tell(services, sandbox, endpoint, endpoint.info, NOTHING)
    await publishing.do()


async def restore(
    services: Services,
    sandboxes: Iterable[tuple[SandboxInfo, Sequence[Member]]],
    findings: Findings,
) -> None:
    """Publish again what endpoints of sandboxes published before a restart.

    A port that somebody has taken meanwhile is left out, and reported; it is tried
    again when the sandbox's ports change.
    """
    due = chain.from_iterable(starmap(_formerly_published, sandboxes))
    while together := tuple(islice(due, _TOGETHER)):
        for each in together:
            await each.prepare(services)
        for handler, some in groupby(together, lambda it: it.endpoint.handler):
            await _publish_together(services, handler, tuple(some))
        for each in together:
            await each.note(services, findings)


def _formerly_published(
    sandbox: SandboxInfo, members: Sequence[Member]
) -> Iterator[_Restoring]:
    wanted = roles(members)
    for member in members:
        role = wanted.get(member.info.id, NOTHING)
        if role.requests:
            yield _Restoring(sandbox, member, role)


class _Restoring:
    """The ports of an endpoint, while they are being published again.

    :ivar begun: whether a thread has begun with it
    """

    def __init__(self, sandbox: SandboxInfo, member: Member, role: Role) -> None:
        self.endpoint: Endpoint = member.endpoint
        self.begun: bool = False
        self.error: CNMError | None = None
        self._sandbox = sandbox
        self._info = member.info
        self._role = role
        self._publishing: Publishing | None = None

    async def prepare(self, services: Services) -> None:
        """Have the driver get ready."""
        sandbox, endpoint, role = self._sandbox, self.endpoint, self._role
        try:
            self._publishing = await _tell(
                services, sandbox, endpoint, self._info, role
            )
        except CNMError as exc:
            self.error = exc

    @property
    def waits(self) -> bool:
        """Whether there is something left for a thread to do."""
        publishing = self._publishing
        return not self.begun and publishing is not None and publishing.ports is None

    def run(self, sockets: Sockets) -> None:
        """Plan: publish, and keep the error if that fails."""
        self.begun = True
        try:
            if self._publishing is not None:
                self._publishing.run(sockets)
        except CNMError as exc:
            self.error = exc

    async def note(self, services: Services, findings: Findings) -> None:
        """Report, record and note what has become of it."""
        sandbox, endpoint, info = self._sandbox, self.endpoint, self._info
        role, error = self._role, self.error
        ports: tuple[PortBinding, ...] = ()
        if isinstance(error, PortInUse):
            findings.add(info, "failed", f"not all ports are published: {error}")
            role = replace(role, requests=_without(role.requests, error.ports))
            ports = await _tell_or_warn(services, sandbox, endpoint, role)
        elif error is not None:
            findings.add(info, "failed", f"its ports are not published: {error}")
            role = NOTHING
        elif self._publishing is not None:
            ports = self._publishing.done()
        if ports != info.ports:
            info = replace(info, ports=ports)
        change = change_of(endpoint, sandbox, role, info)
        if change.gone or change.new:
            await services.journal.write(change.record())
        endpoint.note(change)


async def _publish_together(
    services: Services, driver: Driver, some: Sequence[_Restoring]
) -> None:
    """Publish by way of several endpoints of one driver in as few trips as possible."""
    # each plan has all of the time-out, or nearly; and a thread that comes back late
    # from one that hangs goes no further
    seconds = services.driver_timeout / 100
    while waiting := [it for it in some if it.waits]:
        try:
            await services.run(
                driver, EndpointPublished, partial(_publish_some, waiting, seconds)
            )
        except DriverError as exc:
            # the thread is at the last one still; the others are done, or wait
            for hanging in [it for it in waiting if it.begun][-1:]:
                hanging.error = exc


def _publish_some(
    waiting: Sequence[_Restoring], seconds: float, sockets: Sockets
) -> None:
    """Plan: publish by way of one endpoint after the other while there is time."""
    end = time.monotonic() + seconds
    for each in waiting:
        each.run(sockets)
        if time.monotonic() > end:
            break


async def _tell_or_warn(
    services: Services, sandbox: SandboxInfo, endpoint: Endpoint, role: Role
) -> tuple[PortBinding, ...]:
    try:
        publishing = await _tell(services, sandbox, endpoint, endpoint.info, role)
        return await publishing.do()
    except CNMError as exc:
        name = endpoint.info.name
        _logger.warning("ports of %r are not published: %s", name, exc)
        return ()


def _without(
    requests: tuple[PortRequest, ...], taken: tuple[str, ...]
) -> tuple[PortRequest, ...]:
    """Return the requests that do not ask for one of the ports that are taken."""
    ports = {port.rpartition(":")[2] for port in taken}
    return tuple(it for it in requests if f"{it.host_port}/{it.proto}" not in ports)
