"""Parents of macvlan networks: down, deleted, and there later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

import cnm
from cnm import Controller, DamageFound, SQLiteStore
from cnm.lifecycle import remove_table
from cnm.linux import (
    NetlinkSocket,
    Request,
    add_ifb,
    add_veth,
    delete_link,
    dump_links,
    parse_link,
    set_link,
)
from cnm.parents import links

from ...conftest import host_links
from ..api.traffic import addresses, pair, serving, tcp
from ..lab import Namespace
from .conftest import PARENT
from .test_macvlan import create


async def test_a_parent_that_is_down(controller: Controller) -> None:
    with NetlinkSocket() as route:
        route.call(add_ifb("ifb7"))
        try:
            network = await create(
                controller, options={"parent": "ifb7"}, aux_addresses={}
            )
            one, two = await pair(controller, network)
            assert await controller.check() == ()
            route.call(set_link(name="ifb7", up=True))
            async with serving(two):
                assert await tcp(one, addresses(two, network)[0])
            await network.delete(force=True)
            assert "ifb7" in host_links()
        finally:
            route.call(delete_link(name="ifb7"))


async def test_a_parent_that_is_deleted_is_missed_at_once(lan: Namespace) -> None:
    async with (
        Controller(on_damage="report") as controller,
        controller.subscribe(DamageFound) as events,
    ):
        network = await create(controller)
        await pair(controller, network)
        with NetlinkSocket() as route:
            route.call(delete_link(name=PARENT))
        with anyio.fail_after(30):
            found = (await anext(events)).differences
        assert found[0].problem == "link lan0 is gone"
        await network.delete(force=True)


async def test_a_parent_that_goes_with_its_own_network() -> None:
    options = {"com.docker.network.bridge.name": "br7"}
    async with (
        Controller(on_damage="report") as controller,
        controller.subscribe(DamageFound) as events,
    ):
        carrier = await controller.create_network("carrier", options=options)
        network = await create(controller, options={"parent": "br7"}, aux_addresses={})
        boxes = await pair(controller, network)
        await carrier.delete()
        with anyio.fail_after(30):
            found = (await anext(events)).differences
        assert found[0].subject == network.info
        assert found[0].problem == "link br7 is gone"
        await controller.create_network("carrier", options=options)
        await controller.repair()
        assert await controller.check() == ()
        for box in boxes:
            await box.delete()
        await network.delete()
        await controller.network("carrier").delete()
        with pytest.raises(cnm.InvalidError, match="there is no link 'br7'"):
            await create(controller, options={"parent": "br7"}, aux_addresses={})


async def test_what_is_carried_is_removed_before_what_carries_it() -> None:
    options = {"com.docker.network.bridge.name": "br7"}
    async with AsyncExitStack() as stack:
        async with Controller(on_damage="report") as controller:
            await controller.create_network("carrier", options=options)
            await create(controller, options={"parent": "br7"}, aux_addresses={})
            subscribed = controller.subscribe(cnm.NetworkDeleted)
            events = await stack.enter_async_context(subscribed)
        assert [it.network.name async for it in events] == ["lan", "carrier"]


@pytest.mark.parametrize("name", ["lan0.0", "veth1.0", "veth1.4095", "veth1.50"])
async def test_a_parent_whose_name_looks_like_that_of_a_vlan(
    controller: Controller, lan: Namespace, name: str
) -> None:
    with NetlinkSocket() as route:
        route.call(add_veth(name, "back"), set_link(name=name, up=True))
        route.call(set_link(name="back", up=True))
        try:
            network = await create(
                controller, options={"parent": name}, aux_addresses={}
            )
            one, two = await pair(controller, network)
            async with serving(two):
                assert await tcp(one, addresses(two, network)[0])
            await network.delete(force=True)
            assert name in host_links()
        finally:
            route.call(delete_link(name=name))


@contextmanager
def another_parent() -> Iterator[None]:
    """Have another link of the parent's name while the block lasts."""
    with NetlinkSocket() as route:
        route.call(
            add_veth(PARENT, "back"),
            set_link(name=PARENT, up=True),
            set_link(name="back", up=True),
        )
        try:
            yield
        finally:
            route.call(delete_link(name=PARENT))


