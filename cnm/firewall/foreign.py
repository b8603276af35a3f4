"""Other firewalls of the host.

What one base chain of a hook accepts, the next may still drop: a table of cnm cannot
get packets past somebody else's. All that can be done is to find out who drops them,
and to ask for an exception where others are meant to.
"""

from __future__ import annotations

import errno
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from ..errors import NetlinkError
from ..linux.nftables import (
    ACCEPT,
    DROP,
    FORWARD,
    INET,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    Batch,
    commit,
    expressions as ex,
    generation,
    list_chains_of_all,
    list_rules_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..linux.netlink import NetlinkSocket
    from ..linux.nftables import Chain
    from .table import NftSockets

Owner: TypeAlias = Literal["docker", "ufw", "firewalld", "iptables", "nftables"]
Family: TypeAlias = Literal["ip", "ip6", "inet"]

_FAMILIES: dict[int, Family] = {INET: "inet", NFPROTO_IPV4: "ip", NFPROTO_IPV6: "ip6"}
_PROGRAMS = {NFPROTO_IPV4: "iptables", NFPROTO_IPV6: "ip6tables"}
# iptables' names, and those that dockerd gives
_FILTER = "filter"
_FORWARD = "FORWARD"
_DOCKER_USER = "DOCKER-USER"
_DOCKER_FORWARD = "DOCKER-FORWARD"
# The tables of iptables-legacy, if the kernel has them.
_LEGACY = {
    NFPROTO_IPV4: "/proc/thread-self/net/ip_tables_names",
    NFPROTO_IPV6: "/proc/thread-self/net/ip6_tables_names",
}
# The expressions of rules that ask for nothing, with a verdict or iptables' REJECT.
_UNCONDITIONAL = frozenset({"counter", "immediate", "reject", "target"})
# How often somebody else may change tables while a chain is being read and changed.
_ATTEMPTS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Obstacle:
    """A chain of somebody else's that may drop what is forwarded to and from bridges.

    :ivar family: the family of its table
    :ivar table: the name of its table
    :ivar chain: its name
    :ivar owner: which program it seems to belong to
    :ivar problem: what it does
    :ivar advice: what the administrator can do about it
    :ivar managed: whether :func:`admit` gets packets past it
    """

    family: Family
    table: str
    chain: str
    owner: Owner
    problem: str
    advice: str
    managed: bool = False

    @property
    def subject(self) -> str:
        """What it is, in words."""
        return f"chain {self.chain} of table {self.family} {self.table} ({self.owner})"


def obstacles(sockets: NftSockets) -> list[Obstacle]:
    """Plan: find the chains of others that may drop forwarded packets.

    These are the chains whose policy is to drop, and those of firewalld that reject
    what no zone lets through. That a table of iptables-legacy is there is told, too:
    what is in it cannot be read by netlink.

    :raises MissingFeature: if the kernel has no nf_tables
    """
    found = [
        _obstacle(chain, chains, problem)
        for chains in _tables(sockets.nft).values()
        for chain in chains.values()
        if chain.hook == FORWARD and chain.family in _FAMILIES
        if (problem := _problem(sockets.nft, chain))
    ]
    return [*found, *_legacy()]


def admit(sockets: NftSockets, mark: str, interfaces: Iterable[str]) -> None:
    """Plan: have iptables let through what comes from interfaces, and goes to them.

    The rules are put at the end of DOCKER-USER, which dockerd leaves to others: what
    the administrator drops there is still dropped. Where there is no dockerd, but
    FORWARD drops by default, they are put there, unless it is ufw's. Rules of the mark
    for any other interface go.

    :param mark: what is in the comments of the rules: whose they are
    :raises NetlinkError: if the kernel refuses the rules
    """
    wanted = tuple(interfaces)
    for family in _PROGRAMS:
        _admit(sockets.nft, family, mark, wanted)


def dismiss(sockets: NftSockets, mark: str) -> None:
    """Plan: remove all rules of a mark that :func:`admit` has made."""
    admit(sockets, mark, ())


def _tables(nft: NetlinkSocket) -> dict[tuple[int, str], dict[str, Chain]]:
    """Return the chains of each table by name."""
    tables: dict[tuple[int, str], dict[str, Chain]] = defaultdict(dict)
    for chain in list_chains_of_all(nft):
        tables[chain.family, chain.table][chain.name] = chain
    return tables


def _problem(nft: NetlinkSocket, chain: Chain) -> str:
    if chain.policy == DROP.code:
        return "drops forwarded packets by default"
    if chain.table == "firewalld":
        rules = list_rules_of(nft, chain)
        if rules and rules[-1].expressions[-1:] == ("reject",):
            return "rejects forwarded packets that no zone lets through"
    return ""


def _owner(chain: Chain, names: Iterable[str]) -> Owner:
    """Return whose table a chain is in, going by the names of all its chains."""
    if any(name in (_DOCKER_USER, _DOCKER_FORWARD) for name in names):
        return "docker"
    if any(name.startswith(("ufw-", "ufw6-")) for name in names):
        return "ufw"
    if chain.table == "firewalld":
        return "firewalld"
    if chain.family in _PROGRAMS and (chain.table, chain.name) == (_FILTER, _FORWARD):
        return "iptables"
    return "nftables"


def _obstacle(chain: Chain, chains: dict[str, Chain], problem: str) -> Obstacle:
    owner = _owner(chain, chains)
    is_filter = chain.family in _PROGRAMS and chain.table == _FILTER
    managed = is_filter and bool(_door(chains))
    return Obstacle(
        family=_FAMILIES[chain.family],
        table=chain.table,
        chain=chain.name,
        owner=owner,
        problem=problem,
        advice=_advice(chain, owner, _door(chains) if managed else ""),
        managed=managed,
    )


def _advice(chain: Chain, owner: Owner, door: str) -> str:
    if owner == "ufw":
        commands = [f"ufw route allow {way} on br-..." for way in ("in", "out")]
    elif owner == "firewalld":
        commands = [
            "firewall-cmd --permanent --zone=trusted --add-interface=br-...",
            "firewall-cmd --reload",
        ]
    elif owner in ("docker", "iptables") and chain.family in _PROGRAMS:
        commands = _iptables(_PROGRAMS[chain.family], door or chain.name)
    else:
        place = f"{_FAMILIES[chain.family]} {chain.table} {chain.name}"
        commands = [
            f'nft insert rule {place} {way}ifname "br-..." accept' for way in "io"
        ]
    by_hand = " and ".join(f"`{command}`" for command in commands)
    if door:
        return f"Start the controller with manage_forward=True, or run {by_hand}."
    return f"Run {by_hand}."


def _iptables(program: str, chain: str) -> list[str]:
    return [f"{program} -I {chain} -{way} br-... -j ACCEPT" for way in "io"]


def _legacy() -> Iterator[Obstacle]:
    for family, path in _LEGACY.items():
        try:
            with open(path, encoding="ascii") as file:
                tables = file.read().split()
        except FileNotFoundError:
            continue
        if _FILTER in tables:
            program = f"{_PROGRAMS[family]}-legacy"
            one, other = _iptables(program, _FORWARD)
            yield Obstacle(
                family=_FAMILIES[family],
                table=_FILTER,
                chain=_FORWARD,
                owner="iptables",
                problem=f"belongs to {program}, and cannot be read",
                advice=f"Run `{program} -S {_FORWARD}`; if it begins with "
                f"`-P {_FORWARD} DROP`, run `{one}` and `{other}`.",
            )


def _door(chains: dict[str, Chain]) -> str:
    """Return the chain of a table ``filter`` that our rules belong into, or ``""``."""
    if _DOCKER_USER in chains:
        return _DOCKER_USER
    forward = chains.get(_FORWARD)
    if forward is None or forward.policy != DROP.code:
        return ""
    return _FORWARD if _owner(forward, chains) == "iptables" else ""


def _admit(
    nft: NetlinkSocket, family: int, mark: str, interfaces: tuple[str, ...]
) -> None:
    for _ in range(_ATTEMPTS):
        before = generation(nft)
        chains = _tables(nft).get((family, _FILTER), {})
        batch = Batch(_FILTER, family)
        for name in (_DOCKER_USER, _FORWARD):
            if name in chains:
                here = interfaces if name == _door(chains) else ()
                _settle(nft, batch, chains[name], mark, here)
        try:
            commit(nft, batch, generation=before)
        except NetlinkError as exc:
            if exc.errno != errno.ERESTART:
                raise
        else:
            return
    raise NetlinkError(errno.ERESTART, f"change table {_FILTER}", "it kept changing")


def _settle(
    nft: NetlinkSocket,
    batch: Batch,
    chain: Chain,
    mark: str,
    interfaces: tuple[str, ...],
) -> None:
    """Have a chain get the rules that it lacks, and lose those that are stale."""
    missing = {
        f"{mark} {way} {name}": ex.named(field, name)
        for name in interfaces
        for way, field in (("from", ex.INPUT), ("to", ex.OUTPUT))
    }
    rules = list_rules_of(nft, chain)
    for rule in rules:
        if not rule.comment.startswith(f"{mark} "):
            continue
        if missing.pop(rule.comment, None) is None:
            batch.delete_rule(chain.name, rule.handle)
    # What the administrator has in the chain comes first, but for a last rule for all
    # that is left: RETURN, as dockerd had it in DOCKER-USER, or REJECT.
    last = rules[-1] if rules else None
    if last is not None and not _UNCONDITIONAL.issuperset(last.expressions):
        last = None
    accept = ex.counter() + ex.verdict(ACCEPT)
    for comment, matches in missing.items():
        if last is None:
            batch.add_rule(chain.name, matches, accept, comment=comment)
        else:
            batch.insert_rule(
                chain.name, matches, accept, before=last.handle, comment=comment
            )
