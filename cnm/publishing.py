"""Which ports are published by way of which endpoint of a sandbox.

A port is translated by way of the endpoint that provides the sandbox's default route,
since that is where answers go; all ports of the sandbox move when another endpoint
takes that over. An endpoint that does not provide one has its own requests only, and
its network decides what that means: ``routed`` ones open the ports all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .errors import CNMError, DriverError, PortInUse
from .events import EndpointPublished, EndpointUnpublished
from .findings import Findings
from .gateways import Candidate, elect
from .records import ENDPOINT, endpoint_record
from .rollback import Rollback
from .services import Services
from .store import Put
from .types import EndpointInfo, PortBinding, PortRequest, SandboxInfo

if TYPE_CHECKING:
    from .endpoint import Endpoint

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """What an endpoint has to publish, and whether default routes go through it."""

    requests: tuple[PortRequest, ...] = ()
    gateway4: bool = False
    gateway6: bool = False
    elsewhere6: bool = False

    def takes_over(self, before: Role) -> bool:
        """Tell whether ports come to it that another endpoint may have had."""
        return bool(self.requests) and (
            self.gateway4 > before.gateway4
            or self.gateway6 > before.gateway6
            or self.elsewhere6 < before.elsewhere6
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """An endpoint of a sandbox, as it is to be.

    :ivar candidate: as a candidate for the default routes; None if it leaves
    """

    endpoint: Endpoint
    info: EndpointInfo
    candidate: Candidate | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What has become of the ports of an endpoint; to be stored, and then noted.

    :ivar before: its bindings before
    """

    endpoint: Endpoint
    sandbox: SandboxInfo
    role: Role
    info: EndpointInfo
    before: tuple[PortBinding, ...]

    @property
    def gone(self) -> tuple[PortBinding, ...]:
        """The bindings that are no more."""
        kept = set(self.info.ports)
        return tuple(binding for binding in self.before if binding not in kept)

    @property
    def new(self) -> tuple[PortBinding, ...]:
        """The bindings that were not there before."""
        known = set(self.before)
        return tuple(binding for binding in self.info.ports if binding not in known)

    def record(self) -> Put:
        """Return what the store is to know."""
        record = endpoint_record(self.info, self.endpoint.attachment)
        return Put(ENDPOINT + self.info.id, record)

    def events(self) -> Iterable[EndpointPublished | EndpointUnpublished]:
        """Return what subscribers are to hear."""
        if gone := self.gone:
            yield EndpointUnpublished(
                endpoint=self.info, sandbox=self.sandbox, bindings=gone
            )
        if self.new:
            yield _published(self.info, self.sandbox, self.role)


def _change(
    endpoint: Endpoint, sandbox: SandboxInfo, role: Role, info: EndpointInfo
) -> Change:
    return Change(
        endpoint=endpoint,
        sandbox=sandbox,
        role=role,
        info=info,
        before=endpoint.info.ports,
    )


def _published(
    info: EndpointInfo, sandbox: SandboxInfo, role: Role
) -> EndpointPublished:
    return EndpointPublished(
        endpoint=info,
        sandbox=sandbox,
        requests=role.requests,
        gateway4=role.gateway4,
        gateway6=role.gateway6,
        elsewhere6=role.elsewhere6,
    )


def roles(members: Sequence[Member]) -> dict[str, Role]:
    """Return what each endpoint of a sandbox has to publish, by id."""
    present = [(it, it.candidate) for it in members if it.candidate is not None]
    requests = [request for it, _ in present for request in it.info.port_requests]
    if not requests:
        return {}
    chosen = elect(candidate for _, candidate in present)
    result = {}
    for member, candidate in present:
        gateway4, gateway6 = (chosen.get(v) is candidate for v in (4, 6))
        own = member.info.port_requests
        wanted = tuple(dict.fromkeys(requests)) if gateway4 or gateway6 else own
        if wanted and member.endpoint.publishes:
            result[member.info.id] = Role(
                requests=wanted,
                gateway4=gateway4,
                gateway6=gateway6,
                elsewhere6=6 in chosen and not gateway6,
            )
    return result


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
    wanted = roles(members)
    changes = []
    for member in members:
        role = wanted.get(member.info.id, Role())
        if role != member.endpoint.role:
            changes.append((member, role))
    # who ceases to be the gateway frees the ports for the one that becomes it
    changes.sort(key=lambda change: change[1].takes_over(change[0].endpoint.role))
    done = []
    for member, role in changes:
        endpoint = member.endpoint
        try:
            ports = await _tell(services, sandbox, endpoint, endpoint.info, role)
        except CNMError as exc:
            if not tolerant or member.candidate is None:
                raise
            _logger.warning("ports of %r are not published: %s", member.info.name, exc)
            continue
        rollback.push(_take_back, services, sandbox, endpoint, ports)
        info = replace(member.info, ports=ports)
        done.append(_change(endpoint, sandbox, role, info))
    return tuple(done)


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
    await _tell(services, sandbox, endpoint, info, endpoint.role, before)


