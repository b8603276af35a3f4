"""Which ports are published by way of which endpoint of a sandbox.

A port is translated by way of the endpoint that provides the sandbox's default route,
since that is where answers go; all ports of the sandbox move when another endpoint
takes that over. An endpoint that does not provide one has its own requests only, and
its network decides what that means: ``routed`` ones open the ports all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .events import EndpointPublished, EndpointUnpublished
from .gateways import Candidate, elect
from .records import ENDPOINT, endpoint_record
from .store import Put
from .types import EndpointInfo, PortBinding, PortRequest, SandboxInfo

if TYPE_CHECKING:
    from .endpoint import Endpoint


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

    def pinned(self, bindings: Iterable[PortBinding]) -> Role:
        """Return a role that has exactly some bindings, where this has the choice."""
        exact = dict.fromkeys(
            it for it in self.requests if it.host_port and not it.host_port_end
        )
        if len(exact) == len(self.requests):
            return self
        bound = [
            PortRequest(
                container_port=it.container_port,
                proto=it.proto,
                host_port=it.host_port,
                host_address=it.host_address,
            )
            for it in bindings
        ]
        chosen = [
            it
            for it in bound
            if it not in exact and replace(it, host_address=None) not in exact
        ]
        return replace(self, requests=(*exact, *chosen))


#: What an endpoint has to publish that publishes nothing.
NOTHING = Role()


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
        return _without(self.before, self.info.ports)

    @property
    def new(self) -> tuple[PortBinding, ...]:
        """The bindings that were not there before."""
        return _without(self.info.ports, self.before)

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
            yield published(self.info, self.sandbox, self.role)


def _without(
    bindings: tuple[PortBinding, ...], others: tuple[PortBinding, ...]
) -> tuple[PortBinding, ...]:
    if bindings == others:  # to hash them takes much longer
        return ()
    known = set(others)
    return tuple(binding for binding in bindings if binding not in known)


def change_of(
    endpoint: Endpoint, sandbox: SandboxInfo, role: Role, info: EndpointInfo
) -> Change:
    """Return what becomes of the ports of an endpoint.

    :param info: the endpoint, with its new bindings
    """
    return Change(
        endpoint=endpoint,
        sandbox=sandbox,
        role=role,
        info=info,
        before=endpoint.info.ports,
    )


def published(
    info: EndpointInfo, sandbox: SandboxInfo, role: Role
) -> EndpointPublished:
    """Return the event that says what an endpoint publishes, or is to publish."""
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
    six = next((it for it, candidate in present if candidate is chosen.get(6)), None)
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
                elsewhere6=bool(six and six is not member and six.endpoint.publishes),
            )
    return result


def due(members: Sequence[Member]) -> list[tuple[Member, Role]]:
    """Return what the endpoints have to publish from now on, if it is something new."""
    wanted = roles(members)
    changes = []
    for member in members:
        role = wanted.get(member.info.id, NOTHING)
        if role != member.endpoint.role:
            changes.append((member, role))
    # who ceases to be the gateway frees the ports for the one that becomes it
    changes.sort(key=lambda change: change[1].takes_over(change[0].endpoint.role))
    return changes
