"""A controller that stops and starts again."""

# ruff: noqa: ASYNC110, ASYNC240, PT012, SIM117 - tests wait for the kernel, and may block

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream

import cnm
from cnm import Controller, SQLiteStore
from cnm.firewall import Element
from cnm.firewall.ruleset import BRIDGES, CLOSED
from cnm.ipam.default import DefaultIPAM
from cnm.lifecycle import remove_table
from cnm.linux import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    Request,
    delete_link,
    get_link,
    namespaces,
    parse_link,
    sysctl,
)
from cnm.linux.nftables import Batch, commit, list_elements, list_tables
from cnm_drivers_bridge.port import Port

from ...conftest import host_links, host_tables
from ..lab import Namespace, Servers, in_thread, until_links
from .conftest import HOST4, OUTSIDE4
from .traffic import serving, tcp

#: The settings by which a host forwards.
FORWARDING = (
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.all.force_forwarding",
    "net.ipv6.conf.default.force_forwarding",
)

FRONT = Element(BRIDGES, ("front",))
CLOSED4, CLOSED6 = Element(CLOSED, ("ipv4",)), Element(CLOSED, ("ipv6",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def remove_all(path: Path) -> None:
    """Remove all that a persistent controller has left."""
    async with Controller(store=SQLiteStore(path)) as controller:
        await remove_from(controller)


async def remove_from(controller: Controller) -> None:
    """Remove all that a controller has, and the table, which may persist."""
    for sandbox in controller.sandboxes:
        await sandbox.delete()
    for network in sorted(controller.networks, key=lambda n: n.info.config_only):
        await network.delete(force=True)
    assert (controller.networks, controller.sandboxes) == ((), ())
    services = controller._services
    await services.kernel.run(remove_table, services)


async def test_everything_is_back(path: Path) -> None:
    async with Controller(store=SQLiteStore(path)) as controller:
        conf = await controller.create_network("conf", config_only=True)
        network = await controller.create_network(
            "front",
            subnets=["10.9.0.0/24", "fd00:9::/64"],
            aux_addresses={"printer": "10.9.0.9"},
            labels={"a": "b"},
        )
        box = await controller.create_sandbox(
            "box", hostname="box", dns=["192.0.2.53"], extra_hosts={"db": "10.9.0.99"}
        )
        endpoint = await network.connect(box, mac="02:00:00:00:00:77", aliases=["x"])
        spare = await network.create_endpoint("spare", address="10.9.0.50")
        infos = conf.info, network.info, box.info, endpoint.info, spare.info
        links = host_links()
    assert host_links() == links
    assert host_tables() == ["cnm"]
    async with Controller(store=SQLiteStore(path)) as controller:
        network, box = controller.network("front"), controller.sandbox("box")
        endpoint, spare = network.endpoint("box"), network.endpoint("spare")
        conf = controller.network("conf")
        assert (
            conf.info,
            network.info,
            box.info,
            endpoint.info,
            spare.info,
        ) == infos
        assert (endpoint.sandbox, endpoint.interface) == (box, "eth0")
        assert box.endpoints == (endpoint,)
        assert not spare.joined
        for taken in ("10.9.0.50", "10.9.0.9", "10.9.0.1", "10.9.0.2"):
            with pytest.raises(cnm.AddressInUse):
                await network.create_endpoint("ep", address=taken)
        with pytest.raises(cnm.PoolOverlap):
            await controller.create_network("back", subnets=["10.9.0.0/25"])
        with pytest.raises(cnm.NameConflict):
            await controller.create_network("front")
        two = await controller.create_sandbox("two")
        fresh = await network.connect(two)
        assert fresh.address not in (endpoint.address, spare.address)
        assert fresh.address is not None
        async with serving(two, box):
            assert await tcp(box, fresh.address.ip) == "10.9.0.2"
            assert await tcp(two, "10.9.0.2") == str(fresh.address.ip)
        hosts = (await box.run(["cat", "/etc/hosts"])).stdout
        assert b"10.9.0.99\tdb" in hosts
        await endpoint.leave()
        await endpoint.join(box)
        await spare.join(two)
        assert spare.interface == "eth1"
    await remove_all(path)


async def test_connections_go_on(path: Path, outside: Namespace) -> None:
    server = Servers()
    server.add(outside, 80, "udp")
    answered = 0
    try:
        async with Controller(store=SQLiteStore(path)) as controller:
            network = await controller.create_network("front", subnets=["10.9.0.0/24"])
            one = await controller.create_sandbox("one")
            two = await controller.create_sandbox("two")
            await network.connect(one)
            await network.connect(two)
            listener = await two.listen_tcp(port=81)
            client = await one.connect_tcp("10.9.0.3", 81)
            probe = await one.udp("0.0.0.0")

        async def echo(stream: SocketStream) -> None:
            async with stream:
                async for chunk in stream:
                    await stream.send(chunk)

        async def ping() -> None:
            nonlocal answered
            while True:
                await client.send(b"x")
                assert await client.receive() == b"x"
                await probe.sendto(b"?", OUTSIDE4, 80)
                answer, _ = await probe.receive()
                assert answer == f"outside {HOST4}".encode()
                answered += 1
                await anyio.sleep(0.001)

        async with listener, client, probe, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, echo)
            tasks.start_soon(ping)
            for _ in range(3):
                before = answered
                async with Controller(store=SQLiteStore(path)) as controller:
                    assert len(controller.sandboxes) == 2
                    with anyio.fail_after(30):
                        while answered < before + 5:
                            await anyio.sleep(0.005)
            tasks.cancel_scope.cancel()
    finally:
        server.close()
    assert answered > 10
    await remove_all(path)


async def test_a_sandbox_that_is_gone_is_dropped(path: Path) -> None:
    async with Controller(store=SQLiteStore(path)) as controller:
        network = await controller.create_network("front", subnets=["10.9.0.0/24"])
        box = await controller.create_sandbox("box")
        endpoint = await network.connect(box)
        key, address = box.key, endpoint.address
    await anyio.to_thread.run_sync(namespaces.unpin, key)
    async with Controller(store=SQLiteStore(path)) as controller:
        assert controller.sandboxes == ()
        endpoint = controller.network("front").endpoint("box")
        assert not endpoint.joined
        assert endpoint.sandbox is None
        box = await controller.create_sandbox("box")
        await endpoint.join(box)
        assert endpoint.address == address
        async with serving(box):
            async with await anyio.connect_tcp("10.9.0.2", 80) as stream:
                assert await stream.receive() == b"10.9.0.1"
    await remove_all(path)


async def test_a_bridge_that_is_gone_is_made_again(path: Path) -> None:
    async with Controller(store=SQLiteStore(path)) as controller:
        await controller.create_network(
            "front", subnets=["10.9.0.0/24"], options={"name": "br0"}
        )
    with NetlinkSocket() as route:
        route.call(delete_link(parse_link(route.call(get_link(name="br0"))[0]).index))
    for _ in range(2):
        async with Controller(store=SQLiteStore(path)) as controller:
            network = controller.network("front")
            assert "br0" in host_links()
            box = await controller.create_sandbox("box")
            await network.connect(box)
            async with serving(box):
                async with await anyio.connect_tcp("10.9.0.2", 80) as stream:
                    assert await stream.receive() == b"10.9.0.1"
            await box.delete()
    await remove_all(path)


def in_the_table(*wanted: Element) -> bool:
    """Tell whether elements are in the controller's table."""
    with NetlinkSocket(NETLINK_NETFILTER) as nft:
        return "cnm" in list_tables(nft) and all(
            any(map(it.same_key, list_elements(nft, "cnm", it.set.name)))
            for it in wanted
        )


async def test_nothing_is_there_before_the_rules(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither forwarding nor ports of bridges, though the table was gone."""
    async with Controller(store=SQLiteStore(path)) as controller:
        network = await controller.create_network(
            "front", subnets=["10.9.0.0/24", "fd00:9::/64"], options={"name": "front"}
        )
        await network.connect(await controller.create_sandbox("box"))
    with NetlinkSocket() as route, NetlinkSocket(NETLINK_NETFILTER) as nft:
        batch = Batch("cnm")
        batch.delete_table()
        commit(nft, batch)
        route.call(delete_link(name="front"))
    for name in FORWARDING:
        with suppress(FileNotFoundError):
            in_thread(partial(sysctl.write, name, "0"))
    seen: dict[str, bool] = {}
    write, settings = sysctl.write, Port.settings

    def spy_on_forwarding(name: str, *rest: str) -> None:
        if name in FORWARDING:
            seen[name] = in_the_table(CLOSED4 if "ipv4" in name else CLOSED6)
        write(name, *rest)

    def spy_on_ports(port: Port, *args: Any, **kwargs: Any) -> list[Request]:
        seen["port"] = in_the_table(FRONT)
        return settings(port, *args, **kwargs)

    monkeypatch.setattr(sysctl, "write", spy_on_forwarding)
    monkeypatch.setattr(Port, "settings", spy_on_ports)
    async with Controller(store=SQLiteStore(path)) as controller:
        assert seen.keys() >= {"port", "net.ipv4.ip_forward"}
        assert any("ipv6" in name for name in seen)
        assert all(seen.values()), seen
        assert await controller.check() == ()
    await remove_all(path)


async def test_order_of_joining_survives(path: Path) -> None:
    async with Controller(store=SQLiteStore(path)) as controller:
        box = await controller.create_sandbox("box")
        for name in ("c", "a", "b"):
            await controller.create_network(name)
        for number, name in enumerate("ccabc"):
            await controller.network(name).connect(box, name=f"{name}{number}")
        names = [endpoint.name for endpoint in box.endpoints]
        gateway = box.gateways[4].network.name
    async with Controller(store=SQLiteStore(path)) as controller:
        box = controller.sandbox("box")
        assert [endpoint.name for endpoint in box.endpoints] == names
        assert box.gateways[4].network.name == gateway == "a"
        await controller.network("a").disconnect(box)
        assert box.gateways[4].network.name == "b"
    await remove_all(path)


async def test_what_is_in_no_record_is_swept(path: Path) -> None:
    store = cnm.MemoryStore()
    async with Controller(store=SQLiteStore(path)) as controller:
        network = await controller.create_network("front")
        box = await controller.create_sandbox("box")
        await network.connect(box)
        key = box.key
        with_all = host_links()
        ours = f"{controller._services.run_dir}/store"
    for name in (path, path.with_name(path.name + "-wal")):
        name.unlink(missing_ok=True)
    # what lives is not rubbish because its records are lost
    for other in (store, SQLiteStore(path)):
        with pytest.raises(cnm.StoreError) as caught:
            async with Controller(store=other):
                pass
        assert str(caught.value) == (
            "controller 'cnm' has left networks or sandboxes on this host, and another "
            "store has the records of them: start it with that store, or delete "
            f"{ours} to have them removed"
        )
        assert host_links() == with_all
    os.unlink(ours)
    async with Controller(store=store) as controller:
        assert controller.networks == ()
        await until_links(lambda: host_links() == ["lo"])
        assert not os.path.exists(key)


async def test_another_store_is_fine_when_nothing_lives(path: Path) -> None:
    async with Controller(store=SQLiteStore(path)) as controller:
        network = await controller.create_network("front")
        await network.connect(await controller.create_sandbox("box"))
        ours = f"{controller._services.run_dir}/store"
    assert os.path.exists(ours)
    await remove_all(path)
    assert not os.path.exists(ours)
    async with Controller(store=cnm.MemoryStore()) as controller:
        assert controller.networks == ()


async def test_a_failing_body_keeps_what_persists(path: Path) -> None:
    with pytest.raises(KeyError):
        async with Controller(store=SQLiteStore(path)) as controller:
            await controller.create_network("front", options={"name": "br0"})
            raise KeyError("x")
    assert "br0" in host_links()
    await remove_all(path)


async def test_what_is_left_of_an_uninstalled_ipam_driver_is_removed(
    path: Path,
) -> None:
    def controller(**drivers: object) -> Controller:
        return Controller(store=SQLiteStore(path), ipam_drivers=drivers)

    async with controller(own=DefaultIPAM) as running:
        for name in ("first", "second"):
            network = await running.create_network(name, ipam="own")
            await network.connect(await running.create_sandbox(name))
    async with controller() as running:
        first, second = running.networks
        (endpoint,) = first.endpoints
        with pytest.raises(cnm.TeardownError) as caught:
            await endpoint.sandbox.delete()  # type: ignore[union-attr]
        assert [type(it) for it in caught.value.exceptions] == [cnm.DriverNotFound]
        (box,) = running.sandboxes
        (endpoint,) = second.endpoints
        await endpoint.leave()
        with pytest.raises(cnm.DriverNotFound):
            await endpoint.delete()
        assert second.endpoints == (endpoint,)
        for network in (first, second):
            with pytest.raises(cnm.TeardownError):
                await network.delete(force=True)
        assert (running.networks, running.sandboxes) == ((), (box,))
        assert [*first.endpoints, *second.endpoints] == []
        assert await running.check() == ()
    await remove_all(path)
