"""Having drivers publish the ports of a sandbox's endpoints, and take them back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from types import NoneType
from typing import TYPE_CHECKING, cast

from .acceptance import check_bindings
from .errors import CNMError
from .events import EndpointPublished, EndpointUnpublished, PublishInfo
from .linux import Sockets
from .roles import NOTHING, Change, Member, Role, change_of, due, published
from .rollback import Rollback
from .services import Services
from .types import EndpointInfo, PortBinding, PortRequest, SandboxInfo

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .sandbox import Sandbox

_logger = logging.getLogger(__name__)


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
            self.ports = answer

    @property
    def plan(self) -> object:
        """The driver's plan, if it has one."""
        return self._info and self._info.plan

    def run(self, sockets: Sockets) -> None:
        """Plan: do it, unless it is done."""
        if self._info is not None and self.ports is None:
            self.ports = self._info.plan(sockets)

    async def do(self) -> tuple[PortBinding, ...]:
        """Do it in a trip of its own, if it is not done; return what is published."""
        if self.ports is None:
            await self._services.run(self.run, self.plan)
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
                self._services.failure(driver, self._event, exc)
        return cast("tuple[PortBinding, ...]", self.ports)

    def change(self, info: EndpointInfo) -> Change:
        """Return what has become of the endpoint's ports, when it is done.

        :param info: the endpoint as it is to be otherwise
        """
        info = replace(info, ports=self.ports or ())
        return change_of(self.endpoint, self._event.sandbox, self._role, info)

    async def take_back(self) -> None:
        """Have the driver publish what it did before, if it is done.

        If somebody has taken a port meanwhile, what is published now stands.
        """
        if self.ports is None:
            return
        sandbox, endpoint = self._event.sandbox, self.endpoint
        try:
            await _take_back(self._services, sandbox, endpoint, self.ports)
        except CNMError:
            if endpoint.joined:
                change = self.change(endpoint.info)
                await self._services.journal.write_or_postpone(change.record())
                endpoint.note(change)
            raise


async def settle(
    services: Services,
    sandbox: SandboxInfo,
    members: Sequence[Member],
    rollback: Rollback,
    *,
    tolerant: bool = False,
    failures: list[Exception] | None = None,
) -> tuple[Change, ...]:
    """Have the drivers publish what the endpoints of a sandbox have to publish.

    The caller has the sandbox's lock, stores the changes, and then has the endpoints
    note them.

    :param rollback: is told how to undo it
    :param tolerant: whether a port that cannot move to another endpoint is only logged
    :param failures: is told if ports of an endpoint that leaves cannot be taken back,
        which ends nothing then; what becomes of them is its driver's affair
    """
    done = []
    for member, role in due(members):
        endpoint = member.endpoint
        try:
            publishing = await tell(services, sandbox, endpoint, endpoint.info, role)
            await publishing.do()
        except CNMError as exc:
            if member.candidate is None and failures is not None:
                failures.append(exc)
                gone = replace(member.info, ports=())
                done.append(change_of(endpoint, sandbox, NOTHING, gone))
                continue
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
        publishing = await tell(services, sandbox.info, mine.endpoint, mine.info, role)
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
    again = await tell(services, sandbox, endpoint, info, role, before)
    await again.do()


async def tell(
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
    if isinstance(answer, tuple):
        try:
            check_bindings(answer)
        except TypeError as exc:
            raise services.failure(endpoint.handler.name, event, exc) from exc
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


async def withdraw(
    services: Services, sandbox: SandboxInfo, endpoint: Endpoint
) -> Publishing | None:
    """Prepare to publish nothing by way of an endpoint any more; None if nothing is."""
    if not endpoint.role.requests:
        return None
    return await tell(services, sandbox, endpoint, endpoint.info, NOTHING)


async def revoke(services: Services, sandbox: SandboxInfo, endpoint: Endpoint) -> None:
    """Have a driver publish nothing by way of an endpoint that publishes nothing."""
    publishing = await tell(services, sandbox, endpoint, endpoint.info, NOTHING)
    await publishing.do()