async def _tell(
    services: Services,
    sandbox: SandboxInfo,
    endpoint: Endpoint,
    info: EndpointInfo,
    role: Role,
    again: tuple[PortBinding, ...] = (),
) -> tuple[PortBinding, ...]:
    """Have the driver publish what a role says.

    :param again: bindings of former times, whose ports of the host are preferred
    """
    if not role.requests:
        gone = EndpointUnpublished(endpoint=info, sandbox=sandbox, bindings=info.ports)
        await services.handle(endpoint.handler, gone)
        return ()
    preferred = tuple(dict.fromkeys((*again, *info.ports)))
    if preferred != info.ports:
        info = replace(info, ports=preferred)
    event = _published(info, sandbox, role)
    ports = await services.answer(endpoint.handler, event, tuple)
    wrong = [port for port in ports if not isinstance(port, PortBinding)]
    if wrong:
        reason = f"returned {wrong[0]!r} among its bindings"
        raise DriverError(endpoint.handler.name, event.name, reason)
    return ports


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
            changes += (_change(endpoint, sandbox, endpoint.role, info),)
        await operation.commit(*(change.record() for change in changes))
    for change in changes:
        change.endpoint.note(change)
    return changes


async def again(services: Services, endpoint: Endpoint) -> None:
    """Publish again what is published, now that the driver has mended the network."""
    sandbox, role = endpoint.sandbox, endpoint.role
    if sandbox is not None and role.requests:
        async with sandbox.lock:
            await _tell(services, sandbox.info, endpoint, endpoint.info, role)


async def withdraw(
    services: Services, sandbox: SandboxInfo, endpoint: Endpoint
) -> Change | None:
    """Publish nothing by way of an endpoint any more; None if nothing was."""
    if not endpoint.role.requests:
        return None
    await _tell(services, sandbox, endpoint, endpoint.info, Role())
    info = replace(endpoint.info, ports=())
    return _change(endpoint, sandbox, Role(), info)


async def restore(
    services: Services,
    sandbox: SandboxInfo,
    members: Sequence[Member],
    findings: Findings,
) -> None:
    """Publish again what was published before a restart.

    A port that somebody has taken meanwhile is left out, and reported; it is tried
    again when the sandbox's ports change.
    """
    wanted = roles(members)
    for member in members:
        role = wanted.get(member.info.id, Role())
        if not role.requests:
            continue
        endpoint, info = member.endpoint, member.info
        try:
            ports = await _tell(services, sandbox, endpoint, info, role)
        except PortInUse as exc:
            findings.add(info, "failed", f"not all ports are published: {exc}")
            role = replace(role, requests=_without(role.requests, exc.ports))
            ports = await _tell_or_warn(services, sandbox, endpoint, role)
        except CNMError as exc:
            findings.add(info, "failed", f"its ports are not published: {exc}")
            role, ports = Role(), ()
        change = _change(endpoint, sandbox, role, replace(info, ports=ports))
        if change.gone or change.new:
            await services.journal.write(change.record())
        endpoint.note(change)


async def _tell_or_warn(
    services: Services, sandbox: SandboxInfo, endpoint: Endpoint, role: Role
) -> tuple[PortBinding, ...]:
    try:
        return await _tell(services, sandbox, endpoint, endpoint.info, role)
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
