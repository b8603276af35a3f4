"""Damage that is noticed while something else goes wrong."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, TypeVar
from unittest.mock import patch

import anyio
import pytest

import cnm
from cnm import Controller, watching
from cnm.firewall import Firewall
from cnm.linux import NETLINK_NETFILTER, NetlinkSocket, delete_link
from cnm.linux.nftables import Batch, commit

from ...conftest import host_links, host_tables

T = TypeVar("T")


def fails_once(function: Callable[..., T]) -> Callable[..., T]:
    """Return a function whose first call fails, as the kernel fails at times."""
    calls: list[object] = []

    def call(*arguments: Any, **keywords: Any) -> T:
        calls.append(arguments)
        if len(calls) == 1:
            raise cnm.KernelError(errno.ENOBUFS, "look at the table")
        return function(*arguments, **keywords)

    return call


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PAUSE", 0.01)


async def test_a_repair_that_fails_is_made_again() -> None:
    async with Controller() as controller:
        network = await controller.create_network("front", options={"name": "br0"})
        for _ in range(2):
            failing = patch.object(Firewall, "check", fails_once(Firewall.check))
            async with controller.subscribe(cnm.DamageFound) as events:
                with failing, anyio.fail_after(10):
                    with NetlinkSocket() as route:
                        route.call(delete_link(network.links[0]))
                    (found,) = (await anext(events)).differences
            assert (found.problem, found.mended) == ("bridge br0 is gone", True)
            assert "br0" in host_links()


async def test_who_repairs_the_table_says_that_it_is_back() -> None:
    async with Controller() as controller:
        # the one who watches does not come to it
        nothing = patch.object(watching.Watcher, "_mend_firewall")
        async with controller.subscribe(cnm.FirewallRebuilt) as events:
            with nothing, anyio.fail_after(10):
                _delete_table()
                (found,) = await controller.repair()
                assert (found.problem, found.mended) == ("it is gone", True)
                await anext(events)
        assert host_tables() == ["cnm"]


def _delete_table() -> None:
    with NetlinkSocket(NETLINK_NETFILTER) as nft:
        batch = Batch("cnm")
        batch.delete_table()
        commit(nft, batch)


@pytest.mark.parametrize("on_damage", ["repair", "report"])
async def test_a_table_that_cannot_be_put_back_at_once(on_damage: Any) -> None:
    async with Controller(on_damage=on_damage) as controller:
        for _ in range(2):
            failing = patch.object(Firewall, "mend", fails_once(Firewall.mend))
            async with controller.subscribe(cnm.FirewallRebuilt) as events:
                with failing, anyio.fail_after(10):
                    _delete_table()
                    await anext(events)
            assert host_tables() == ["cnm"]
