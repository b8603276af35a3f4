"""Exceptions that other firewalls are asked for, with real traffic."""

from __future__ import annotations

import errno
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import pytest

from cnm.errors import NetlinkError
from cnm.firewall import Element, admit, dismiss, foreign, obstacles
from cnm.firewall.ruleset import ANY4, ANY6
from cnm.linux.nftables import (
    ACCEPT,
    DROP,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    RETURN,
    Batch,
    Chain,
    Verdict,
    commit,
    expressions as ex,
    jump,
    list_chains_of_all,
    list_rules_of,
)
from tests.integration.lab import Namespace

from .others import BOTH, add_rules, make_table

if TYPE_CHECKING:
    from .world import World

MARK = "cnm:cnm"


def make_docker(host: Namespace) -> None:
    """Make what dockerd makes, but for its rules on its own networks."""
    for family in BOTH:
        make_table(host, family, "filter", "FORWARD", "DOCKER-USER", "DOCKER-FORWARD")
        add_rules(
            host,
            family,
            "filter",
            "FORWARD",
            ex.verdict(jump("DOCKER-USER")),
            ex.verdict(jump("DOCKER-FORWARD")),
        )


def chain_of(host: Namespace, family: int, name: str) -> Chain:
    (chain,) = (
        it
        for it in list_chains_of_all(host.nft)
        if (it.family, it.table, it.name) == (family, "filter", name)
    )
    return chain


def comments(host: Namespace, family: int, name: str) -> list[tuple[int, str]]:
    rules = list_rules_of(host.nft, chain_of(host, family, name))
    return [(rule.handle, rule.comment) for rule in rules]


def flows(world: World, last: str) -> bool:
    """Whether a network's traffic flows out and in, by both families."""
    number = {"front": 1, "apart": 2}[last]
    probes = (
        (f"{last}2", "192.0.2.2", 99, "tcp"),
        (f"{last}2", "2001:db8::2", 99, "tcp"),
        ("client", "192.0.2.1", 8000 + number, "tcp"),
        ("client", "2001:db8::1", 8000 + number, "tcp"),
    )
    if world.blocked(*probes):
        return False
    assert all(world.ask(*probe) for probe in probes)
    return True


def make_door(host: Namespace, door: str) -> None:
    """Make tables that drop what is forwarded, unless this chain lets it through."""
    if door == "FORWARD":
        for family in BOTH:
            make_table(host, family, "filter", "FORWARD")
    else:
        make_docker(host)


def publish(world: World) -> None:
    for number in (1, 2):
        to4, to6 = IPv4Address(f"10.{number}.0.2"), IPv6Address(f"fd00:{number}::2")
        ports = [
            Element(ANY4, ("tcp", 8000 + number), (to4, 80)),
            Element(ANY6, ("tcp", 8000 + number), (to6, 80)),
        ]
        world.firewall.update(world.host, add=ports)


@pytest.mark.parametrize("ending", [(), (ex.verdict(RETURN),)])
@pytest.mark.parametrize("door", ["DOCKER-USER", "FORWARD"])
def test_what_the_administrator_drops_is_dropped(
    world: World, door: str, ending: tuple[bytes, ...]
) -> None:
    host = world.host
    publish(world)
    make_door(host, door)
    own = ex.named(ex.OUTPUT, "front") + ex.verdict(DROP)
    for family in BOTH:
        add_rules(host, family, "filter", door, own, *ending)
    first = {family: comments(host, family, door)[0][0] for family in BOTH}
    admit(host, MARK, ("front", "apart"))
    assert flows(world, "apart")
    assert not flows(world, "front")

    for family, handle in first.items():
        batch = Batch("filter", family)
        batch.delete_rule(door, handle)
        commit(host.nft, batch)

    assert flows(world, "front")


@pytest.mark.parametrize("door", ["DOCKER-USER", "FORWARD"])
def test_exceptions(world: World, door: str) -> None:
    host = world.host
    publish(world)
    assert flows(world, "front")
    make_door(host, door)
    assert not flows(world, "front")
    assert [it.managed for it in obstacles(host)] == [True, True]

    admit(host, MARK, ("front",))

    assert flows(world, "front")
    assert not flows(world, "apart")

    admit(host, MARK, ("apart",))

    assert not flows(world, "front")
    assert flows(world, "apart")

    dismiss(host, MARK)

    assert not flows(world, "apart")
    assert {it[1] for it in comments(host, NFPROTO_IPV4, "FORWARD")} <= {""}


