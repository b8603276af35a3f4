"""Whose the links are that the kernel tells of."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cnm import EndpointInfo, MemoryStore, NetworkInfo
from cnm.absent import AbsentDriver
from cnm.endpoint import Endpoint
from cnm.journal import Journal
from cnm.linux import HostRoutes
from cnm.network import Network
from cnm.networks import Networks
from cnm.records import Attachment
from cnm.services import Services
from cnm.types import NetworkState

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DRIVER = AbsentDriver("none", "this is a test")


class Routes(HostRoutes):
    """Only knows which links it is to leave out."""

    def __init__(self) -> None:
        self.left_out: set[int] = set()

    def disregard(self, *indexes: int) -> None:
        self.left_out.update(indexes)

    def regard(self, *indexes: int) -> None:
        self.left_out.difference_update(indexes)


@pytest.fixture
def services() -> Services:
    """Return as much of a controller as networks need to be found."""
    services = object.__new__(Services)
    services.routes = Routes()
    services.networks = Networks(services.routes)
    services.journal = Journal(MemoryStore())
    return services


def create(services: Services, name: str, state: NetworkState) -> Network:
    info = NetworkInfo(id=f"id of {name}", name=name, driver="none", created=NOW)
    network = Network(services, DRIVER, info, state)
    with services.networks.reserve(name):
        services.networks.add(network)
    return network


def join(services: Services, network: Network, name: str) -> Endpoint:
    info = EndpointInfo(
        id=f"id of {name}", name=name, network=network.info, created=NOW
    )
    endpoint = Endpoint(services, network, DRIVER, info)
    endpoint.attached(Attachment(sandbox="box", interface="eth0", index=9, order=1))
    with network.directory.reserve(name):
        network.directory.add(endpoint)
    return endpoint


def found(services: Services) -> dict[int, set[str]]:
    """Return the names of the networks at each link, as they are found."""
    return {
        index: {network.name for network in networks}
        for index in range(10)
        if (networks := services.networks.at(index))
    }


async def test_networks_are_found_by_the_links_that_they_have_now(
    services: Services,
) -> None:
    networks = services.networks
    first = create(services, "first", NetworkState(links=(1, 2), parents=(3,)))
    second = create(services, "second", NetworkState(links=(2,), parents=(2, 3)))
    create(services, "third", NetworkState())
    assert found(services) == {
        1: {"first"},
        2: {"first", "second"},
        3: {"first", "second"},
    }
    await first.renew(NetworkState(links=(2, 4), parents=(5,)))
    await second.renew(NetworkState(links=(1,)))
    assert found(services) == {
        1: {"second"},
        2: {"first"},
        4: {"first"},
        5: {"first"},
    }
    assert [network.name for network in networks] == ["first", "second", "third"]
    for _ in range(2):
        networks.remove(first)
        assert found(services) == {1: {"second"}}
    networks.remove(second)
    assert found(services) == {}


def test_links_are_of_networks_and_of_endpoints_that_are_there(
    services: Services,
) -> None:
    first, second = (create(services, it, NetworkState()) for it in ("a", "b"))
    one, two, three = (join(services, first, it) for it in ("one", "two", "three"))
    four = join(services, second, "four")
    every = {it.id for it in (first, second, one, two, three, four)}

    def known() -> set[str]:
        return {identity for identity in every if services.has_link(identity)}

    assert known() == every
    assert not services.has_link("id of none")
    one.leaving = True
    assert known() == every - {one.id}
    two.discard()
    assert known() == every - {one.id, two.id}
    services.networks.remove(first)  # one of its endpoints could not be removed
    assert known() == {second.id, four.id}
    three.discard()
    assert known() == {second.id, four.id}
    assert services.networks.endpoints == {four.id: four}


async def test_routes_to_links_of_networks_are_left_out(services: Services) -> None:
    routes = services.routes
    assert isinstance(routes, Routes)
    one = create(services, "one", NetworkState(links=(3, 4), parents=(5,)))
    two = create(services, "two", NetworkState(links=(6,)))
    assert routes.left_out == {3, 4, 6}
    await one.renew(NetworkState(links=(4, 7)))
    assert routes.left_out == {4, 6, 7}
    for network in (one, one, two):
        services.networks.remove(network)
    assert routes.left_out == set()
