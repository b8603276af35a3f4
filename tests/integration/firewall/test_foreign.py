"""Firewalls of others: found, and named to those who cannot get through.

iptables-nft has its chains in tables ``ip filter`` and ``ip6 filter``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cnm.firewall import Firewall, admit, foreign, obstacles
from cnm.linux.nftables import (
    ACCEPT,
    INET,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    expressions as ex,
)
from cnm.linux.wire import be32, nested, string, u8

from .others import add_rules, make_table

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.lab import Namespace

# NFPROTO_BRIDGE, whose hooks have the same numbers
BRIDGE = 7


def test_nobody_else(host: Namespace) -> None:
    assert obstacles(host) == []
    Firewall("cnm").rebuild(host)
    make_table(host, INET, "mine", "forward", policy=ACCEPT)
    make_table(host, BRIDGE, "mine", "forward")
    assert obstacles(host) == []
    admit(host, "cnm:cnm", ("front",))


def iptables(program: str, chain: str) -> list[str]:
    return [f"{program} -I {chain} -{way} br-... -j ACCEPT" for way in "io"]


def nft(place: str) -> list[str]:
    return [f'nft insert rule {place} {way}ifname "br-..." accept' for way in "io"]


DOCKER = iptables("iptables", "DOCKER-USER")
UFW = [f"ufw route allow {way} on br-..." for way in ("in", "out")]
FIREWALLD = [
    "firewall-cmd --permanent --zone=trusted --add-interface=br-...",
    "firewall-cmd --reload",
]


@pytest.mark.parametrize(
    ("table", "chains", "owner", "managed", "commands"),
    [
        ("ip filter", "FORWARD DOCKER-USER DOCKER-FORWARD", "docker", True, DOCKER),
        (
            *("ip filter", "FORWARD DOCKER-FORWARD", "docker", False),
            iptables("iptables", "FORWARD"),
        ),
        # ufw and dockerd share iptables' chain
        ("ip filter", "FORWARD ufw-before-forward DOCKER-USER", "docker", True, DOCKER),
        ("ip filter", "FORWARD ufw-before-forward", "ufw", False, UFW),
        ("ip6 filter", "FORWARD ufw6-before-forward", "ufw", False, UFW),
        (
            *("ip6 filter", "FORWARD", "iptables", True),
            iptables("ip6tables", "FORWARD"),
        ),
        ("inet firewalld", "filter_FORWARD", "firewalld", False, FIREWALLD),
        ("ip mine", "forward", "nftables", False, nft("ip mine forward")),
        ("inet filter", "FORWARD", "nftables", False, nft("inet filter FORWARD")),
    ],
)
def test_owners(
    host: Namespace,
    table: str,
    chains: str,
    owner: str,
    managed: bool,
    commands: list[str],
) -> None:
    family, _, name = table.partition(" ")
    base, *others = chains.split()
    number = {"inet": INET, "ip": NFPROTO_IPV4, "ip6": NFPROTO_IPV6}[family]
    make_table(host, number, name, base, *others)
    (found,) = obstacles(host)
    assert (found.family, found.table, found.chain) == (family, name, base)
    assert (found.owner, found.managed) == (owner, managed)
    assert found.problem == "drops forwarded packets by default"
    assert found.subject == f"chain {base} of table {table} ({owner})"
    by_hand = f"`{commands[0]}` and `{commands[1]}`."
    if managed:
        with_us = "Start the controller with manage_forward=True, or run"
        assert found.advice == f"{with_us} {by_hand}"
    else:
        assert found.advice == f"Run {by_hand}"


def test_firewalld_rejects_at_the_end(host: Namespace) -> None:
    make_table(host, INET, "firewalld", "filter_FORWARD", policy=ACCEPT)
    assert obstacles(host) == []
    # NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED
    reject = nested(1, string(1, "reject"), nested(2, be32(1, 2), u8(2, 3)))
    add_rules(host, INET, "firewalld", "filter_FORWARD", reject)
    (found,) = obstacles(host)
    assert found.owner == "firewalld"
    assert found.problem == "rejects forwarded packets that no zone lets through"
    assert not found.managed
    add_rules(host, INET, "firewalld", "filter_FORWARD", ex.verdict(ACCEPT))
    assert obstacles(host) == []


def test_iptables_legacy(
    host: Namespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = tmp_path / "names"
    paths = {NFPROTO_IPV4: str(tmp_path / "missing"), NFPROTO_IPV6: str(names)}
    monkeypatch.setattr(foreign, "_LEGACY", paths)
    names.write_text("nat\n")
    assert obstacles(host) == []
    names.write_text("nat\nfilter\n")
    (found,) = obstacles(host)
    assert found.subject == "chain FORWARD of table ip6 filter (iptables)"
    assert found.problem == "belongs to ip6tables-legacy, and cannot be read"
    assert not found.managed
    assert found.advice == (
        "Run `ip6tables-legacy -S FORWARD`; if it begins with `-P FORWARD DROP`, run "
        "`ip6tables-legacy -I FORWARD -i br-... -j ACCEPT` and "
        "`ip6tables-legacy -I FORWARD -o br-... -j ACCEPT`."
    )
