"""What the path of the packets costs: within a network, and through its ports."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_interface

import anyio

import cnm
from cnm.linux import NetlinkSocket, add_route, namespaces
from cnm.testing.machines import Machine

from .figures import Figures
from .floor.host import Host, write
from .floor.lives import BridgeLife
from .lives import FIRST_PORT
from .peers import dockerd, rules
from .pingpong import PORT
from .ways import Benchmark, Size, Way, backends

PERF_PORT = 5201
SECONDS = 2
ASKED = 5000
CONNECTED = 1000
#: Ports that are published when a connection is made through one of them.
PUBLISHED = (1, 1000, 5000)
HOST, OUTSIDE = ip_interface("203.0.113.1/24"), ip_interface("203.0.113.2/24")
_OUTSIDE = "/run/outside"
_THROUGH = "through a published port"
_WITHIN = "between sandboxes"


@dataclass(frozen=True, kw_only=True)
class Path:
    """A way that packets take.

    :ivar client: path of the namespace that asks
    :ivar server: path of the namespace that answers
    :ivar address: where it is asked
    """

    client: str
    server: str
    address: str


def _inside(path: str, *command: str) -> list[str]:
    return ["nsenter", f"--net={path}", *command]


def _python(*arguments: object) -> list[str]:
    return [sys.executable, "-m", f"{__package__}.pingpong", *map(str, arguments)]


@contextmanager
def _outside() -> Iterator[None]:
    """Have a machine outside, which asks the host for the way to everywhere."""

    def settle() -> None:
        namespaces.pin(namespaces.OWN, _OUTSIDE)
        with NetlinkSocket() as route:
            route.call(add_route(None, version=4, via=HOST.ip))

    with Machine(str(OUTSIDE)) as machine:
        machine.connect("up0", str(HOST))
        machine.run(settle)
        yield
        namespaces.unpin(_OUTSIDE)


def _traffic(figures: Figures, size: Size, what: str, path: Path) -> None:
    """Measure throughput, and how long a byte takes there and back."""
    figures.add(f"throughput {what}", _throughput(size, path), "Gbit/s")
    with _server(path.server):
        for took in _asked("ask", path, PORT, size.of(ASKED)):
            figures.add(f"a byte there and back, {what}", took, "us")


def _throughput(size: Size, path: Path) -> float:
    port = str(PERF_PORT)
    serve = _inside(path.server, "iperf3", "--server", "--one-off", "-p", port)
    seconds = 1 if size.quick else SECONDS
    with subprocess.Popen(serve, stdout=subprocess.DEVNULL):
        arguments = ["-c", path.address, "-p", port, "-t", f"{seconds}", "-J"]
        ask = _inside(path.client, "iperf3", *arguments)
        while True:
            done = subprocess.run(ask, stdout=subprocess.PIPE)
            found = json.loads(done.stdout)
            if "refused" not in found.get("error", ""):
                break
            time.sleep(0.05)
    return float(found["end"]["sum_received"]["bits_per_second"]) / 1e9


@contextmanager
def _server(path: str) -> Iterator[None]:
    """Have somebody answer."""
    command = _inside(path, *_python("serve"))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        try:
            yield
        finally:
            server.kill()


def _asked(what: str, path: Path, port: int, count: int) -> list[float]:
    command = _inside(path.client, *_python(what, path.address, port, count))
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return [float(value) for value in json.loads(done.stdout)]


def _connected(figures: Figures, size: Size, path: Path, what: str) -> None:
    with _server(path.server):
        for took in _asked("connect", path, PORT, size.of(CONNECTED)):
            figures.add(f"connect, {what}", took, "us")


def _published(count: int) -> str:
    return f"published ports: {count:,}"


def _plain() -> list[BridgeLife]:
    """Make two sandboxes on a bridge, without any rules."""
    host = Host()
    network = host.network(0)
    network.begin()
    host.drop_rules()
    write("/proc/sys/net/ipv4/ip_forward", b"1")
    ends = [BridgeLife(host, network, number, names=False) for number in range(2)]
    for end in ends:
        end.begin()
    return ends


def _floor(figures: Figures, size: Size) -> None:
    """Bridge and route, without any rules."""
    client, server = _plain()
    address = str(server.own4)
    within = Path(client=client.key, server=server.key, address=address)
    _traffic(figures, size, _WITHIN, within)
    routed = Path(client=_OUTSIDE, server=server.key, address=address)
    with _outside():
        _traffic(figures, size, _THROUGH, routed)
        for count in PUBLISHED:
            _connected(figures, size, routed, _published(count))


def _iptables(figures: Figures, size: Size) -> None:
    """The same, with the rules that dockerd makes for published ports."""
    _, server = _plain()
    path = Path(client=_OUTSIDE, server=server.key, address=str(HOST.ip))
    with _outside():
        for count in PUBLISHED:
            rules.load(server.own4, range(FIRST_PORT, FIRST_PORT + count - 1), PORT)
            _connected(figures, size, path, _published(count))


async def _cnm(figures: Figures, size: Size) -> None:
    run = anyio.to_thread.run_sync
    async with cnm.Controller() as controller:
        network = await controller.create_network("bench", ipv6=True)
        client = await controller.create_sandbox("client")
        server = await controller.create_sandbox("server")
        await network.connect(client)
        endpoint = await network.connect(server)
        assert endpoint.address is not None
        address = str(endpoint.address.ip)
        within = Path(client=client.key, server=server.key, address=address)
        await run(_traffic, figures, size, _WITHIN, within)
        through = Path(client=_OUTSIDE, server=server.key, address=str(HOST.ip))
        with _outside():
            await endpoint.publish(f"{PORT}:{PORT}", f"{PERF_PORT}:{PERF_PORT}")
            await run(_traffic, figures, size, _THROUGH, through)
            await endpoint.unpublish()
            for count in PUBLISHED:
                last = FIRST_PORT + count - 2
                others = [f"{FIRST_PORT}-{last}:1-{count - 1}"] if count > 1 else []
                await endpoint.publish(f"{PORT}:{PORT}", *others)
                await run(_connected, figures, size, through, _published(count))
                await endpoint.unpublish()


def _dockerd(figures: Figures, size: Size) -> None:
    with dockerd.running() as daemon:
        daemon.network("front", "10.8.0.0/20", "fd08::/64")
        daemon.container("client", "front")
        daemon.container(
            "server", "front", ports=[(it, it) for it in (PERF_PORT, PORT)]
        )
        names = ("client", "server")
        for name in names:
            daemon.start(name)
        client, server = (f"/proc/{daemon.process(name)}/ns/net" for name in names)
        within = Path(client=client, server=server, address="10.8.0.3")
        _traffic(figures, size, _WITHIN, within)
        through = Path(client=_OUTSIDE, server=server, address=str(HOST.ip))
        with _outside():
            _traffic(figures, size, _THROUGH, through)
            _connected(figures, size, through, _published(1))
        for name in names:
            daemon.remove(name)


_TOOLS, _PACKAGES = ["iperf3", "nsenter"], "iperf3 util-linux"
BENCHMARK = Benchmark(
    name="data",
    title="The path of the packets, IPv4",
    rounds=3,
    ways=[
        Way(name="floor", measure=_floor, programs=_TOOLS, install=_PACKAGES),
        # packets do not come by the event loop
        backends(_cnm, _TOOLS, _PACKAGES)[0],
        Way(
            name="iptables",
            measure=_iptables,
            peer=True,
            programs=["iptables-restore", "nsenter"],
            install="iptables util-linux",
        ),
        dockerd.way(_dockerd, _TOOLS, _PACKAGES),
    ],
    shown=[f"connect, {_published(count)}" for count in PUBLISHED],
    notes=[
        "floor: bridge and route without rules; no port is published, it is routed",
        "iptables: rules for each port, as dockerd has them",
    ],
)
