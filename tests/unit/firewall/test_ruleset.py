"""The rule set, as pyroute2 reads it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from pyroute2.netlink.nfnetlink.nftsocket import (
    nft_chain_msg,
    nft_rule_msg,
    nft_set_msg,
)

from cnm.firewall.ruleset import CHAINS, SETS, USER, add_ruleset
from cnm.linux.nftables import Batch
from tests.unit.linux.oracle import decode

NEWCHAIN, NEWRULE, NEWSET = 3, 6, 9


def of_kind(
    kind: int, message_class: Any, fwmark: tuple[int, int] | None = None
) -> list[Any]:
    batch = Batch("cnm")
    add_ruleset(batch, fwmark)
    return [
        decode(message_class, request)
        for request in batch.requests
        if request.kind & 0xFF == kind
    ]


@pytest.fixture(scope="module")
def rules() -> dict[str, list[str]]:
    """The rules of each chain, a word for each expression."""
    return in_words(None)


def in_words(fwmark: tuple[int, int] | None) -> dict[str, list[str]]:
    found = defaultdict(list)
    for message in of_kind(NEWRULE, nft_rule_msg, fwmark):
        words = [
            word(it.get_attr("NFTA_EXPR_NAME"), it.get_attr("NFTA_EXPR_DATA"))
            for it in message.get_attr("NFTA_RULE_EXPRESSIONS")
        ]
        found[message.get_attr("NFTA_RULE_CHAIN")].append(" ".join(words))
    return found


def word(name: str, data: Any) -> str:
    if name == "meta":
        return str(data.get_attr("NFTA_META_KEY").removeprefix("NFT_META_").lower())
    if name == "payload":
        offset = data.get_attr("NFTA_PAYLOAD_OFFSET")
        return f"{offset}+{data.get_attr('NFTA_PAYLOAD_LEN')}"
    if name == "cmp":
        value = data.get_attr("NFTA_CMP_DATA").get_attr("NFTA_DATA_VALUE")
        operator = data.get_attr("NFTA_CMP_OP").removeprefix("NFT_CMP_").lower()
        return f"{operator}:{value.hex()}"
    if name == "lookup":
        return f"@{data.get_attr('NFTA_LOOKUP_SET')}"
    if name == "immediate":
        verdict = data.get_attr("NFTA_IMMEDIATE_DATA").get_attr("NFTA_DATA_VERDICT")
        chain = verdict.get_attr("NFTA_VERDICT_CHAIN")
        code = verdict.get_attr("NFTA_VERDICT_CODE").split("_")[1].lower()
        return f"{code}:{chain}" if chain else str(code)
    if name == "ct":
        return str(data.get_attr("NFTA_CT_KEY").removeprefix("NFT_CT_").lower())
    return name


def test_the_administrators_chain_is_empty_and_comes_first(
    rules: dict[str, list[str]],
) -> None:
    assert USER not in rules
    assert rules["forward"][0] == "jump:user"


def test_forwarding(rules: dict[str, list[str]]) -> None:
    kind = b"bridge".ljust(16, b"\0").hex()
    assert rules["forward"][1:] == [
        "iifname @leaving",
        "state bitwise neq:00000000 accept",
        "nfproto eq:02 iifname 12+4 @policy4",
        "nfproto eq:0a iifname 8+16 @policy6",
        "iifname oifname @same",
        "nfproto iifname oifname @trusted",
        "nfproto eq:02 oifname @entering4",
        "nfproto eq:0a oifname @entering6",
        "iifname @bridges accept",
        "oifname @bridges accept",
        "iifgroup eq:426d6e63 accept",
        "oifgroup eq:426d6e63 accept",
        f"iifkind eq:{kind} oifkind eq:{kind} accept",
        "nfproto @closed counter drop",
    ]
    assert rules["in_nat"] == ["status bitwise neq:00000000 accept", "counter drop"]
    assert rules["in_direct"] == [
        "status bitwise neq:00000000 accept",
        "nfproto eq:02 16+4 l4proto 2+2 @open4 accept",
        "nfproto eq:0a 24+16 l4proto 2+2 @open6 accept",
        "counter drop",
    ]
    assert rules["in_routed"] == [
        "status bitwise neq:00000000 accept",
        "l4proto eq:01 accept",
        "l4proto eq:3a accept",
        "nfproto eq:02 16+4 l4proto 2+2 @open4 accept",
        "nfproto eq:0a 24+16 l4proto 2+2 @open6 accept",
        "counter drop",
    ]
    assert rules["drop_icc"] == ["counter drop"]
    assert rules["drop_internal"] == ["iifname oifname @same", "counter drop"]


def test_marked_packets(rules: dict[str, list[str]]) -> None:
    made = in_words((0x100, 0xFF00))
    let_in = "mark bitwise eq:00010000 accept"
    for chain in ("in_nat", "in_direct", "in_routed"):
        usual = [*rules[chain]]
        usual.insert(1, let_in)
        assert made.pop(chain) == usual
    assert made == {chain: rules[chain] for chain in made}


def test_whatever_drops_counts(rules: dict[str, list[str]]) -> None:
    dropping = [it for chain in rules.values() for it in chain if "drop" in it]
    assert len(dropping) == 9
    assert all(rule.endswith("counter drop") for rule in dropping)


def test_the_guard(rules: dict[str, list[str]]) -> None:
    assert rules["guard"] == [
        "iifname @bridges nfproto eq:02 16+1 eq:7f counter drop",
        "iifname @bridges nfproto eq:02 12+1 eq:7f counter drop",
    ]


def test_publishing(rules: dict[str, list[str]]) -> None:
    assert rules["prerouting"] == ["nfproto eq:02 16+1 eq:7f return", "jump:publish"]
    to_loopback = f"nfproto eq:0a 24+16 eq:{1:032x}"
    assert rules["output"] == [
        f"{to_loopback} l4proto 2+2 @proxied l4proto @proxy redir",
        f"{to_loopback} return",
        "jump:publish",
    ]
    assert rules["publish"] == [
        "nfproto eq:02 16+4 numgen @lb4 nat",
        "nfproto eq:0a 24+16 numgen @lb6 nat",
        "fib neq:02000000 return",
        "nfproto eq:02 16+4 l4proto 2+2 @pub4 nat",
        "nfproto eq:02 l4proto 2+2 @any4 nat",
        "nfproto eq:02 16+4 l4proto 2+2 @range4 nat",
        "nfproto eq:0a 24+16 l4proto 2+2 @pub6 nat",
        "nfproto eq:0a l4proto 2+2 @any6 nat",
        "nfproto eq:0a 24+16 l4proto 2+2 @range6 nat",
    ]


def test_source_addresses(rules: dict[str, list[str]]) -> None:
    translated = "status bitwise neq:00000000 oifname @bridges"
    assert rules["postrouting"] == [
        f"{translated} nfproto eq:02 12+4 @nets4 masq",
        f"{translated} nfproto eq:0a 8+16 @nets6 masq",
        "nfproto eq:02 iifname @snat4 nat",
        "nfproto eq:0a iifname @snat6 nat",
        "nfproto eq:02 iifname @nat4 masq",
        "nfproto eq:0a iifname @nat6 masq",
        "nfproto eq:02 12+1 eq:7f oifname @bridges masq",
    ]


def test_chains() -> None:
    found = {}
    for message in of_kind(NEWCHAIN, nft_chain_msg):
        hook = message.get_attr("NFTA_CHAIN_HOOK")
        found[message.get_attr("NFTA_CHAIN_NAME")] = hook and (
            message.get_attr("NFTA_CHAIN_TYPE"),
            hook.get_attr("NFTA_HOOK_HOOKNUM"),
            hook.get_attr("NFTA_HOOK_PRIORITY"),
        )
    assert found == {
        name: hook and (hook.type, hook.number, hook.priority)
        for name, hook in CHAINS.items()
    }
    assert found["forward"] == ("filter", 2, 0)
    assert found["guard"] == ("filter", 0, -300)


def test_sets() -> None:
    found = of_kind(NEWSET, nft_set_msg)
    assert [it.get_attr("NFTA_SET_NAME") for it in found] == [it.name for it in SETS]
    assert [it.get_attr("NFTA_SET_ID") for it in found] == [*range(1, len(SETS) + 1)]
