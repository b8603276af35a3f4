"""Finding networks and endpoints by what the kernel tells of links."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .directory import Directory
from .errors import NetworkNotFound

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .linux import HostRoutes
    from .network import Network
    from .types import NetworkState


class Networks(Directory["Network"]):
    """The networks of a controller, and their endpoints.

    The kernel tells of every link and route that goes: what it is about is found
    without a look at each network.

    :param routes: leaves out the routes that lead to the networks' links
    :ivar endpoints: the endpoints of all networks, by id; the networks' own directories
        keep it
    """

    def __init__(self, routes: HostRoutes) -> None:
        super().__init__(NetworkNotFound)
        self._routes = routes
        self.endpoints: dict[str, Endpoint] = {}
        self._by_link: dict[int, dict[str, Network]] = {}

    def add(self, item: Network) -> None:
        """Add a network."""
        super().add(item)
        self._tie(item, item.state)

    def remove(self, item: Network) -> None:
        """Remove a network, and endpoints that could not be. No error if it is gone."""
        if self.get(item.id) is None:
            return
        super().remove(item)
        self._untie(item)
        for endpoint in item.endpoints:
            self.endpoints.pop(endpoint.id, None)

    def at(self, index: int) -> tuple[Network, ...]:
        """Return the networks that have a link, or cannot do without it."""
        return tuple(self._by_link.get(index, {}).values())

    def carried_by(self, network: Network) -> tuple[Network, ...]:
        """Return the networks that cannot do without the links of another one."""
        return tuple(
            other
            for index in network.state.links
            for other in self.at(index)
            if index in other.state.parents
        )

    def move(self, network: Network, state: NetworkState) -> None:
        """Find a network by the links of another state, from now on."""
        self._untie(network)
        self._tie(network, state)

    def _tie(self, network: Network, state: NetworkState) -> None:
        self._routes.disregard(*state.links)
        for index in (*state.links, *state.parents):
            self._by_link.setdefault(index, {})[network.id] = network

    def _untie(self, network: Network) -> None:
        self._routes.regard(*network.state.links)
        for index in {*network.state.links, *network.state.parents}:
            tied = self._by_link[index]
            del tied[network.id]
            if not tied:
                del self._by_link[index]
