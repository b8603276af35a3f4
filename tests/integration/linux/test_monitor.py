from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import aclosing
from ipaddress import IPv4Interface

import anyio
import pytest

from cnm.errors import MissingCapability
from cnm.firewall import Element, Firewall
from cnm.firewall.ruleset import BRIDGES
from cnm.linux import (
    REAP_GROUP,
    LinkDown,
    LinkGone,
    Monitor,
    Overrun,
    PortGone,
    RouteGone,
    TableChanged,
    TableGone,
    add_address,
    add_bridge,
    add_veth,
    delete_address,
    delete_link,
    set_link,
)
from tests.integration.lab import Namespace

pytestmark = pytest.mark.anyio


@pytest.fixture
def host() -> Iterator[Namespace]:
    with Namespace("host") as namespace:
        yield namespace


@pytest.fixture
def monitor(host: Namespace) -> Iterator[Monitor]:
    with host.run(Monitor) as made:
        yield made


async def changes(
    monitor: Monitor,
    count: int,
    cause: Callable[[], None],
    *also: type[LinkDown] | type[RouteGone] | type[TableChanged],
) -> list[object]:
    """Return the next changes, while something causes them.

    :param also: what is of interest, too; every link has routes for IPv6, and is set
        down when it is deleted
    """
    ignored = tuple({LinkDown, RouteGone, TableChanged} - set(also))
    found: list[object] = []
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, cause)
            async with aclosing(monitor.watch()) as watching:
                async for change in watching:
                    if isinstance(change, ignored):
                        continue
                    found.append(change)
                    if len(found) == count:
                        break
    return found


async def test_what_is_deleted_from_a_table(host: Namespace, monitor: Monitor) -> None:
    firewall = Firewall("cnm")
    element = Element(BRIDGES, ("br0",))
    host.run(lambda: firewall.rebuild(host))

    def cause() -> None:
        firewall.update(host, add=[element])
        firewall.update(host, remove=[element])

    found = await changes(monitor, 1, cause, TableChanged)
    assert found == [TableChanged("cnm", host.nft.port)]
    assert firewall.has_changed_by(host.nft.port)
    assert not firewall.has_changed_by(host.nft.port + 1)


async def test_links(host: Namespace, monitor: Monitor) -> None:
    def cause() -> None:
        host.route.call(
            add_bridge("br0", index=40),
            set_link(40, alias="cnm/net"),
            add_veth("v0", "v1", index=41, peer_index=42),
            delete_link(40),
        )

    assert await changes(monitor, 1, cause) == [LinkGone(40, "br0", "cnm/net")]

    def pair() -> None:
        host.route.call(delete_link(41))

    gone = await changes(monitor, 2, pair)
    assert set(gone) == {LinkGone(41, "v0", ""), LinkGone(42, "v1", "")}


async def test_links_that_are_set_down_or_taken_off(
    host: Namespace, monitor: Monitor
) -> None:
    def cause() -> None:
        host.route.call(
            add_bridge("br0", index=40, up=True),
            add_veth("v0", "v1", index=41, peer_index=42, master=40, up=True),
            set_link(41, alias="cnm:x:1"),
            set_link(41, master=0),
            set_link(41, master=40),
            set_link(41, up=False),
        )

    found = await changes(monitor, 2, cause, LinkDown)
    assert found == [PortGone(41, 40), LinkDown(41, "v0", "cnm:x:1")]


async def test_joins_and_leaves_wake_nobody(host: Namespace, monitor: Monitor) -> None:
    """What a join and a leave do to links, up to the reaper's deletion."""

    def cause() -> None:
        host.route.call(
            add_bridge("br0", index=40, up=True),
            add_veth("v0", "v1", index=41, peer_index=42, master=40, up=True),
            set_link(41, alias="cnm:x:1", address_generation="none", up=True),
            set_link(41, up=False, group=REAP_GROUP),
            delete_link(group=REAP_GROUP),
        )

    # what has been put into the group is not told of, its other end is
    found = await changes(monitor, 1, cause, LinkDown)
    assert found == [LinkGone(42, "v1", "")]


async def test_routes(host: Namespace, monitor: Monitor) -> None:
    def cause() -> None:
        host.route.call(
            add_bridge("br0", index=40, up=True),
            add_address(40, IPv4Interface("10.9.0.1/24")),
            delete_address(40, IPv4Interface("10.9.0.1/24")),
        )

    assert await changes(monitor, 1, cause, RouteGone) == [RouteGone(40)]


async def test_a_link_that_moves_is_gone(host: Namespace, monitor: Monitor) -> None:
    with Namespace("elsewhere") as elsewhere:

        def cause() -> None:
            host.route.call(add_bridge("br0", index=40))
            host.route.call(add_veth("v0", "v1", index=41))
            host.route.call(set_link(41, netns=elsewhere.netns))

        assert await changes(monitor, 1, cause) == [LinkGone(41, "v0", "")]


async def test_own_changes_of_tables_wake_nobody(
    host: Namespace, monitor: Monitor
) -> None:
    with Namespace("again", f"/proc/self/fd/{host.netns}") as other:
        monitor.disregard(host.nft.port)
        for port in range(1000, 1100):  # threads that are gone
            monitor.disregard(port)
        monitor.disregard(host.nft.port)

        def cause() -> None:
            ours = Firewall("cnm")
            ours.rebuild(host)
            ours.remove(host)
            Firewall("theirs").rebuild(other)
            Firewall("theirs").remove(other)

        assert await changes(monitor, 1, cause) == [TableGone("theirs")]


async def test_tables(host: Namespace, monitor: Monitor) -> None:
    ours, theirs = Firewall("cnm"), Firewall("theirs")

    def cause() -> None:
        ours.rebuild(host)
        theirs.rebuild(host)
        # deleted and made again in one transaction: never gone
        ours.rebuild(host)
        theirs.remove(host)
        ours.rebuild(host)
        ours.remove(host)

    assert await changes(monitor, 2, cause) == [TableGone("theirs"), TableGone("cnm")]


async def test_nothing_is_missed_before_watching(
    host: Namespace, monitor: Monitor
) -> None:
    host.route.call(add_bridge("br0", index=40), delete_link(40))
    found = await changes(monitor, 1, lambda: None)
    assert found == [LinkGone(40, "br0", "")]


async def test_an_overrun_is_reported(host: Namespace, monitor: Monitor) -> None:
    for watching in monitor._sockets:
        watching._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)

    for number in range(20):
        host.route.call(add_veth(f"v{number}", f"w{number}", group=1))
    host.route.call(add_bridge("br0", index=4000), delete_link(group=1))
    assert await changes(monitor, 1, lambda: None) == [Overrun()]
    host.route.call(delete_link(4000))
    assert await changes(monitor, 1, lambda: None) == [LinkGone(4000, "br0", "")]


async def test_closing_lets_go_of_everything(host: Namespace) -> None:
    monitor = host.run(Monitor)
    watched = list(monitor._sockets)
    monitor.close()
    monitor.close()
    assert {it.fileno() for it in watched} == {-1}


async def test_watching_tables_needs_a_capability(host: Namespace) -> None:
    from tests.integration.linux.test_kernel_objects import without_capabilities

    with pytest.raises(MissingCapability, match="CAP_NET_ADMIN"):
        host.run(lambda: without_capabilities(lambda: Monitor().close()))
