"""Which endpoints have addresses that nobody else on their bridge has had."""

from __future__ import annotations

from cnm.driver import EndpointInfo


class Fresh:
    """The endpoints that no neighbour can know by another MAC address.

    Addresses are given in ascending order, so one number says which have been in use:
    one that is above all that there were is new. Of networks that were not begun here,
    or that others are on, nothing is known.
    """

    def __init__(self) -> None:
        self._highest: dict[str, dict[int, int]] = {}
        self._endpoints: set[str] = set()

    def begin(self, network: str) -> None:
        """Remember a network that nobody has been on."""
        self._highest[network] = {4: 0, 6: 0}

    def end(self, network: str) -> None:
        """Forget a network. No error if it is not known."""
        self._highest.pop(network, None)

    def enter(self, endpoint: EndpointInfo) -> None:
        """Remember an endpoint that has just been made."""
        highest = self._highest.get(endpoint.network.id)
        if highest is None:
            return
        addresses = [it.ip for it in (endpoint.address, endpoint.address6) if it]
        if all(int(it) > highest[it.version] for it in addresses):
            self._endpoints.add(endpoint.id)
        for it in addresses:
            highest[it.version] = max(highest[it.version], int(it))

    def take(self, endpoint: str) -> bool:
        """Tell whether an endpoint's addresses are new; from now on they are not."""
        known = endpoint in self._endpoints
        self._endpoints.discard(endpoint)
        return known
