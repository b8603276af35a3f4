"""What is found when a controller starts, and what becomes of it."""

# ruff: noqa: SIM117 - tests nest what they wait for

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Interface
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

import cnm
from cnm import Controller, SQLiteStore
from cnm.driver import (
    AddressReleased,
    EndpointUnpublished,
    Pool,
    PoolReleased,
    PoolRequested,
    PublishInfo,
    hookimpl,
)
from cnm.ipam.default import DefaultIPAM
from cnm.linux import NetlinkSocket, delete_link, get_link, namespaces, parse_link
from cnm.store import Delete, Put

from ...conftest import host_links
from .fakes import FakeDriver
from .test_restore import remove_all
from .traffic import serving, tcp

SUBNET = "10.9.0.0/24"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


class KeepingIPAM(DefaultIPAM):
    """Notes what is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released: list[tuple[str, object]] = []

    @hookimpl
    async def cnm_pool_requested(self, event: PoolRequested) -> Pool:
        self._pools.release(event.network_id, f"local/{event.subnet}")
        return await super().cnm_pool_requested(event)

    @hookimpl
    async def cnm_pool_released(self, event: PoolReleased) -> None:
        self.released.append((event.network_id, event.pool_id))

    @hookimpl
    async def cnm_address_released(self, event: AddressReleased) -> None:
        interface = IPv4Interface((event.address, 24))
        self.released.append((event.owner, interface))


class Deaf(FakeDriver):
    """Takes back what it publishes, and cannot listen when that is done."""

    deaf = True

    @hookimpl
    async def cnm_endpoint_unpublished(self, event: EndpointUnpublished) -> PublishInfo:
        return PublishInfo(plan=lambda sockets: (), done=self._listen)

    def _listen(self) -> None:
        if self.deaf:
            raise KeyError("deaf")


def delete(name: str) -> None:
    with NetlinkSocket() as route:
        route.call(delete_link(parse_link(route.call(get_link(name=name))[0]).index))


@asynccontextmanager
async def edited(path: Path) -> AsyncIterator[SQLiteStore]:
    """A store between two controllers."""
    store = SQLiteStore(path)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def test_all_is_kept(path: Path) -> None:
    async with Controller(store=SQLiteStore(path)) as controller:
        assert controller.restored.entries == ()
        network = await controller.create_network("front", subnets=[SUBNET])
        box = await controller.create_sandbox("box")
        endpoint = await network.connect(box)
        infos = [box.info, network.info, endpoint.info]
    async with Controller(store=SQLiteStore(path)) as controller:
        report = controller.restored
        assert [entry.subject for entry in report.entries] == infos
        assert report.counts == {"kept": 3}
        assert report.of("kept") == report.entries
        assert 0 < report.seconds < 60
        assert await controller.check() == ()
    await remove_all(path)


async def test_a_bridge_and_its_ports_are_made_again(path: Path) -> None:
    async with Controller(store=SQLiteStore(path)) as controller:
        network = await controller.create_network(
            "front", subnets=[SUBNET, "fd00:9::/64"], options={"name": "br0"}
        )
        one = await controller.create_sandbox("one")
        two = await controller.create_sandbox("two")
        await network.connect(one)
        await network.connect(two)
    delete("br0")  # the ports stay, and are ports no more
    async with Controller(store=SQLiteStore(path)) as controller:
        one, two = controller.sandbox("one"), controller.sandbox("two")
        assert await controller.check() == ()
        async with serving(one, two):
            assert await tcp(one, "10.9.0.3") == "10.9.0.2"
            assert await tcp(two, "10.9.0.2") == "10.9.0.3"
            assert await tcp(two, "fd00:9::2") == "fd00:9::3"
            async with await anyio.connect_tcp("10.9.0.2", 80) as stream:
                assert await stream.receive() == b"10.9.0.1"
    await remove_all(path)


async def test_an_interface_is_made_again(path: Path) -> None:
    async with Controller(store=SQLiteStore(path)) as controller:
        front = await controller.create_network("front", subnets=[SUBNET])
        back = await controller.create_network("back", subnets=["10.10.0.0/24"])
        one = await controller.create_sandbox("one")
        two = await controller.create_sandbox("two")
        endpoint = await front.connect(one, gateway_priority=1, aliases=["first"])
        await back.connect(one)
        await front.connect(two)
        mac = endpoint.mac
    delete(f"veth{endpoint.id[:11]}")
    async with Controller(store=SQLiteStore(path)) as controller:
        (remade,) = controller.restored.of("remade")
        assert isinstance(remade.subject, cnm.EndpointInfo)
        assert remade.subject.name == "one"
        assert "eth0" in remade.detail
        one, two = controller.sandbox("one"), controller.sandbox("two")
        endpoint = controller.network("front").endpoint("one")
        assert (endpoint.interface, endpoint.mac) == ("eth0", mac)
        assert one.endpoints[0] is endpoint
        assert one.gateways[4] is endpoint
        assert await controller.check() == ()
        async with serving(one, two):
            assert await tcp(two, "10.9.0.2") == "10.9.0.3"
            assert await tcp(one, "10.9.0.3") == "10.9.0.2"
            found = await two.run(["getent", "ahostsv4", "first"])
            assert b"10.9.0.2" in found.stdout
    await remove_all(path)


async def test_a_lost_sandbox_is_dropped(path: Path) -> None:
    async with Controller(store=SQLiteStore(path)) as controller:
        network = await controller.create_network("front", subnets=[SUBNET])
        box = await controller.create_sandbox("box")
        await network.connect(box, ports=["8080:80"])
    await anyio.to_thread.run_sync(namespaces.unpin, box.key)
    async with Controller(store=SQLiteStore(path)) as controller:
        report = controller.restored
        assert [it.subject for it in report.of("dropped")] == [box.info]
        (detached,) = report.of("detached")
        assert detached.detail == "its sandbox is gone"
        assert controller.network("front").endpoint("box").ports == ()
    async with Controller(store=SQLiteStore(path)) as controller:
        assert controller.restored.counts == {"kept": 2}
    await remove_all(path)


async def test_a_network_that_fails_does_not_stop_others(path: Path) -> None:
    fake = FakeDriver()
    async with Controller(
        store=SQLiteStore(path), drivers={"fake": fake}
    ) as controller:
        broken = await controller.create_network("broken", "fake", subnets=[SUBNET])
        await broken.create_endpoint("spare")
        await controller.create_network("front", subnets=["10.10.0.0/24"])
    async with Controller(store=SQLiteStore(path)) as controller:
        (failed,) = controller.restored.of("failed")[:1]
        assert "'fake'" in failed.detail
        broken = controller.network("broken")
        assert "'fake'" in broken.fault
        assert [endpoint.name for endpoint in broken.endpoints] == ["spare"]
        with pytest.raises(cnm.UnavailableError, match="could not be restored"):
            await broken.create_endpoint("more")
        box = await controller.create_sandbox("box")
        with pytest.raises(cnm.UnavailableError, match="could not be restored"):
            await broken.endpoint("spare").join(box)
        await controller.network("front").connect(box)
        assert [it.subject for it in await controller.check()] == [broken.info]
        (still,) = await controller.repair()
        assert (still.mended, bool(still.error)) == (False, True)
        with pytest.raises(cnm.TeardownError):
            await broken.delete(force=True)
        assert [network.name for network in controller.networks] == ["front"]
    await remove_all(path)


async def test_what_was_being_made_is_undone(path: Path) -> None:
    fake = FakeDriver()
    keeper = KeepingIPAM()

    def controller() -> Controller:
        return Controller(
            store=SQLiteStore(path),
            drivers={"fake": fake},
            ipam_drivers={"keeping": keeper},
        )

    async with controller() as running:
        network = await running.create_network(
            "net", "fake", subnets=[SUBNET], ipam="keeping"
        )
        box = await running.create_sandbox("box")
        endpoint = await network.create_endpoint("ep")
        other = await network.create_endpoint("other")
    async with edited(path) as store:
        records = {it.key: it.value for it in await store.scan("")}
        net = dict(records[f"network/{network.id}"])
        ep = records[f"endpoint/{other.id}"]
        join: dict[str, cnm.types.JSON] = {"sandbox": box.id, "interface": "eth0"}
        intents: dict[str, dict[str, cnm.types.JSON]] = {
            f"{'1' * 64}/network.create": {"network": {**net, "id": "1" * 64}},
            f"{other.id}/endpoint.create": {"endpoint": ep},
            f"{endpoint.id}/endpoint.join": join,
        }
        for key, value in intents.items():
            identity, _, deed = key.partition("/")
            value |= {"deed": deed, "object": identity}
            await store.transaction(Put(f"intent/{key}", value))
        await store.transaction(Delete(f"endpoint/{other.id}"))
    fake.calls.clear()
    keeper.released.clear()
    async with controller() as running:
        undone = {str(entry.subject) for entry in running.restored.of("undone")}
        assert len(undone) == 3
        # things of one network are undone in order
        fake.calls.remove("network.deleted")
        assert fake.calls == ["endpoint.deleted", "endpoint.left"]
        # what a driver remembers on its own is given back
        pool = network.info.ipam_data[0].pool_id
        expected = {("1" * 64, pool), (other.id, other.address)}
        assert set(keeper.released) == expected
        assert await running._services.store.scan("intent/") == ()
        network = running.network("net")
        assert [each.name for each in network.endpoints] == ["ep"]
        await network.delete(force=True)
        await running.sandbox("box").delete()
    await remove_all(path)


async def test_all_that_fails_when_a_join_is_undone_is_reported(path: Path) -> None:
    slow = Deaf()

    def controller() -> Controller:
        return Controller(store=SQLiteStore(path), drivers={"slow": slow})

    async with controller() as running:
        network = await running.create_network("net", "slow", subnets=[SUBNET])
        box = await running.create_sandbox("box")
        endpoint = await network.create_endpoint("ep")
    async with edited(path) as store:
        intent: dict[str, cnm.types.JSON] = {
            "deed": "endpoint.join",
            "object": endpoint.id,
            "sandbox": box.id,
            "interface": "eth0",
        }
        await store.transaction(Put(f"intent/{endpoint.id}/endpoint.join", intent))
    slow.fail["endpoint.left"] = RuntimeError("deaf to that")
    async with controller() as running:
        [failed] = running.restored.of("failed")
        assert "KeyError('deaf')" in failed.detail
        assert "endpoint.left: deaf to that" in failed.detail
        slow.deaf = False
        slow.fail.clear()
    async with controller() as running:  # it is tried again
        [undone] = running.restored.of("undone")
        assert undone.subject == running.network("net").endpoint("ep").info
        await running.network("net").delete(force=True)
        await running.sandbox("box").delete()
    await remove_all(path)


async def test_what_was_being_removed_is_removed(path: Path) -> None:
    async with Controller(store=SQLiteStore(path)) as controller:
        front = await controller.create_network("front", subnets=[SUBNET])
        back = await controller.create_network("back", subnets=["10.10.0.0/24"])
        kept = await controller.create_network("kept", subnets=["10.11.0.0/24"])
        one = await controller.create_sandbox("one")
        two = await controller.create_sandbox("two")
        leaver = await front.connect(one)
        await back.connect(two)
        await kept.connect(one)
    deeds: dict[str, dict[str, cnm.types.JSON]] = {
        f"{leaver.id}/endpoint.leave": {},
        f"{two.id}/sandbox.delete": {"endpoints": []},
        f"{back.id}/network.delete": {"force": True},
        f"{kept.id}/network.delete": {"force": False},
    }
    async with edited(path) as store:
        for key, value in deeds.items():
            identity, _, deed = key.partition("/")
            value |= {"deed": deed, "object": identity}
            await store.transaction(Put(f"intent/{key}", value))
    async with Controller(store=SQLiteStore(path)) as controller:
        assert controller.restored.counts["completed"] == 3
        assert [it.name for it in controller.networks] == ["front", "kept"]
        assert [it.name for it in controller.sandboxes] == ["one"]
        assert not controller.network("front").endpoint("one").joined
        assert controller.network("kept").endpoint("one").interface == "eth1"
        assert await controller.check() == ()
        assert await controller._services.store.scan("intent/") == ()
        async with serving(controller.sandbox("one")):
            async with await anyio.connect_tcp("10.11.0.2", 80) as stream:
                assert await stream.receive() == b"10.11.0.1"
    await remove_all(path)
    assert host_links() == ["lo"]


@pytest.mark.parametrize("lost", [False, True])
async def test_what_was_being_removed_is_removed_though_its_driver_fails(
    path: Path, lost: bool
) -> None:
    fake = FakeDriver()

    def controller() -> Controller:
        return Controller(store=SQLiteStore(path), drivers={"fake": fake})

    async with controller() as running:
        network = await running.create_network("front", "fake")
        box = await running.create_sandbox("box")
        ids = [(await network.connect(box, name=it)).id for it in ("one", "two")]
    deed: dict[str, cnm.types.JSON] = {"deed": "sandbox.delete", "object": box.id}
    deed["endpoints"] = list(ids)
    async with edited(path) as store:
        await store.transaction(Put(f"intent/{box.id}/sandbox.delete", deed))
    if lost:
        await anyio.to_thread.run_sync(namespaces.unpin, box.key)
    fake.fail["endpoint.deleted"] = RuntimeError("no")
    async with controller() as running:
        assert running.restored.of("failed") == ()
        (completed,) = running.restored.of("completed")
        assert completed.subject == box.info
        assert (running.sandboxes, running.network("front").endpoints) == ((), ())
        assert await running._services.store.scan("intent/") == ()
        fake.fail.clear()
        await running.network("front").delete()
    await remove_all(path)