async def test_a_parent_that_is_deleted(lan: Namespace) -> None:
    async with Controller(on_damage="report") as controller:
        network = await create(controller)
        one, two = await pair(controller, network)
        with NetlinkSocket() as route:
            route.call(delete_link(name=PARENT))
        problems = [it.problem for it in await controller.check()]
        assert problems[0] == "link lan0 is gone"
        found = await controller.repair()
        assert not any(it.mended for it in found)
        with another_parent():
            problems = [it.problem for it in await controller.check()]
            assert problems[0] == "link lan0 is another one"
            await controller.repair()
            assert [str(it) for it in await controller.check()] == []
            async with serving(two):
                assert await tcp(one, addresses(two, network)[0])
            await network.delete(force=True)


async def test_a_parent_that_comes_later(tmp_path: Path, lan: Namespace) -> None:
    path = tmp_path / "cnm.db"
    async with Controller(store=SQLiteStore(path)) as controller:
        network = await create(controller)
        one, two = await pair(controller, network)
        taken = addresses(two, network)[0]
    with NetlinkSocket() as route:
        route.call(delete_link(name=PARENT))
    async with Controller(store=SQLiteStore(path)) as controller:
        network = controller.network("lan")
        assert "there is no link 'lan0'" in network.fault
        for _ in range(2):
            (still, *_) = await controller.repair()
            assert (still.mended, still.error) == (False, network.fault)
        with another_parent():
            assert [it.error for it in await controller.repair() if it.error] == []
            assert network.fault == ""
            assert [str(it) for it in await controller.check()] == []
            with pytest.raises(cnm.AddressInUse):
                await network.create_endpoint("x", address=taken)
            one, two = controller.sandbox("one"), controller.sandbox("two")
            async with serving(two):
                assert await tcp(one, taken)
            for box in (one, two):
                await box.delete()
            await network.delete()
        await controller._services.kernel.run(remove_table, controller._services)


async def test_nothing_is_left_in_an_adopted_namespace(
    controller: Controller, lan: Namespace
) -> None:
    network = await create(controller)
    with Namespace("container") as container:

        def links() -> list[str]:
            found = container.route.dump(dump_links())
            return [parse_link(it).name for it in found]

        before = links()
        box = await controller.create_sandbox(
            "box", netns=f"/proc/self/fd/{container.netns}"
        )
        endpoint = await network.connect(box)
        assert links() != before
        await endpoint.leave()
        # before the reaper comes
        await box.delete()
        assert links() == before


async def test_a_sub_interface_is_shared_by_networks_of_one_driver_only(
    controller: Controller, lan: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be deleted while the others still need it."""

    def add_link(name: str, *, parent: int, identity: int, index: int) -> Request:
        return add_ifb(name, index=index)  # few kernels lack those

    monkeypatch.setattr(links, "add_vlan", add_link)
    options: dict[str, str] = {"parent": f"{PARENT}.50"}
    first = await controller.create_network("first", "macvlan", options=options)
    with pytest.raises(cnm.ConflictError, match=r"lan0\.50 belongs to 'cnm:cnm:.*'"):
        await controller.create_network("second", "ipvlan", options=options)
    async with Controller("another") as another:
        with pytest.raises(cnm.ConflictError, match=r"lan0\.50 belongs to"):
            await another.create_network("third", "macvlan", options=options)
    assert f"{PARENT}.50" in host_links()
    fourth = await controller.create_network("fourth", "macvlan", options=options)
    await first.delete()
    assert f"{PARENT}.50" in host_links()
    await fourth.delete()
    assert host_links() == sorted(["lo", PARENT])
