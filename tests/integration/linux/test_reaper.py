"""What is deleted when it has left its network, and what is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.to_thread
import pytest

from cnm.linux import (
    REAP_GROUP,
    REAP_SINGLY_GROUP,
    Kernel,
    NetlinkSocket,
    add_bridge,
    add_veth,
    choose_index,
    delete_link,
    dump_links,
    parse_link,
    set_link,
)
from cnm.linux.reaper import Reaper, delete_links
from tests.integration.lab import until_links

#: More than the reaper deletes at a time.
BRIDGES = 6
FOREIGN = ["foreign", "others", "port"]


@pytest.fixture
def route() -> Iterator[NetlinkSocket]:
    with NetlinkSocket() as socket:
        yield socket


@pytest.fixture
async def reaper() -> AsyncIterator[Reaper]:
    async with Kernel() as kernel:
        yield Reaper(kernel, delay=0.01)


@pytest.fixture
def buried(route: NetlinkSocket) -> Iterator[list[int]]:
    """Links to be deleted, between somebody else's; the bridges among them."""
    route.call(add_bridge("foreign", group=7), add_veth("port", "others"))
    route.call(set_link(name="port", group=REAP_SINGLY_GROUP + 1))
    bridges = [choose_index() for _ in range(BRIDGES)]
    for index in bridges:
        made = add_bridge(f"b{index}", index=index, group=REAP_SINGLY_GROUP)
        route.call(made, add_veth(f"v{index}", f"w{index}", group=REAP_GROUP))
    yield bridges
    route.call(delete_link(name="foreign"), delete_link(name="port"))


def left() -> list[str]:
    with NetlinkSocket() as route:
        names = (parse_link(link).name for link in route.dump(dump_links()))
        return sorted(name for name in names if name != "lo")


async def all_are_gone() -> None:
    await until_links(lambda: left() == FOREIGN)


async def test_all_are_gone_at_once(reaper: Reaper, buried: list[int]) -> None:
    reaper.want(singly=True)
    await reaper.reap()
    assert left() == FOREIGN


async def test_bridges_only_when_there_are_some(
    reaper: Reaper, buried: list[int]
) -> None:
    await reaper.reap()
    assert left() == sorted([*FOREIGN, *(f"b{index}" for index in buried)])
    reaper.want(singly=True)
    await reaper.reap()
    assert left() == FOREIGN


async def test_those_that_are_named(buried: list[int], route: NetlinkSocket) -> None:
    """What is in a group already goes with them; one that is gone is no error."""
    links = [parse_link(link) for link in route.dump(dump_links())]
    # the loopback, too: it cannot be deleted
    strays = [link for link in links if link.name not in FOREIGN]
    route.call(delete_link(buried[0]), delete_link(name=f"v{buried[1]}"))
    async with Kernel() as kernel:
        await kernel.run(delete_links, strays)
        assert left() == FOREIGN
        await kernel.run(delete_links, strays)
    assert left() == FOREIGN


async def test_others_delete_some_meanwhile(
    reaper: Reaper, buried: list[int], route: NetlinkSocket
) -> None:
    async with anyio.create_task_group() as tasks:
        reaper.want(singly=True)
        tasks.start_soon(reaper.run)
        tasks.start_soon(reaper.reap)
        await anyio.to_thread.run_sync(route.call, delete_link(buried[-1]))
        await all_are_gone()
        tasks.cancel_scope.cancel()


async def test_all_go_in_the_background(reaper: Reaper, buried: list[int]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reaper.run)
        reaper.want(singly=True)
        await all_are_gone()
        tasks.cancel_scope.cancel()
