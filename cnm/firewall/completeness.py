"""Whether a table has all that was put into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..linux.nftables import Batch, Element, list_chains, list_elements, list_rules
from ..linux.wire import attribute_list
from .ruleset import SETS, add_ruleset

if TYPE_CHECKING:
    from ..linux.netlink import NetlinkSocket


class _Rules(Batch):
    """Counts the rules of each chain, in place of sending them."""

    def __init__(self) -> None:
        super().__init__("")
        self.counts: Counter[str] = Counter()

    def add_rule(self, chain: str, *expressions: bytes, comment: str = "") -> None:
        """Count a rule."""
        self.counts[chain] += 1


def missing(
    nft: NetlinkSocket,
    table: str,
    elements: Iterable[Element],
    fwmark: tuple[int, int] | None,
) -> Iterator[str]:
    """Say what a table of ours lacks, or has too much of.

    The administrator's chain is none of our business. Elements are counted by set, and
    rules by chain, which is enough to see that somebody has flushed or deleted some.
    """
    wanted = _Rules()
    add_ruleset(wanted, fwmark)
    present = {chain.name for chain in list_chains(nft, table)}
    for chain, count in wanted.counts.items():
        found = len(list_rules(nft, table, chain)) if chain in present else 0
        if found != count:
            yield f"chain {chain} has {found} rules in place of {count}"
    counts: Counter[str] = Counter()
    for element in elements:
        # an interval may be two elements, its start and its end
        counts[element.set.name] += len(list(attribute_list(element.encoded)))
    for definition in SETS:
        if definition.timeout:
            continue
        found = len(list_elements(nft, table, definition.name))
        if found != counts[definition.name]:
            yield (
                f"set {definition.name} has {found} elements in place of "
                f"{counts[definition.name]}"
            )
