"""Publishing ports, and taking them back: both families, by TCP."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import cnm
from cnm.firewall import Element

from .figures import Figures
from .floor.host import Host, transaction
from .floor.lives import hold, led
from .lives import FIRST_PORT
from .meters import kernel_memory, resident
from .ways import Benchmark, Size, Way, backends

COUNTS = (1, 100, 10_000)
#: iptables takes minutes for ten thousand ports.
FEW = (1, 100)
#: How often a single port is published.
REPEATED = 20
SANDBOX4, SANDBOX6 = IPv4Address("10.9.0.2"), IPv6Address("fd09::2")


def _repeats(count: int, size: Size) -> int:
    return size.of(REPEATED) if count == 1 else 1


def _blocking(
    figures: Figures,
    size: Size,
    counts: tuple[int, ...],
    publish: Callable[[range], Callable[[], None]],
    unpublish: Callable[[range], Callable[[], None]],
) -> None:
    """Measure what blocks.

    :param publish: prepares to publish ports
    :param unpublish: prepares to take ports back
    """
    for count in counts:
        for _ in range(_repeats(count, size)):
            ports = range(FIRST_PORT, FIRST_PORT + count)
            on, off = publish(ports), unpublish(ports)
            with figures.timing(f"publish {count}"):
                on()
            with figures.timing(f"take back {count}"):
                off()


class _Ports:
    """Ports that are held by sockets, and lead to a sandbox by elements."""

    def __init__(self) -> None:
        self._nft = Host().nft
        self._held: list[socket.socket] = []

    def publish(self, ports: range) -> Callable[[], None]:
        change = transaction(add=_elements(ports))
        self._nft.make_room(len(change))

        def work() -> None:
            self._held = [hold(port) for port in ports]
            self._nft.send(change)

        return work

    def unpublish(self, ports: range) -> Callable[[], None]:
        change = transaction(remove=_elements(ports))

        def work() -> None:
            self._nft.send(change)
            for held in self._held:
                held.close()

        return work


def _elements(ports: range) -> tuple[Element, ...]:
    """Return what leads ports to a sandbox, where they have other numbers."""
    return tuple(
        element
        for port in ports
        for element in led(port, SANDBOX4, SANDBOX6, port - FIRST_PORT + 1)
    )


def _floor(figures: Figures, size: Size) -> None:
    ports = _Ports()
    counts = tuple(size.of(count) if count > 1 else 1 for count in COUNTS)
    _blocking(figures, size, counts, ports.publish, ports.unpublish)


class _IPTables:
    """Three rules for each port and family, each by a process (libnetwork 28)."""

    def __init__(self) -> None:
        for program in ("iptables", "ip6tables"):
            for arguments in (
                "-t nat -N DOCKER",
                "-N DOCKER",
                "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
                "-A FORWARD -j DOCKER",
            ):
                _run(f"{program} --wait {arguments}")

    def prepare(self, what: str, ports: range) -> Callable[[], None]:
        commands = [it for port in ports for it in _rules(what, port)]

        def work() -> None:
            for command in commands:
                _run(command)

        return work


def _rules(what: str, port: int) -> list[str]:
    own = port - FIRST_PORT + 1
    rules = []
    for program, it, to in (
        ("iptables", SANDBOX4, f"{SANDBOX4}:{own}"),
        ("ip6tables", SANDBOX6, f"[{SANDBOX6}]:{own}"),
    ):
        hairpin = f"-s {it} -d {it} -p tcp --dport {own} -j MASQUERADE"
        for_family = (
            f"-t nat {what} DOCKER -p tcp --dport {port} -j DNAT --to-destination {to}",
            f"{what} DOCKER -d {it} -p tcp --dport {own} -j ACCEPT",
            f"-t nat {what} POSTROUTING {hairpin}",
        )
        rules += [f"{program} --wait {rule}" for rule in for_family]
    return rules


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True)


def _iptables(figures: Figures, size: Size) -> None:
    rules = _IPTables()
    counts = tuple(size.of(count) if count > 1 else 1 for count in FEW)
    _blocking(
        figures,
        size,
        counts,
        lambda ports: rules.prepare("-A", ports),
        lambda ports: rules.prepare("-D", ports),
    )


async def _cnm(figures: Figures, size: Size) -> None:
    async with cnm.Controller() as controller:
        network = await controller.create_network(
            "bench", subnets=["10.9.0.0/24", "fd09::/64"]
        )
        sandbox = await controller.create_sandbox("box")
        endpoint = await network.connect(sandbox)
        for count in (size.of(count) if count > 1 else 1 for count in COUNTS):
            last = FIRST_PORT + count - 1
            before = resident() + kernel_memory()
            for turn in range(_repeats(count, size)):
                # other numbers inside, so that each port is an element of its own
                spec = f"{FIRST_PORT}-{last}:1-{count}"
                spec = f"{FIRST_PORT + turn}:80" if count == 1 else spec
                with figures.timing(f"publish {count}"):
                    await endpoint.publish(spec)
                if count > 1:
                    grown = resident() + kernel_memory() - before
                    figures.add(f"memory for {count}", grown, "kB")
                with figures.timing(f"take back {count}"):
                    await endpoint.unpublish()
        count = size.of(COUNTS[-1])
        last = FIRST_PORT + count - 1
        same = f"{FIRST_PORT}-{last}:{FIRST_PORT}-{last}"
        with figures.timing(f"publish {count} that keep their numbers"):
            await endpoint.publish(same)


BENCHMARK = Benchmark(
    name="ports",
    title="Publishing ports of an endpoint at all addresses of the host",
    rounds=3,
    ways=[
        Way(name="floor", measure=_floor),
        *backends(_cnm),
        Way(
            name="iptables",
            measure=_iptables,
            peer=True,
            programs=["iptables"],
            install="iptables",
            rounds=1,
        ),
    ],
    shown=["publish 1", "publish 100", "publish 10000"],
    notes=["iptables: three rules for each port and family, as dockerd has"],
)
