"""Making a network, and removing it."""

from __future__ import annotations

from typing import Protocol

import cnm

from .figures import Figures
from .floor.host import Host
from .peers import dockerd
from .ways import Benchmark, Size, Way, backends

COUNT = 40
MADE, REMOVED = "create a network", "delete a network"


class Network(Protocol):
    """A dual-stack bridge network with a way out."""

    def begin(self) -> None:
        """Make it."""

    def end(self) -> None:
        """Remove it."""


def repeat(figures: Figures, number: int, network: Network) -> None:
    """Make a network, and remove it."""
    with figures.timing(MADE):
        network.begin()
    with figures.timing(REMOVED):
        network.end()


def _floor(figures: Figures, size: Size) -> None:
    host = Host()
    for number in range(size.of(COUNT)):
        repeat(figures, number, host.network(number))


async def _cnm(figures: Figures, size: Size) -> None:
    async with cnm.Controller() as controller:
        for number in range(size.of(COUNT)):
            with figures.timing(MADE):
                network = await controller.create_network(f"n{number}", ipv6=True)
            with figures.timing(REMOVED):
                await network.delete()


def _dockerd(figures: Figures, size: Size) -> None:
    with dockerd.running() as daemon:
        for number in range(size.of(COUNT)):
            subnets = f"10.64.{number}.0/24", f"fd11:0:0:{number}::/64"
            with figures.timing(MADE):
                daemon.network("bench", *subnets)
            with figures.timing(REMOVED):
                daemon.ask("DELETE", "/networks/bench")


BENCHMARK = Benchmark(
    name="network",
    title="A dual-stack bridge network, with its rules",
    shown=[MADE, REMOVED],
    ways=[
        Way(name="floor", measure=_floor),
        *backends(_cnm),
        dockerd.way(_dockerd),
    ],
)
