"""Who has which ports of the host, among a controller's endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..requests.specs import overlap
from .places import HostPort

if TYPE_CHECKING:
    from ..types import EndpointInfo, IPAddress, Proto


class Owner(NamedTuple):
    """An endpoint that has ports.

    :ivar id: its id
    :ivar title: how it is called in error messages
    """

    id: str
    title: str


def owner_of(endpoint: EndpointInfo) -> Owner:
    """Return the owner that an endpoint is."""
    title = f"endpoint {endpoint.name!r} of network {endpoint.network.name!r}"
    return Owner(endpoint.id, title)


class Ledger:
    """Accounts for the ports, so that two endpoints never have the same.

    A port at an unspecified address excludes it at all addresses of the family.
    """

    def __init__(self) -> None:
        self._ports: dict[tuple[Proto, int], dict[IPAddress, Owner]] = {}

    def rivals(self, place: HostPort) -> list[tuple[HostPort, Owner]]:
        """Return the entries that a port cannot be entered beside, and whose they are.

        The time it takes does not depend on how many ports there are.
        """
        taken = self._ports.get((place.proto, place.port))
        if not taken:
            return []
        return [
            (HostPort(address, place.proto, place.port), owner)
            for address, owner in taken.items()
            if overlap(address, place.address)
        ]

    def add(self, place: HostPort, owner: Owner) -> None:
        """Enter a port that has no rivals."""
        self._ports.setdefault((place.proto, place.port), {})[place.address] = owner

    def remove(self, place: HostPort) -> None:
        """Strike out a port; no error if nobody has it."""
        key = (place.proto, place.port)
        taken = self._ports.get(key, {})
        taken.pop(place.address, None)
        if not taken:
            self._ports.pop(key, None)
