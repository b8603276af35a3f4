"""What keeps packets out: taken away, to see that they pass without it, and put back.

Not by way of a firewall's own methods, so that this works beside a running controller.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cnm.linux import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    add_address,
    add_route,
    delete_address,
    delete_route,
    get_link,
    parse_link,
    set_bridge_port,
)
from cnm.linux.nftables import INET, Batch, Chain, commit, list_rules, list_rules_of
from cnm.linux.nftables.batch import NFTA_RULE_EXPRESSIONS
from cnm.linux.wire import attributes
from tests.integration.lab import Closing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cnm.firewall import Element
    from cnm.linux import Request
    from cnm.types import IPAddress, IPInterface, IPNetwork

TABLE = "cnm"
#: Which rule of the chain ``publish`` leaves alone what is sent to other hosts.
ELSEWHERE = 2


class Sockets(Protocol):
    """Netlink sockets in the namespace of the host."""

    @property
    def route(self) -> NetlinkSocket: ...

    @property
    def nft(self) -> NetlinkSocket: ...


class Host(Closing):
    """Netlink sockets in the namespace that the tests themselves, and cnm, are in."""

    def __init__(self) -> None:
        self.route = NetlinkSocket()
        self.nft = NetlinkSocket(NETLINK_NETFILTER)

    def close(self) -> None:
        """Close the sockets."""
        self.route.close()
        self.nft.close()

    def index(self, name: str) -> int:
        """Return the index of a link."""
        return parse_link(self.route.call(get_link(name=name))[0]).index


@dataclass(frozen=True, kw_only=True, slots=True)
class Barrier:
    """Something that keeps packets out.

    :ivar what: its name, for those who read that it has not
    :ivar open: takes it away
    :ivar shut: puts it back
    """

    what: str
    open: Callable[[], None]
    shut: Callable[[], None]


@contextmanager
def without(*barriers: Barrier) -> Iterator[None]:
    """Take barriers away for a while."""
    for barrier in barriers:
        barrier.open()
    try:
        yield
    finally:
        for barrier in barriers:
            barrier.shut()


def all_but_one(barriers: tuple[Barrier, ...]) -> Iterator[str]:
    """Take away all barriers but one, each in its turn; yield what is left."""
    for left in barriers:
        with without(*(it for it in barriers if it is not left)):
            yield left.what


def entries(sockets: Sockets, *elements: Element) -> Barrier:
    """Return elements of the table's sets and maps."""

    def change(add: bool) -> None:
        batch = Batch(TABLE)
        (batch.add_elements if add else batch.delete_elements)(elements)
        commit(sockets.nft, batch)

    names = ", ".join(f"{it.set.name} {it.key}" for it in elements)
    return Barrier(what=names, open=lambda: change(False), shut=lambda: change(True))


def rule(sockets: Sockets, chain: str, number: int = -1) -> Barrier:
    """Return a rule of one of the table's chains.

    :param number: its place in the chain
    """
    there = list_rules(sockets.nft, TABLE, chain)
    expressions = attributes(there[number].body)[NFTA_RULE_EXPRESSIONS]
    number %= len(there)

    def handles() -> list[int]:
        listed = Chain(family=INET, table=TABLE, name=chain, hook=None, policy=None)
        return [it.handle for it in list_rules_of(sockets.nft, listed)]

    def take_away() -> None:
        batch = Batch(TABLE)
        batch.delete_rule(chain, handles()[number])
        commit(sockets.nft, batch)

    def put_back() -> None:
        batch = Batch(TABLE)
        if following := handles()[number:]:
            batch.insert_rule(chain, expressions, before=following[0])
        else:
            batch.add_rule(chain, expressions)
        commit(sockets.nft, batch)

    return Barrier(what=f"rule {number} of {chain}", open=take_away, shut=put_back)


def isolation(sockets: Sockets, *ports: int) -> Barrier:
    """Return the isolation of ports of a bridge, by their indexes."""

    def change(isolated: bool) -> None:
        changes = (set_bridge_port(index, isolated=isolated) for index in ports)
        sockets.route.call(*changes)

    return Barrier(
        what=f"isolation of ports {ports}",
        open=lambda: change(False),
        shut=lambda: change(True),
    )


def no_routes(sockets: Sockets, *routes: tuple[IPNetwork | None, IPAddress]) -> Barrier:
    """Return that a namespace has no routes; None is for the default route.

    :param sockets: netlink sockets in that namespace
    :param routes: destinations, and the next hops
    """

    def change(of: Callable[..., Request]) -> None:
        sockets.route.call(*(of(to, via=via) for to, via in routes))

    return Barrier(
        what=f"no routes {routes}",
        open=lambda: change(add_route),
        shut=lambda: change(delete_route),
    )


def no_address(sockets: Sockets, index: int, address: IPInterface) -> Barrier:
    """Return that a link does not have an address."""

    def change(of: Callable[..., Request]) -> None:
        sockets.route.call(of(index, address))

    return Barrier(
        what=f"no address {address}",
        open=lambda: change(add_address),
        shut=lambda: change(delete_address),
    )