def test_rules_of_others_stay(host: Namespace) -> None:
    make_docker(host)
    add_rules(host, NFPROTO_IPV4, "filter", "DOCKER-USER", ex.counter())
    theirs = comments(host, NFPROTO_IPV4, "DOCKER-USER")
    admit(host, "cnm:other", ("front",))
    admit(host, "cnm:oth", ("front",))
    admit(host, MARK, ("front", "apart"))
    before = comments(host, NFPROTO_IPV4, "DOCKER-USER")
    ours = [comment for _, comment in before if comment.startswith(f"{MARK} ")]
    assert sorted(ours) == [
        "cnm:cnm from apart",
        "cnm:cnm from front",
        "cnm:cnm to apart",
        "cnm:cnm to front",
    ]
    # a rule for all that is left stays the last one
    assert before[-1:] == theirs

    admit(host, MARK, ("apart", "front"))
    assert comments(host, NFPROTO_IPV4, "DOCKER-USER") == before

    admit(host, MARK, ("front",))
    left = [
        it for it in before if it[1] not in (f"{MARK} from apart", f"{MARK} to apart")
    ]
    assert comments(host, NFPROTO_IPV4, "DOCKER-USER") == left

    dismiss(host, MARK)
    dismiss(host, "cnm:oth")
    dismiss(host, "cnm:nobody")
    left = comments(host, NFPROTO_IPV4, "DOCKER-USER")
    assert [comment for _, comment in left] == [
        "cnm:other from front",
        "cnm:other to front",
        "",
    ]
    assert comments(host, NFPROTO_IPV6, "DOCKER-USER")
    dismiss(host, "cnm:other")
    assert comments(host, NFPROTO_IPV4, "DOCKER-USER") == theirs
    assert comments(host, NFPROTO_IPV6, "DOCKER-USER") == []


@pytest.mark.parametrize(
    ("chains", "policy"),
    [
        (("FORWARD", "ufw-before-forward"), DROP),
        (("FORWARD", "DOCKER-FORWARD"), DROP),
        (("FORWARD",), ACCEPT),
    ],
    ids=["ufw", "docker without DOCKER-USER", "nothing dropped"],
)
def test_chains_that_are_left_alone(
    host: Namespace, chains: tuple[str, ...], policy: Verdict
) -> None:
    make_table(host, NFPROTO_IPV4, "filter", *chains, policy=policy)
    admit(host, MARK, ("front",))
    assert comments(host, NFPROTO_IPV4, "FORWARD") == []


def test_dockerd_comes_later(host: Namespace) -> None:
    make_table(host, NFPROTO_IPV4, "filter", "FORWARD")
    admit(host, MARK, ("front",))
    assert len(comments(host, NFPROTO_IPV4, "FORWARD")) == 2
    batch = Batch("filter", NFPROTO_IPV4)
    batch.add_chain("DOCKER-USER")
    commit(host.nft, batch)
    admit(host, MARK, ("front",))
    assert comments(host, NFPROTO_IPV4, "FORWARD") == []
    assert len(comments(host, NFPROTO_IPV4, "DOCKER-USER")) == 2


def test_rules_are_those_of_iptables(host: Namespace) -> None:
    """As ``iptables -I DOCKER-USER -i front -j ACCEPT`` has the kernel list them."""
    make_docker(host)
    admit(host, MARK, ("front",))
    for rule in list_rules_of(host.nft, chain_of(host, NFPROTO_IPV4, "DOCKER-USER")):
        assert rule.expressions == ("meta", "cmp", "counter", "immediate")
    request = Batch("filter", NFPROTO_IPV4)
    request.insert_rule("DOCKER-USER", ex.named(ex.INPUT, "front"))
    # the name and its zero byte: length 4 + 6, NFTA_DATA_VALUE
    assert b"\x0a\0\x01\0front\0" in request.requests[0].body


@pytest.mark.parametrize("times", [1, 100])
def test_somebody_changes_the_chain_meanwhile(
    host: Namespace, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    make_docker(host)
    left = times

    def list_and_change(nft: object, chain: Chain) -> object:
        nonlocal left
        found = list_rules_of(host.nft, chain)
        if left:
            left -= 1
            add_rules(host, chain.family, "filter", "DOCKER-USER", ex.counter())
        return found

    monkeypatch.setattr(foreign, "list_rules_of", list_and_change)
    if times == 1:
        admit(host, MARK, ("front",))
        assert len(comments(host, NFPROTO_IPV4, "DOCKER-USER")) == 3
    else:
        with pytest.raises(NetlinkError, match="it kept changing") as caught:
            admit(host, MARK, ("front",))
        assert caught.value.errno == errno.ERESTART
