"""Ports that are to be published, or not any more: checked."""

from __future__ import annotations

from typing import TypeVar

from ..errors import ConflictError, PortNotFound
from ..types import PortBinding, PortRequest, TransportPort
from ..validation import Faults
from . import specs

T = TypeVar("T")


def port_requests(ports: object) -> tuple[PortRequest, ...]:
    """Check ports that are to be published.

    :raises InvalidError: with everything that is wrong with them
    """
    faults = Faults()
    requests = parse_requests(faults, ports)
    faults.check()
    return requests


def parse_requests(faults: Faults, ports: object) -> tuple[PortRequest, ...]:
    """Parse ports that are to be published."""
    requests = flat(faults.each("ports", specs.parse_ports, ports))
    for conflict in specs.conflicts(requests):
        faults.add(f"ports: {conflict}")
    return requests


def flat(parsed: tuple[tuple[T, ...], ...]) -> tuple[T, ...]:
    """Return the items of tuples."""
    return tuple(each for some in parsed for each in some)


def all_exposed(
    exposed: tuple[TransportPort, ...], published: tuple[PortRequest, ...]
) -> tuple[PortRequest, ...]:
    """Return requests for the exposed ports that are not published otherwise."""
    done = {TransportPort(port=it.container_port, proto=it.proto) for it in published}
    return tuple(
        PortRequest(container_port=it.port, proto=it.proto)
        for it in dict.fromkeys(exposed)
        if it not in done
    )


def with_more(
    own: tuple[PortRequest, ...], more: tuple[PortRequest, ...]
) -> tuple[PortRequest, ...]:
    """Return requests together with further ones.

    :raises ConflictError: if they do not go together
    """
    together = (*own, *more)
    if conflicts := specs.conflicts(together):
        raise ConflictError("; ".join(f"ports: {conflict}" for conflict in conflicts))
    return together


def without(
    own: tuple[PortRequest, ...], away: tuple[PortRequest | PortBinding, ...]
) -> tuple[PortRequest, ...]:
    """Return requests without some of them.

    :raises PortNotFound: if one of those is not among the requests
    """
    gone: set[PortRequest] = set()
    for each in away:
        found = [request for request in own if _stands_for(each, request)]
        if not found:
            raise PortNotFound(str(each), f" (published: {_listed(own)})")
        gone.update(found)
    return tuple(request for request in own if request not in gone)


def _stands_for(given: PortRequest | PortBinding, request: PortRequest) -> bool:
    """Tell whether what was given to ``unpublish`` means a request."""
    if (given.container_port, given.proto) != (request.container_port, request.proto):
        return False
    if isinstance(given, PortBinding):
        any_port = not (request.host_port and given.host_port)
        has_port = any_port or specs.asks_for(request, given.host_port)
        return has_port and request.host_address in (None, given.host_address)
    if given.host_port and (given.host_port, given.host_port_end) != (
        request.host_port,
        request.host_port_end,
    ):
        return False
    return given.host_address in (None, request.host_address)


def _listed(requests: tuple[PortRequest, ...], at_most: int = 10) -> str:
    """Return requests as text, the first of them if there are many."""
    listed = ", ".join(map(str, requests[:at_most])) or "none"
    return f"{listed} ..." if len(requests) > at_most else listed
