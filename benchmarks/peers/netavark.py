"""netavark, as Podman runs it: a process for each setup and each teardown."""

from __future__ import annotations

import json
import subprocess
from ipaddress import IPv4Address, IPv6Address

from .namespace import Namespace

PROGRAM = "/usr/lib/podman/netavark"
_NETWORK = {
    "name": "bench",
    "id": "b" * 64,
    "driver": "bridge",
    "network_interface": "podman1",
    "internal": False,
    "ipv6_enabled": True,
    "dns_enabled": False,
    "ipam_options": {"driver": "host-local"},
    "subnets": [
        {"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"},
        {"subnet": "fd88::/64", "gateway": "fd88::1"},
    ],
}


class Life:
    """A namespace of ours that netavark sets up."""

    def __init__(self, position: int, port: int) -> None:
        self._namespace = Namespace(f"n{position}")
        four, six = (
            IPv4Address("10.88.0.2") + position,
            IPv6Address("fd88::2") + position,
        )
        mapping = {
            "host_port": port,
            "container_port": 80,
            "protocol": "tcp",
            "host_ip": "",
            "range": 1,
        }
        request = {
            "container_id": f"{position:064x}",
            "container_name": f"n{position}",
            "networks": {
                "bench": {"static_ips": [str(four), str(six)], "interface_name": "eth0"}
            },
            "network_info": {"bench": _NETWORK},
            "port_mappings": [mapping] if port else [],
        }
        self._request = json.dumps(request).encode()

    def begin(self) -> None:
        self._namespace.make()
        self._run("setup")

    def end(self) -> None:
        self._run("teardown")
        self._namespace.remove()

    def _run(self, what: str) -> None:
        command = [PROGRAM, "--config", "/run/netavark", what, self._namespace.path]
        subprocess.run(command, input=self._request, check=True, capture_output=True)
