"""Having drivers publish again what they did before a restart or a repair."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice, starmap
from typing import TYPE_CHECKING

from .errors import CNMError, PortInUse
from .findings import Findings
from .linux import Sockets
from .plugins import Driver
from .publishing import Publishing, tell
from .roles import NOTHING, Change, Member, Role, change_of, roles
from .services import Services
from .turns import gather
from .types import PortBinding, PortRequest, SandboxInfo

if TYPE_CHECKING:
    from .endpoint import Endpoint

_logger = logging.getLogger(__name__)

#: Endpoints that publish their ports in one trip to a thread, when a controller starts.
_TOGETHER = 64


async def again(services: Services, endpoint: Endpoint) -> None:
    """Publish again what is published, now that the driver has mended the network."""
    sandbox = endpoint.sandbox
    if sandbox is None or not endpoint.role.requests:
        return
    async with sandbox.lock:  # it may have left when we get it
        info, role = endpoint.info, endpoint.role
        if endpoint.sandbox is sandbox and role.requests:
            publishing = await tell(services, sandbox.info, endpoint, info, role)
            await publishing.do()


async def restore(
    services: Services,
    sandboxes: Iterable[tuple[SandboxInfo, Sequence[Member]]],
    findings: Findings,
) -> None:
    """Publish again what endpoints of sandboxes published before a restart.

    No driver waits for another one. A port that somebody has taken meanwhile is left
    out, and reported; it is tried again when the sandbox's ports change.
    """
    by_driver: dict[Driver, list[_Restoring]] = {}
    for each in chain.from_iterable(starmap(_formerly_published, sandboxes)):
        by_driver.setdefault(each.endpoint.handler, []).append(each)
    jobs = [partial(_restore, services, it, findings) for it in by_driver.values()]
    changes = tuple(chain.from_iterable(await gather(jobs)))
    if records := [it.record() for it in changes if it.gone or it.new]:
        await services.journal.write(*records)
    for change in changes:
        change.endpoint.note(change)


async def _restore(
    services: Services, endpoints: Iterable[_Restoring], findings: Findings
) -> list[Change]:
    """Publish again what endpoints of one driver published, one after the other."""
    due, changes = iter(endpoints), []
    while together := tuple(islice(due, _TOGETHER)):
        for each in together:
            await each.prepare(services)
        await _publish_together(services, together)
        changes += [await each.conclude(services, findings) for each in together]
    return changes


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
            self._publishing = await tell(services, sandbox, endpoint, self._info, role)
        except CNMError as exc:
            self.error = exc

    @property
    def waits(self) -> bool:
        """Whether there is something left for a thread to do."""
        publishing = self._publishing
        return not self.begun and publishing is not None and publishing.ports is None

    @property
    def plan(self) -> object:
        """The driver's plan, if it has one."""
        return self._publishing and self._publishing.plan

    def run(self, sockets: Sockets) -> None:
        """Plan: publish, and keep the error if that fails."""
        self.begun = True
        try:
            if self._publishing is not None:
                self._publishing.run(sockets)
        except CNMError as exc:
            self.error = exc

    async def conclude(self, services: Services, findings: Findings) -> Change:
        """Report what has become of it, and return that: to be stored, and noted."""
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
        return change_of(endpoint, sandbox, role, info)


async def _publish_together(services: Services, some: Sequence[_Restoring]) -> None:
    """Publish by way of several endpoints of one driver in as few trips as possible."""
    # each plan has all of the time-out, or nearly; and a thread that comes back late
    # from one that hangs goes no further
    seconds = services.driver_timeout / 100
    while waiting := [it for it in some if it.waits]:
        try:
            await services.run(
                partial(_publish_some, waiting, seconds), *(it.plan for it in waiting)
            )
        except CNMError as exc:
            begun = [it for it in waiting if it.begun]
            if not begun:
                raise
            # the thread is at the last one still; the others are done, or wait
            begun[-1].error = exc


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
        publishing = await tell(services, sandbox, endpoint, endpoint.info, role)
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
