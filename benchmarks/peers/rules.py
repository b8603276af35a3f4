"""Published ports as rules of iptables, as dockerd has them, loaded at once."""

from __future__ import annotations

import subprocess
from ipaddress import IPv4Address


def load(address: IPv4Address, ports: range, port: int) -> None:
    """Publish ports of a sandbox, the last of which keeps its number.

    :param ports: those before it
    """
    published = [*ports, port]
    nat = [
        "*nat",
        ":DOCKER -",
        "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        *(
            f"-A DOCKER -p tcp --dport {it} -j DNAT --to-destination {address}:{it}"
            for it in published
        ),
        "COMMIT",
    ]
    forward = [
        "*filter",
        ":DOCKER -",
        "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A FORWARD -j DOCKER",
        *(f"-A DOCKER -d {address} -p tcp --dport {it} -j ACCEPT" for it in published),
        "COMMIT",
    ]
    script = "\n".join([*nat, *forward, ""])
    subprocess.run(["iptables-restore"], input=script.encode(), check=True)
