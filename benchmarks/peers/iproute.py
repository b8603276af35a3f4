"""ip(8) and nft(8), with as few processes as they need."""

from __future__ import annotations

import itertools
import subprocess

from ..floor.host import Host, Network

_numbers = itertools.count()


class Life:
    """A sandbox on a bridge by ``ip -batch`` and ``nft -f``."""

    def __init__(self, network: Network, position: int, port: int) -> None:
        # a link lives on for a while when its namespace is gone
        self._name = name = f"i{next(_numbers)}"
        four, six = network.gateway4 + position + 1, network.gateway6 + position + 1
        self._outside = (
            f"link add {name} master {network.name} type veth"
            f" peer name eth0 netns {name}\n"
            f"link set {name} addrgenmode none up\n"
        )
        self._inside = (
            "link set lo up\n"
            "link set eth0 addrgenmode none\n"
            f"address add {four}/20 dev eth0\n"
            f"address add {six}/64 dev eth0 nodad\n"
            "link set eth0 up\n"
            f"route add default via {network.gateway4}\n"
            f"route add default via {network.gateway6}\n"
        )
        self._port = "".join(
            f"{{what}} element inet floor {any_} {{{{ tcp . {port} : {own} . 80 }}}}\n"
            for any_, own in (("any4", four), ("any6", six))
        )
        self._published = bool(port)

    def begin(self) -> None:
        _run(["ip", "netns", "add", self._name])
        _run(["ip", "-batch", "-"], self._outside)
        _run(["ip", "-n", self._name, "-batch", "-"], self._inside)
        if self._published:
            _run(["nft", "-f", "-"], self._port.format(what="add"))

    def end(self) -> None:
        if self._published:
            _run(["nft", "-f", "-"], self._port.format(what="delete"))
        # the interface goes with the namespace
        _run(["ip", "netns", "delete", self._name])


def prepare(host: Host) -> Network:
    """Make the network that sandboxes are on."""
    network = host.network(0)
    network.begin()
    return network


def _run(command: list[str], script: str = "") -> None:
    subprocess.run(command, input=script.encode(), check=True, capture_output=True)
