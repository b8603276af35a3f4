"""Tables as other firewalls make them, by netlink."""

from __future__ import annotations

from cnm.linux.nftables import (
    DROP,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    Batch,
    Verdict,
    commit,
)
from cnm.linux.wire import be32, nested, string
from tests.integration.lab import Namespace

BOTH = (NFPROTO_IPV4, NFPROTO_IPV6)


def make_table(
    host: Namespace,
    family: int,
    name: str,
    base: str,
    *chains: str,
    policy: Verdict = DROP,
) -> None:
    """Make a table with a base chain for forwarded packets, and others."""
    batch = Batch(name, family)
    batch.add_table()
    hook = nested(4, be32(1, 2), be32(2, 0))
    kind = string(7, "filter")
    batch.add_raw_chain(base, string(3, base) + hook + be32(5, policy.code) + kind)
    for chain in chains:
        batch.add_chain(chain)
    commit(host.nft, batch)


def add_rules(
    host: Namespace, family: int, table: str, chain: str, *rules: bytes
) -> None:
    batch = Batch(table, family)
    for rule in rules:
        batch.add_rule(chain, rule)
    commit(host.nft, batch)
