"""Publishing ports, against the kernel's floor and against iptables in the same run.

Each way is measured in a host network of its own, and the ways take turns, because
the machine is not always equally quick.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_interface

import anyio

import cnm
from cnm.linux import (
    NetlinkSocket,
    add_address,
    add_veth,
    choose_index,
    namespaces,
    set_link,
)
from cnm.testing import private_host

from .floor import Netlink, attribute, text

ROUNDS = 3
WAYS = ("floor", "asyncio", "trio", "iptables")
COUNTS = (1, 100, 10_000)
#: iptables takes minutes for ten thousand ports
IPTABLES_COUNTS = (1, 100)
FIRST = 20_000
PROBES = 200
HOST, OUTSIDE = "203.0.113.1", "203.0.113.2"


# --- the floor: sockets, and elements packed by hand ----------------------------------


def transaction(nft: Netlink, *messages: tuple[int, int, bytes]) -> None:
    """Commit changes to a table, and wait for the answer."""
    general = struct.pack(">BBH", 0, 0, 10)
    table = [(10 << 8 | kind, flags, body) for kind, flags, body in messages]
    data = b""
    for kind, flags, body in ((16, 0, general), *table, (17, 0, general)):
        flags |= 1 | (4 if kind == table[-1][0] and body is table[-1][2] else 0)
        body += b"\0" * (-len(body) & 3)
        data += struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body
    nft.socket.setsockopt(socket.SOL_SOCKET, 32, len(data) * 2 + 65536)
    nft.socket.send(data)
    (error,) = struct.unpack_from("=i", nft.socket.recv(65536), 16)
    if error:
        raise OSError(-error, os.strerror(-error))


def number(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, "big"))


def nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | 0x8000, b"".join(parts))


class Floor:
    """Two maps, and a socket for each port and family; nothing else."""

    maps = (("any4", 7, 4, b"\x0a\x09\0\x02"), ("any6", 8, 16, b"\xfd" + bytes(15)))

    def __init__(self) -> None:
        self.nft = Netlink(12)
        self.header = struct.pack(">BBH", 1, 0, 0) + text(1, "floor")
        sets = [
            (9, 0x400, self.header + self._set(position, *each[:3]))
            for position, each in enumerate(self.maps, 1)
        ]
        transaction(self.nft, (0, 0x400, self.header), *sets)
        self.sockets: list[socket.socket] = []

    @staticmethod
    def _set(position: int, name: str, kind: int, size: int) -> bytes:
        fields = [nested(1, number(1, width)) for width in (1, 2)]
        return (
            text(2, name)
            + number(3, 0x88)
            + number(4, 12 << 6 | 13)
            + number(5, 8)
            + number(6, kind << 6 | 13)
            + number(7, size + 4)
            + number(10, position)
            + nested(9, nested(2, *fields))
        )

    def _elements(self, ports: range) -> Iterator[tuple[int, bytes]]:
        for name, _, _, address in self.maps:
            for start in range(0, len(ports), 500):
                elements = [
                    nested(
                        1,
                        nested(1, attribute(1, struct.pack(">BxxxHxx", 6, port))),
                        nested(
                            2, attribute(1, address + struct.pack(">Hxx", port % 999))
                        ),
                    )
                    for port in ports[start : start + 500]
                ]
                head = self.header + text(2, name)
                yield 0, head + nested(3, *elements)

    def publish(self, ports: range) -> None:
        """Hold and map ports."""
        for port in ports:
            for family, anywhere in ((2, "0.0.0.0"), (10, "::")):
                held = socket.socket(family, socket.SOCK_STREAM)
                if family == 10:
                    held.setsockopt(41, 26, 1)
                held.bind((anywhere, port))
                self.sockets.append(held)
                if len(self.sockets) > 2000:  # more would not fit everywhere
                    self.sockets.pop(0).close()
        messages = [(12, 0x400, body) for _, body in self._elements(ports)]
        transaction(self.nft, *messages)

    def unpublish(self, ports: range) -> None:
        """Unmap and release ports."""
        transaction(self.nft, *((14, 0, body) for _, body in self._elements(ports)))
        for held in self.sockets:
            held.close()
        self.sockets.clear()


# --- iptables, as dockerd programs it -------------------------------------------------


class IPTables:
    """Three rules for each port and family, each with a process (libnetwork 28)."""

    def __init__(self) -> None:
        for program in ("iptables", "ip6tables"):
            for arguments in (
                "-t nat -N DOCKER",
                "-N DOCKER",
                "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
                "-A FORWARD -j DOCKER",
            ):
                run(f"{program} --wait {arguments}")

    def _change(self, what: str, ports: range) -> None:
        for port in ports:
            for program, address in (
                ("iptables", "10.9.0.2"),
                ("ip6tables", "fd09::2"),
            ):
                target = (
                    f"[{address}]:80" if program == "ip6tables" else f"{address}:80"
                )
                match = f"-p tcp --dport {port}"
                hairpin = f"-s {address} -d {address} {match} -j MASQUERADE"
                for rule in (
                    f"-t nat {what} DOCKER {match} -j DNAT --to-destination {target}",
                    f"{what} DOCKER -d {address} -p tcp --dport 80 -j ACCEPT",
                    f"-t nat {what} POSTROUTING {hairpin}",
                ):
                    run(f"{program} --wait {rule}")

    def publish(self, ports: range) -> None:
        """Add the rules of ports."""
        self._change("-A", ports)

    def unpublish(self, ports: range) -> None:
        """Delete the rules of ports."""
        self._change("-D", ports)


def run(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True)


# --- measuring ------------------------------------------------------------------------


def timed(call: Callable[[range], None], ports: range) -> float:
    started = time.perf_counter()
    call(ports)
    return time.perf_counter() - started


def measure_blocking(
    way: Floor | IPTables, counts: tuple[int, ...]
) -> dict[str, float]:
    """Return the seconds that each operation took."""
    found = {}
    for count in counts:
        repeat = 20 if count == 1 else 1
        on, off = [], []
        for _ in range(repeat):
            ports = range(FIRST, FIRST + count)
            on.append(timed(way.publish, ports))
            off.append(timed(way.unpublish, ports))
        found[f"publish {count}"] = statistics.median(on)
        found[f"unpublish {count}"] = statistics.median(off)
    return found


def _memory() -> int:
    """Return the kilobytes of kernel objects and of this process."""
    with open("/proc/meminfo", encoding="ascii") as file:
        slab = next(int(line.split()[1]) for line in file if line.startswith("Slab:"))
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    return slab + resident


async def measure() -> dict[str, float]:
    """Return the seconds that each operation took."""
    found: dict[str, float] = {}
    async with cnm.Controller() as controller:
        network = await controller.create_network(
            "bench", subnets=["10.9.0.0/24", "fd09::/64"]
        )
        sandbox = await controller.create_sandbox("box")
        endpoint = await network.connect(sandbox)
        for count in COUNTS:
            # other numbers inside, so that each port is an element of its own
            last = FIRST + count - 1
            on, off = [], []
            before = _memory()
            for turn in range(20 if count == 1 else 1):
                spec = f"{FIRST}-{last}:1-{count}"
                if count == 1:
                    spec = f"{FIRST + turn}:80"
                started = time.perf_counter()
                await endpoint.publish(spec)
                on.append(time.perf_counter() - started)
                found[f"kB for {count}"] = float(_memory() - before)
                started = time.perf_counter()
                await endpoint.unpublish()
                off.append(time.perf_counter() - started)
            found[f"publish {count}"] = statistics.median(on)
            found[f"unpublish {count}"] = statistics.median(off)
        same = f"{FIRST}-{FIRST + 9999}:{FIRST}-{FIRST + 9999}"
        started = time.perf_counter()
        await endpoint.publish(same)
        found["publish 10000 that keep their numbers"] = time.perf_counter() - started
        await endpoint.unpublish()
        found |= await _first_packets(sandbox, endpoint)
    return found


async def _first_packets(
    sandbox: cnm.Sandbox, endpoint: cnm.Endpoint
) -> dict[str, float]:
    """Return how long connecting takes with few and with many ports."""
    found = {}
    outside = _outside()
    listener = await sandbox.socket()
    listener.bind(("10.9.0.2", 80))
    listener.listen(PROBES)
    await endpoint.publish("8080:80")
    for count in (1, 5000):
        if count > 1:
            await endpoint.publish(f"{FIRST}-{FIRST + count - 1}:1-{count}")
        samples = await anyio.to_thread.run_sync(_connect, outside, 8080)
        found[f"connect with {count}"] = statistics.median(samples)
        while True:
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                break
    listener.close()
    await endpoint.unpublish()
    os.close(outside)
    return found


def _outside() -> int:
    """Make a machine outside; return its namespace."""
    made: list[int] = []

    def work() -> None:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        made.append(namespaces.open_namespace(namespaces.OWN))
        with NetlinkSocket() as route:
            ready.set()
            linked.wait()
            route.call(
                add_address(peer, ip_interface(f"{OUTSIDE}/24")),
                set_link(peer, up=True),
            )

    ready, linked = threading.Event(), threading.Event()
    index, peer = choose_index(), choose_index()
    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()
    with NetlinkSocket() as route:
        route.call(
            add_veth("up0", "eth0", index=index, peer_index=peer, peer_netns=made[0]),
            add_address(index, ip_interface(f"{HOST}/24")),
            set_link(index, up=True),
        )
    linked.set()
    thread.join()
    return made[0]


def _connect(netns: int, port: int) -> list[float]:
    """Return the seconds that connections from outside take."""
    samples: list[float] = []

    def work() -> None:
        namespaces.enter(netns)
        for _ in range(PROBES):
            with socket.socket() as client:
                started = time.perf_counter()
                client.connect((HOST, port))
                samples.append(time.perf_counter() - started)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return samples


def child(way: str) -> None:
    """Measure one way, and print the results."""
    private_host()
    if way == "floor":
        results = measure_blocking(Floor(), COUNTS)
    elif way == "iptables":
        results = measure_blocking(IPTables(), IPTABLES_COUNTS)
    else:
        results = anyio.run(measure, backend=way)
    print(json.dumps(results))


def main() -> None:
    """Measure all ways in turn, and print medians."""
    ways = [way for way in WAYS if way != "iptables" or shutil.which("iptables")]
    found: dict[str, dict[str, list[float]]] = {way: {} for way in ways}
    for turn in range(ROUNDS):
        for way in ways if turn == 0 else [way for way in ways if way != "iptables"]:
            command = [sys.executable, "-m", "benchmarks", "ports", way]
            output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            for what, value in json.loads(output).items():
                found[way].setdefault(what, []).append(value)
    print(f"median of {ROUNDS} rounds in ms; both families; ratio to the floor")
    print(f"{'':40}" + "".join(f"{way:>18}" for way in ways))
    for what in found["asyncio"]:
        unit = 1 if what.startswith("kB") else 1000
        base = found["floor"].get(what)
        line = f"{what:40}"
        for way in ways:
            values = found[way].get(what)
            if not values:
                line += f"{'':18}"
                continue
            median = statistics.median(values)
            ratio = f"{median / statistics.median(base):5.1f}x" if base else ""
            line += f"{median * unit:10.3f}{ratio:>8}"
        print(line)
    if "iptables" not in ways:
        print("iptables is not installed: nothing to compare with")
