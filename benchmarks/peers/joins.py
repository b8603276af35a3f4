"""How peers do what :mod:`benchmarks.join` measures."""

from __future__ import annotations

import time

from ..figures import Figures
from ..floor.host import Host
from ..lives import FIRST_PORT, JOIN, PUBLISH, measure
from ..ways import Size, Way
from . import cni, dockerd, iproute, netavark

COUNT = 10


def _iproute(figures: Figures, size: Size) -> None:
    network = iproute.prepare(Host())
    make = iproute.Life
    measure(figures, size.of(COUNT), lambda number, port: make(network, number, port))


def _netavark(figures: Figures, size: Size) -> None:
    measure(figures, size.of(COUNT), netavark.Life)


def _cni(figures: Figures, size: Size) -> None:
    measure(figures, size.of(COUNT), cni.Life)


def _dockerd(figures: Figures, size: Size) -> None:
    with dockerd.running() as daemon:
        daemon.network("front", "10.8.0.0/20", "fd08::/64")
        daemon.network("back", "10.9.0.0/20", "fd09::/64")
        daemon.container("web", "back")
        daemon.start("web")
        body = {"Container": "web"}
        for _ in range(size.of(COUNT)):
            with figures.timing(JOIN):
                daemon.ask("POST", "/networks/front/connect", body)
            with figures.timing(f"end of {JOIN}"):
                daemon.ask("POST", "/networks/front/disconnect", body)
        daemon.remove("web")
        for number in range(size.of(COUNT)):
            _containers(figures, daemon, FIRST_PORT + number)


def _containers(figures: Figures, daemon: dockerd.Dockerd, port: int) -> None:
    """Run a container without a network, and one with a published port."""
    took = []
    for name, network, ports in (("alone", "none", ()), ("web", "front", [(port, 80)])):
        daemon.container(name, network, ports=ports)
        started = time.perf_counter()
        daemon.start(name)
        begun = time.perf_counter()
        daemon.remove(name)
        took.append((begun - started, time.perf_counter() - begun))
    (start, removal), (start_web, removal_web) = took
    figures.add(PUBLISH, (start_web - start) * 1000, "ms")
    figures.add(f"end of {PUBLISH}", (removal_web - removal) * 1000, "ms")


WAYS = [
    Way(
        name="ip and nft",
        measure=_iproute,
        peer=True,
        programs=["ip", "nft"],
        install="iproute2 nftables",
        rounds=3,
    ),
    Way(
        name="netavark",
        measure=_netavark,
        peer=True,
        programs=[netavark.PROGRAM, "iptables"],
        install="netavark iptables",
        rounds=2,
    ),
    Way(
        name="CNI plugins",
        measure=_cni,
        peer=True,
        programs=[*cni.PROGRAMS, "iptables"],
        install="containernetworking-plugins iptables",
        rounds=2,
    ),
    dockerd.way(_dockerd),
]
NOTES = [
    "netavark, CNI plugins: making the namespace, which is done for them, is counted",
    f"dockerd, {JOIN}: connecting a container that runs; it makes no sandbox",
    f"dockerd, {PUBLISH}: start of a container, less that of one without a network",
]
