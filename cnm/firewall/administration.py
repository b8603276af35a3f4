"""What the administrator has put into a controller's table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..linux.nftables import list_chains, list_elements, list_rules, list_sets
from .ruleset import CHAINS, SETS, USER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..linux.netlink import NetlinkSocket
    from ..linux.nftables import Batch, Definition

_OUR_SETS = frozenset(definition.name for definition in SETS)


def keep_administration(nft: NetlinkSocket, batch: Batch) -> None:
    """Put the rules of the chain ``user`` into the table that a batch makes anew.

    With them go the chains they jump to, and the sets they look into, anonymous ones as
    well, verbatim. All else in the table that is not cnm's goes: it may be the work of
    an older cnm.
    """
    rules = list_rules(nft, batch.table, USER)
    if not rules:
        return
    chains = [it for it in list_chains(nft, batch.table) if it.name not in CHAINS]
    sets = [it for it in list_sets(nft, batch.table) if it.name not in _OUR_SETS]
    elements = {it.name: list_elements(nft, batch.table, it.name) for it in sets}
    bodies = [rule.body for rule in rules]
    kept_chains: list[Definition] = []
    kept_sets: list[Definition] = []
    while found := _mentioned((*chains, *sets), bodies):
        for definition in found:
            if definition in sets:
                sets.remove(definition)
                kept_sets.append(definition)
                bodies += elements[definition.name]
            else:
                chains.remove(definition)
                kept_chains.append(definition)
                more = list_rules(nft, batch.table, definition.name)
                rules += more
                bodies += [rule.body for rule in more]
    for chain in kept_chains:
        batch.add_raw_chain(chain.name, chain.body)
    for kept in kept_sets:
        batch.add_raw_set(kept.name, kept.body)
        batch.add_raw_elements(kept.name, elements[kept.name])
    for rule in rules:
        batch.add_raw_rule(rule.name, rule.body)


def _mentioned(
    definitions: Iterable[Definition], bodies: list[bytes]
) -> list[Definition]:
    """Return the definitions whose names are in rules or elements."""
    return [
        definition
        for definition in definitions
        if any(definition.name.encode() + b"\0" in body for body in bodies)
    ]
