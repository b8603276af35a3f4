"""Choosing the endpoints that provide a sandbox's default routes.

The order is libnetwork's (Endpoint.Less): higher priority first, networks that are not
internal before internal ones, more gateways before fewer, then the network's name. Of
several endpoints of one network, the one comes first that has joined first. Each family
takes the first endpoint that has a gateway for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .types import IPAddress


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """An endpoint that may provide default routes.

    :ivar gateway: next hop of the IPv4 default route, or None
    :ivar connected4: an IPv4 default route needs no next hop
    :ivar index: index of the endpoint's link in the sandbox
    :ivar order: position of the joining
    """

    endpoint: str
    network: str
    index: int
    order: int
    priority: int = 0
    internal: bool = False
    gateway: IPAddress | None = None
    gateway6: IPAddress | None = None
    connected4: bool = False
    connected6: bool = False

    def provides(self, version: int) -> bool:
        """Tell whether there can be a default route of a family through it."""
        if version == 4:
            return self.gateway is not None or self.connected4
        return self.gateway6 is not None or self.connected6

    def next_hop(self, version: int) -> IPAddress | None:
        """Return the next hop of a family's default route; None if it is on link."""
        return self.gateway if version == 4 else self.gateway6


def _order(candidate: Candidate) -> tuple[int, bool, int, str, int]:
    provided = candidate.provides(4) + candidate.provides(6)
    return (
        -candidate.priority,
        candidate.internal,
        -provided,
        candidate.network,
        candidate.order,
    )


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return endpoints in the order in which they may provide default routes."""
    found = list(candidates)
    if len(found) > 1:  # nearly always there is one
        found.sort(key=_order)
    return found


def elect(candidates: Iterable[Candidate]) -> dict[int, Candidate]:
    """Return the endpoint that provides the default route, by family (4, 6)."""
    ordered = ranked(candidates)
    chosen = {}
    for version in (4, 6):
        first = next((c for c in ordered if c.provides(version)), None)
        if first is not None:
            chosen[version] = first
    return chosen
