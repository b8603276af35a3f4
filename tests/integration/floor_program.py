"""Make the same sandbox by cnm and by the benchmarks' floor; print what there is."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from glob import glob
from pathlib import Path

import anyio

import cnm
from benchmarks.floor.host import Host
from benchmarks.floor.lives import BridgeLife
from cnm.linux import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    dump_addresses,
    dump_links,
    dump_routes,
    namespaces,
    parse_address,
    parse_link,
    parse_route,
)
from cnm.linux.nftables import list_elements, list_sets
from cnm.testing import private_host

PORT = 8080


def in_namespace(path: str, work: Callable[[], None]) -> None:
    """Do something in a namespace, by a thread that ends there."""

    def body() -> None:
        descriptor = namespaces.open_namespace(path)
        namespaces.enter(descriptor)
        os.close(descriptor)
        work()

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()


def sandbox(found: dict[str, object]) -> None:
    """Describe the calling thread's namespace, but for names and numbers."""
    with NetlinkSocket() as route:
        links = [parse_link(it) for it in route.dump(dump_links())]
        addresses = [parse_address(it) for it in route.dump(dump_addresses())]
        routes = [
            parse_route(it)
            for version in (4, 6)
            for it in route.dump(dump_routes(version))
        ]
    found["links"] = sorted((it.name, it.kind, it.up, len(it.alias)) for it in links)
    found["addresses"] = sorted(
        (it.interface.version, it.interface.network.prefixlen, it.scope, it.permanent)
        for it in addresses
    )
    found["routes"] = sorted(
        (it.destination.prefixlen, it.type, it.table, it.protocol, it.gatewayed)
        for it in routes
    )
    conf = Path("/proc/sys/net/ipv6/conf/eth0")
    for name in (
        "accept_ra",
        "addr_gen_mode",
        "mldv2_unsolicited_report_interval",
    ):
        found[name] = (conf / name).read_text()
    for name in ("tcp", "udp", "tcp6", "udp6"):
        lines = Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]
        found[name] = sorted(line.split()[1] + line.split()[3] for line in lines)


def host(table: str) -> dict[str, object]:
    """Describe the host, but for names and numbers."""
    with NetlinkSocket() as route:
        links = [parse_link(it) for it in route.dump(dump_links())]
    found: dict[str, object] = {}
    for link in links:
        if link.kind in ("bridge", "veth"):
            conf = Path("/proc/sys/net/ipv6/conf") / link.name
            found[link.kind] = [link.up, bool(link.master), len(link.alias)]
            found[f"{link.kind} IPv6"] = [
                (conf / name).read_text() for name in ("accept_ra", "addr_gen_mode")
            ]
        if link.kind == "veth":
            port = Path("/sys/class/net") / link.name / "brport"
            found["hairpin"] = (port / "hairpin_mode").read_text()
    found["elements"] = elements(table)
    return found


def elements(table: str) -> dict[str, int]:
    """Count the elements of sets, without those that a controller always has."""
    with NetlinkSocket(NETLINK_NETFILTER) as nft:
        counts = {
            it.name: len(list_elements(nft, table, it.name))
            for it in list_sets(nft, table)
            if not it.name.startswith("__") and it.name not in ("closed", "proxy")
        }
    return {name: count for name, count in counts.items() if count}


def files(pattern: str) -> list[str]:
    """Return the names of the files in the one directory that there is."""
    (directory,) = glob(pattern)
    return sorted(os.listdir(directory))


def by_floor() -> dict[str, object]:
    """Make it by the floor."""
    made = Host()
    network = made.network(0)
    network.begin()
    life = BridgeLife(made, network, 0, names=True, port=PORT)
    life.begin()
    found = host("floor")
    in_namespace(life.key, lambda: sandbox(found))
    found["files"] = files("/run/floor/files/*")
    life.end()
    network.end()
    found["elements afterwards"] = elements("floor")
    return found


async def by_cnm() -> dict[str, object]:
    """Make it by cnm."""
    async with cnm.Controller() as controller:
        network = await controller.create_network(
            "bench", subnets=["10.64.0.0/20", "fd64::/64"]
        )
        made = await controller.create_sandbox("s")
        await network.connect(made, ports=[f"{PORT}:80"])
        found = host("cnm")
        in_namespace(made.key, lambda: sandbox(found))
        found["files"] = files("/run/cnm/*/files/*")
        await made.delete()
        await network.delete()
        found["elements afterwards"] = elements("cnm")
        return found


if __name__ == "__main__":
    private_host()
    json.dump({"floor": by_floor(), "cnm": anyio.run(by_cnm)}, sys.stdout)
