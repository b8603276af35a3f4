"""What subscribers hear, and when."""

from __future__ import annotations

import math

import anyio
import pytest

import cnm
from cnm import Controller, MemoryStore
from cnm.linux import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    delete_link,
    get_link,
    parse_link,
)
from cnm.linux.nftables import Batch, commit

from ...conftest import host_links, host_tables
from ..lab import Namespace, until_links


def remove_link(name: str) -> None:
    with NetlinkSocket() as route:
        route.call(delete_link(parse_link(route.call(get_link(name=name))[0]).index))


async def test_one_event_each_in_order(controller: Controller) -> None:
    async with controller.subscribe() as events:
        network = await controller.create_network("front")
        sandbox = await controller.create_sandbox("box")
        endpoint = await network.connect(sandbox)
        await endpoint.leave()
        await endpoint.join(sandbox)
        await sandbox.delete()
        await network.delete()
        heard = [await anext(events) for _ in range(10)]
        with anyio.move_on_after(0.3):
            pytest.fail(f"one more: {await anext(events)!r}")
    assert [event.name for event in heard] == [
        "network.created",
        "sandbox.created",
        "endpoint.created",
        "endpoint.joined",
        "endpoint.left",
        "endpoint.joined",
        "endpoint.left",
        "endpoint.deleted",
        "sandbox.deleted",
        "network.deleted",
    ]
    joined = heard[3]
    assert isinstance(joined, cnm.EndpointJoined)
    assert (joined.endpoint, joined.sandbox, joined.interface) == (
        endpoint.info,
        sandbox.info,
        "eth0",
    )


async def test_types_and_their_bases(controller: Controller) -> None:
    async with (
        controller.subscribe(cnm.EndpointEvent) as endpoints,
        controller.subscribe(cnm.NetworkCreated, cnm.SandboxEvent) as others,
        controller.subscribe(cnm.Event) as everything,
    ):
        network = await controller.create_network("front")
        sandbox = await controller.create_sandbox("box")
        await network.connect(sandbox)
        names = [(await anext(endpoints)).name for _ in range(2)]
        assert names == ["endpoint.created", "endpoint.joined"]
        assert [(await anext(others)).name for _ in range(2)] == [
            "network.created",
            "sandbox.created",
        ]
        assert (await anext(everything)).name == "network.created"


class Watching(MemoryStore):
    """A store whose records can be looked at without waiting."""

    def keys(self) -> set[str]:
        return {key.partition("/")[0] for key in self._records}

    def joined(self) -> list[bool]:
        values = [r.value for k, r in self._records.items() if k.startswith("endpoint")]
        return [value["attachment"] is not None for value in values]


async def test_events_come_after_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Watching()
    seen: dict[str, tuple[set[str], list[bool]]] = {}
    async with Controller(store=store) as controller:
        bus = controller._services.bus
        publish = bus.publish

        def note(event: cnm.Event) -> None:
            seen[event.name] = store.keys(), store.joined()
            publish(event)

        monkeypatch.setattr(bus, "publish", note)
        network = await controller.create_network("front")
        assert seen["network.created"][0] == {"network"}
        sandbox = await controller.create_sandbox("box")
        assert "sandbox" in seen["sandbox.created"][0]
        endpoint = await network.create_endpoint("ep")
        assert seen["endpoint.created"][1] == [False]
        await endpoint.join(sandbox)
        assert seen["endpoint.joined"][1] == [True]
        await endpoint.leave()
        assert seen["endpoint.left"][1] == [False]
        await endpoint.join(sandbox)
        await sandbox.delete()
        assert seen["endpoint.left"] == ({"network"}, [])
        assert seen["endpoint.deleted"] == ({"network"}, [])
        assert seen["sandbox.deleted"] == ({"network"}, [])
        await network.delete()
        assert seen["network.deleted"] == (set(), [])


async def test_too_slow(controller: Controller) -> None:
    async with controller.subscribe(buffer=2) as events:
        for number in range(4):
            await controller.create_sandbox(f"box{number}")
        heard = [await anext(events), await anext(events)]
        assert [e.sandbox.name for e in heard if isinstance(e, cnm.SandboxEvent)] == [
            "box0",
            "box1",
        ]
        for _ in range(2):
            with pytest.raises(cnm.SubscriberTooSlow, match="2 events were waiting"):
                await anext(events)


@pytest.mark.parametrize("wrong", [int, "network.created", None, object])
async def test_wrong_types(controller: Controller, wrong: type) -> None:
    with pytest.raises(cnm.InvalidError, match="expected classes of events"):
        controller.subscribe(wrong)


@pytest.mark.parametrize("wrong", [0, -1, True, "5", math.inf])
async def test_wrong_buffers(controller: Controller, wrong: int) -> None:
    with pytest.raises(cnm.InvalidError, match="buffer: expected at least 1"):
        controller.subscribe(buffer=wrong)


async def test_streams_end_when_the_controller_stops() -> None:
    heard: list[str] = []

    async def listen(controller: Controller, ready: anyio.Event) -> None:
        async with controller.subscribe() as events:
            ready.set()
            heard.extend([event.name async for event in events])

    async with anyio.create_task_group() as tasks, Controller() as controller:
        ready = anyio.Event()
        tasks.start_soon(listen, controller, ready)
        await ready.wait()
        await controller.create_network("front")
    assert heard == ["network.created", "network.deleted", "controller.stopped"]


async def test_removed_links_are_noticed(controller: Controller) -> None:
    network = await controller.create_network("front", options={"name": "br0"})
    sandbox = await controller.create_sandbox("box")
    endpoint = await network.connect(sandbox)
    port = str((await endpoint.inspect())["host_interface"])
    async with controller.subscribe(cnm.LinkRemoved) as events:
        with anyio.fail_after(30):
            remove_link(port)
            gone = await anext(events)
            assert (gone.link, gone.object_id) == (port, endpoint.id)
            remove_link("br0")
            gone = await anext(events)
            assert (gone.link, gone.object_id) == ("br0", network.id)
    await sandbox.delete()
    await network.delete()
    assert controller.networks == ()


async def test_removals_of_our_own_are_no_news(controller: Controller) -> None:
    with Namespace("elsewhere") as elsewhere:
        await _make_and_remove(controller, f"/proc/self/fd/{elsewhere.netns}")


async def _make_and_remove(controller: Controller, netns: str) -> None:
    async with controller.subscribe(cnm.LinkRemoved) as events:
        before = host_links()
        for number in range(3):
            network = await controller.create_network("front")
            adopted = await controller.create_sandbox("adopted", netns=netns)
            sandbox = await controller.create_sandbox("box")
            await network.connect(sandbox)
            endpoint = await network.connect(adopted, name=f"ep{number}")
            await endpoint.leave()
            await endpoint.join(adopted)  # before its old link is gone
            await sandbox.delete()
            await adopted.delete()
            await network.delete()
        await until_links(lambda: host_links() == before)
        with anyio.move_on_after(0.1):
            pytest.fail(f"not removed by others: {await anext(events)!r}")


async def test_the_table_is_rebuilt(controller: Controller) -> None:
    network = await controller.create_network("front")
    async with controller.subscribe(cnm.FirewallRebuilt) as events:
        for _ in range(2):
            with NetlinkSocket(NETLINK_NETFILTER) as nft:
                batch = Batch("cnm")
                batch.delete_table()
                commit(nft, batch)
            with anyio.fail_after(30):
                assert (await anext(events)).controller == "cnm"
            assert host_tables() == ["cnm"]
    await network.delete()
