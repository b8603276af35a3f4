"""A host with networks behind its firewall table.

There are four networks of two containers each, and a client outside that has direct
routes to all of them: front (nat), apart (nat, icc off), inner (internal) and routed.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from socket import AF_INET
from typing import TYPE_CHECKING, Any, TypeAlias

from cnm.firewall import Firewall, Mode, NetworkRules
from cnm.linux import Request, add_route
from cnm.linux.wire import ROUTE, attribute
from tests.integration.barriers import Barrier, all_but_one, without
from tests.integration.lab import BLOCKED_AFTER, Namespace, Servers, ask, failed

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Who asks, what address, what port, by what protocol.
Probe: TypeAlias = "tuple[str, str, int, str]"

NETWORKS = ("front", "apart", "inner", "routed")


def rules(number: int, name: str) -> NetworkRules:
    mode: Mode = "routed" if name == "routed" else "nat"
    return NetworkRules(
        interface=name,
        subnets4=(IPv4Network(f"10.{number}.0.0/24"),),
        subnets6=(IPv6Network(f"fd00:{number}::/64"),),
        internal=name == "inner",
        icc=name != "apart",
        mode4=mode,
        mode6=mode,
    )


@dataclass
class World:
    host: Namespace
    client: Namespace
    firewall: Firewall = field(default_factory=lambda: Firewall("cnm"))
    servers: Servers = field(default_factory=Servers)
    boxes: dict[str, Namespace] = field(default_factory=dict)
    bridges: dict[str, int] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    def ask(self, where: str, address: str, port: int, proto: str = "tcp") -> str:
        return ask(self.boxes[where], address, port, proto)

    def blocked(self, *probes: Probe) -> bool:
        """Whether none of the probes gets an answer; they are sent at once."""
        return not self.passing(*probes)

    def passing(self, *probes: Probe) -> list[Probe]:
        """Return the probes that get an answer; they are sent at once."""
        with ThreadPoolExecutor(len(probes)) as pool:
            answers = pool.map(
                lambda probe: ask(
                    self.boxes[probe[0]], *probe[1:], timeout=BLOCKED_AFTER
                ),
                probes,
            )
            return [probe for probe, it in zip(probes, answers, strict=True) if it]

    def check(self, probes: list[Probe], *barriers: Barrier) -> None:
        """Check that each of the barriers blocks probes, and that nothing else does.

        They pass first: what follows is not blocked by an address that is unknown yet.
        """
        with without(*barriers):
            passed = {probe: self.ask(*probe) for probe in probes}
            assert not [probe for probe in probes if failed(passed[probe])], passed
        self.forget_connections()
        for left in all_but_one(barriers):
            assert self.passing(*probes) == [], left
        assert self.passing(*probes) == []

    def forget_connections(self) -> None:
        """Have no probe pass for one of before, whose port it has got by chance."""
        # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE, with nothing to choose by: all
        self.host.nft.call(Request(1 << 8 | 2, 0, bytes(4), "forget all connections"))

    @contextmanager
    def lan(self) -> Iterator[Namespace]:
        """Have another neighbour of the host, ``lan``, at lan0."""
        with Namespace("lan") as lan:
            self.boxes["lan"] = lan
            index, _ = self.host.connect(lan, "lan0", "198.51.100.2/24", "fd09::2/64")
            self.host.add_addresses(index, "198.51.100.1/24", "fd09::1/64")
            lan.add_default_routes("198.51.100.1", "fd09::1")
            yield lan

    def replace(self, number: int, name: str, **changes: Any) -> None:
        """Change what the firewall knows of one of the networks."""
        old = rules(number, name)
        new = replace(old, **changes)
        self.firewall.update(self.host, remove=old.elements(), add=new.elements())


def route_loopback(box: Namespace, gateway: str) -> None:
    """Have a namespace send what it sends to 127.0.0.1 to a gateway."""
    box.sysctl("net.ipv4.conf.eth0.route_localnet", "1")
    for address, prefix in (("127.0.0.1", 32), ("127.0.0.0", 8)):
        # its own loopback has to be out of the way: table 255 (local), scope nowhere
        body = ROUTE.pack(AF_INET, prefix, 0, 0, 255, 0, 255, 0, 0)
        body += attribute(1, IPv4Address(address).packed)
        box.route.call(Request(25, 0, body, f"delete local route {address}"))
    loopback = IPv4Network("127.0.0.1/32")
    box.route.call(add_route(loopback, via=IPv4Address(gateway)))
