"""Forwarding that is switched on for networks only, with real traffic.

A host that has forwarded nothing so far, with a network of one container, and two
neighbours, near and far.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

import pytest

from cnm.errors import KernelError
from cnm.firewall import (
    Firewall,
    NetworkRules,
    adopt_forwarding,
    close_forwarding,
    forwarding,
    open_forwarding,
)
from cnm.linux import BRIDGE_GROUP, set_link, sysctl
from tests.integration.lab import BLOCKED_AFTER, PATIENCE, Namespace, Servers, ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
FORCED = "net.ipv6.conf.{}.force_forwarding"
FAR = {4: "198.51.100.2", 6: "fd09::2"}
BOX = {4: "10.1.0.2", 6: "fd00:1::2"}
RULES = NetworkRules(
    interface="front",
    subnets4=(IPv4Network("10.1.0.0/24"),),
    subnets6=(IPv6Network("fd00:1::/64"),),
    mode4="nat-unprotected",
    mode6="nat-unprotected",
    masquerade=False,
)


class Host(Namespace):
    """The host; its neighbours and its container."""

    def __init__(self) -> None:
        super().__init__("host")
        self.near, self.far, self.box = map(Namespace, ("near", "far", "box"))
        self.firewall = Firewall("cnm")

    def read(self, name: str) -> str:
        return self.run(lambda: sysctl.read(name))

    def open(self, version: int, firewall: Firewall | None = None) -> None:
        self.run(lambda: open_forwarding(self, firewall or self.firewall, version))

    def shut(self, firewall: Firewall | None = None) -> None:
        self.run(lambda: close_forwarding(self, firewall or self.firewall))

    def add_neighbour(self, other: Namespace, name: str, net4: str, net6: str) -> None:
        index, _ = self.connect(other, name, f"{net4}.2/24", f"{net6}::2/64")
        self.add_addresses(index, f"{net4}.1/24", f"{net6}::1/64")
        other.add_default_routes(f"{net4}.1", f"{net6}::1")

    def add_network(self) -> None:
        bridge = self.add_bridge("front", "10.1.0.1/24", "fd00:1::1/64")
        # by which other controllers know it
        self.route.call(set_link(bridge, group=BRIDGE_GROUP))
        addresses = ("10.1.0.2/24", "fd00:1::2/64")
        self.connect(self.box, "box0", *addresses, master=bridge)
        self.box.add_default_routes("10.1.0.1", "fd00:1::1")

    def check(self, version: int, expected: set[tuple[str, str]]) -> None:
        """Check who gets through to whom."""
        probes = {
            ("near", "far"): (self.near, FAR[version]),
            ("near", "box"): (self.near, BOX[version]),
            ("box", "far"): (self.box, FAR[version]),
        }
        with ThreadPoolExecutor(len(probes)) as pool:
            answers = pool.map(
                lambda names: ask(
                    *probes[names],
                    80,
                    timeout=PATIENCE if names in expected else BLOCKED_AFTER,
                ),
                probes,
            )
            found = {
                names
                for names, answer in zip(probes, answers, strict=True)
                if answer.startswith(f"{names[1]} ")
            }
        assert found == expected


NETWORK = {("near", "box"), ("box", "far")}
EVERYTHING = NETWORK | {("near", "far")}


@pytest.fixture
def host() -> Iterator[Host]:
    with ExitStack() as stack:
        host = stack.enter_context(Host())
        servers = Servers()
        stack.callback(servers.close)
        for box in (host.near, host.far, host.box):
            stack.enter_context(box)
            servers.add(box, 80)
        for name in FORWARDING.values():
            host.sysctl(name, "0")
        # links that are there before, and one that comes later
        host.add_neighbour(host.near, "near0", "192.0.2", "fd08")
        host.add_neighbour(host.far, "far0", "198.51.100", "fd09")
        host.firewall.update(host, add=RULES.elements())
        host.firewall.rebuild(host)
        yield host


def has_force_forwarding() -> bool:
    try:
        sysctl.read(FORCED.format("all"))
    except KernelError:
        return False
    return True


needs_force_forwarding = pytest.mark.skipif(
    not has_force_forwarding(), reason="needs Linux 6.17"
)


@pytest.mark.parametrize("version", [4, 6])
def test_forwarding_is_for_networks_only(host: Host, version: int) -> None:
    host.open(version)
    host.add_network()
    host.check(version, NETWORK)
    host.check(10 - version, set())

    # strangers are kept out by the table alone
    host.firewall.remove(host)

    host.check(version, EVERYTHING)


@needs_force_forwarding
def test_ipv6_does_not_make_the_host_a_router(host: Host) -> None:
    host.open(6)
    assert host.read(FORWARDING[6]) == "0"
    assert host.read("net.ipv6.conf.near0.forwarding") == "0"
    host.add_network()
    for scope in ("all", "default", "near0", "front"):
        assert host.read(FORCED.format(scope)) == "1"

    host.shut()

    for scope in ("all", "default", "near0", "front"):
        assert host.read(FORCED.format(scope)) == "0"
    host.firewall.remove(host)
    host.check(6, set())


def test_older_kernels(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ("net.ipv6.conf.all.no_such_setting",)
    monkeypatch.setattr(forwarding, "_WAYS", {6: (missing, (FORWARDING[6],))})
    host.open(6)
    host.add_network()
    assert host.read(FORWARDING[6]) == "1"
    host.check(6, NETWORK)
    host.shut()
    assert host.read(FORWARDING[6]) == "0"


@pytest.mark.parametrize("version", [4, 6])
def test_what_was_on_stays_as_it_was(host: Host, version: int) -> None:
    host.sysctl(FORWARDING[version], "1")
    host.open(version)
    host.add_network()
    host.check(version, EVERYTHING)
    host.shut()
    assert host.read(FORWARDING[version]) == "1"
    if version == 6 and has_force_forwarding():
        assert host.read(FORCED.format("all")) == "0"


@needs_force_forwarding
def test_what_the_administrator_forces_stays_as_it_was(host: Host) -> None:
    for scope in ("all", "default"):
        host.sysctl(FORCED.format(scope), "1")
    host.open(6)
    host.add_network()
    host.check(6, EVERYTHING)
    host.shut()
    assert host.read(FORCED.format("all")) == "1"


def test_other_controllers_and_later_ones(host: Host) -> None:
    other = Firewall("cnm-other")
    other.rebuild(host)
    host.add_network()
    for version in (4, 6):
        host.open(version)
        # on, and closed: by the first
        host.open(version, other)
    host.shut()
    host.check(6, NETWORK)

    # the first is gone, and the other starts anew
    host.firewall.remove(host)
    again = Firewall("cnm-other")
    host.run(lambda: adopt_forwarding(host, again))
    again.rebuild(host)
    host.check(6, NETWORK)
    host.shut(again)
    assert host.read(FORWARDING[4]) == "0"
    host.check(4, set())
    host.check(6, set())


def test_what_was_switched_on_is_known_without_the_table(
    host: Host, tmp_path: Path
) -> None:
    memory = tmp_path / "forwarding"
    host.firewall.remove(host)
    before = Firewall("cnm", memory=str(memory))
    before.rebuild(host)
    host.add_network()
    for version in (4, 6):
        host.open(version, before)
    assert memory.read_text() == "4 6"
    before.remove(host)  # by somebody who flushes the ruleset
    host.check(4, EVERYTHING)
    host.check(6, EVERYTHING)

    again = Firewall("cnm", memory=str(memory))
    host.run(lambda: adopt_forwarding(host, again))
    again.rebuild(host)
    again.update(host, add=RULES.elements())
    host.check(4, NETWORK)
    host.check(6, NETWORK)
    host.shut(again)
    assert host.read(FORWARDING[4]) == "0"
    assert not memory.exists()


def test_what_is_off_has_not_been_switched_on(host: Host, tmp_path: Path) -> None:
    memory = tmp_path / "forwarding"
    memory.write_text("4 6")  # the host has been started anew
    host.firewall.remove(host)
    again = Firewall("cnm", memory=str(memory))
    host.run(lambda: adopt_forwarding(host, again))
    again.rebuild(host)
    host.sysctl(FORWARDING[4], "1")  # by the administrator
    host.open(4, again)
    host.add_network()
    host.check(4, EVERYTHING)


def test_a_setting_that_cannot_be_written(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (FORWARDING[4], "net.ipv4.no_such_setting")
    monkeypatch.setattr(forwarding, "_WAYS", {4: (settings,)})
    with pytest.raises(KernelError, match="no_such_setting"):
        host.open(4)
    assert host.read(FORWARDING[4]) == "0"
    host.firewall.rebuild(host)
    host.sysctl(FORWARDING[4], "1")
    host.add_network()
    host.check(4, EVERYTHING)


def test_without_a_firewall_nothing_is_switched_on(host: Host) -> None:
    off = Firewall("cnm", enabled=False)
    for version in (4, 6):
        host.open(version, off)
        assert host.read(FORWARDING[version]) == "0"
    host.run(lambda: adopt_forwarding(host, off))
    host.shut(off)
    host.add_network()
    host.check(6, set())

    host.sysctl(FORWARDING[6], "1")

    host.check(6, EVERYTHING)
