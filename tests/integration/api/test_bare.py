"""The host's own network, and none at all."""

# ruff: noqa: ASYNC240 - tests may block

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

import cnm
from cnm import Controller, SQLiteStore, joining
from cnm.lifecycle import remove_table
from cnm.linux import NetlinkSocket, dump_routes, parse_route

from ...conftest import host_links
from .test_restore import remove_from
from .traffic import serving


async def interfaces(box: cnm.Sandbox) -> list[str]:
    return (await box.run(["ls", "/sys/class/net"])).stdout.decode().split()


async def test_null(controller: Controller) -> None:
    network = await controller.create_network("none", "null")
    assert (network.subnets, network.info.ipv4) == ((), False)
    box = await controller.create_sandbox("box")
    endpoint = await network.connect(box)
    assert (endpoint.address, endpoint.mac, endpoint.interface) == (None, "", "")
    assert endpoint.joined
    assert box.endpoints == (endpoint,)
    assert await controller.check() == ()
    assert host_links() == ["lo"]
    other = await controller.create_network("front")
    with pytest.raises(cnm.ForbiddenError) as caught:
        await other.connect(box)
    assert str(caught.value) == (
        "sandbox 'box' cannot be in the networks 'none' and 'front' at once: 'none' "
        "(null) wants it for itself"
    )
    assert other.endpoints == ()
    await endpoint.leave()
    await other.connect(box)
    with pytest.raises(
        cnm.ForbiddenError, match="'none' \\(null\\) wants it for itself"
    ):
        await endpoint.join(box)
    assert not endpoint.joined
    assert [each.network for each in box.endpoints] == [other]
    await box.delete()
    await endpoint.delete()
    await network.delete()


def default_routes() -> list[int]:
    """Return the indexes of the links to which the host's default routes lead."""
    with NetlinkSocket() as route:
        routes = [
            parse_route(message)
            for version in (4, 6)
            for message in route.dump(dump_routes(version))
        ]
    return [it.index for it in routes if not it.destination.prefixlen and it.via]


@pytest.mark.parametrize("way", ["host", "process", "path"])
async def test_the_hosts_own_network_is_left_alone(
    controller: Controller, way: str
) -> None:
    ways: dict[str, str | int]
    ways = {"host": "host", "process": os.getpid(), "path": "/proc/self/ns/net"}
    networks = [
        await controller.create_network(it, it, subnets=subnets)
        for it, subnets in (("ptp", ["10.9.0.0/24", "fd00:9::/64"]), ("bridge", []))
    ]
    before = host_links()
    assert default_routes() == []
    box = await controller.create_sandbox("box", netns=ways[way])
    reason = "sandbox 'box' is in the host's own network: it cannot be connected to"
    for network in networks:
        with pytest.raises(cnm.ForbiddenError, match=reason):
            await network.connect(box)
        assert network.endpoints == ()
    assert (host_links(), default_routes()) == (before, [])


async def test_a_start_leaves_the_hosts_own_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions let networks in."""

    async def let_in(*args: object) -> None:
        pass

    store = SQLiteStore(tmp_path / "journal.db")
    before = host_links()
    async with Controller(store=store) as controller:
        front = await controller.create_network("front")
        back = await controller.create_network("back", internal=True)
        host = await controller.create_network("host", "host")
        box = await controller.create_sandbox("box", netns="host")
        with monkeypatch.context() as patch:
            patch.setattr(joining, "_check_namespace", let_in)
            await front.connect(box, ports=["8080:80"])
            await back.connect(box)
        twin = await controller.create_sandbox("twin", netns="host")
        await host.connect(twin)
        assert len(default_routes()) == 1
    async with Controller(store=store) as controller:
        box = controller.sandbox("box")
        assert box.endpoints == ()
        assert default_routes() == []
        links = {link for it in controller.networks for link in it.links}
        assert len(host_links()) == len(before) + len(links)
        reasons = {it.detail for it in controller.restored.of("detached")}
        assert reasons == {"sandbox 'box' is in the host's own network"}
        assert controller.restored.counts == {"kept": 6, "detached": 2}
        assert await controller.check() == ()
        for name in ("front", "back"):
            (endpoint,) = controller.network(name).endpoints
            assert (endpoint.joined, endpoint.ports) == (False, ())
        async with serving(box), await anyio.connect_tcp("127.0.0.1", 80) as stream:
            assert await stream.receive() == b"127.0.0.1"
    async with Controller(store=store) as controller:
        assert {it.outcome for it in controller.restored.entries} == {"kept"}
        await remove_from(controller)


async def test_host(controller: Controller) -> None:
    network = await controller.create_network("host", "host")
    resolv = Path("/etc/resolv.conf").read_text()
    box = await controller.create_sandbox("box", netns="host")
    two = await controller.create_sandbox("two", netns="host")
    endpoint = await network.connect(box)
    await network.connect(two)
    async with serving(box), await anyio.connect_tcp("127.0.0.1", 80) as stream:
        assert await stream.receive() == b"127.0.0.1"
    assert "127.0.0.11" not in Path(box.resolv_conf_path).read_text()
    assert Path("/etc/resolv.conf").read_text() == resolv
    assert await controller.check() == ()
    own = await controller.create_sandbox("own")
    with pytest.raises(cnm.InvalidError, match='is created with netns="host"'):
        await network.connect(own)
    assert [each.name for each in network.endpoints] == ["box", "two"]
    await endpoint.leave()
    await box.delete()
    await two.delete()
    await network.delete(force=True)


@pytest.mark.parametrize("driver", ["host", "null"])
async def test_there_is_one(controller: Controller, driver: str) -> None:
    network = await controller.create_network("a", driver)
    with pytest.raises(cnm.ForbiddenError) as caught:
        await controller.create_network("b", driver)
    assert str(caught.value) == f'only one instance of "{driver}" network is allowed'
    await network.delete()
    await controller.create_network("b", driver)


@pytest.mark.parametrize("driver", ["host", "null"])
async def test_what_is_refused(controller: Controller, driver: str) -> None:
    with pytest.raises(cnm.InvalidError) as caught:
        await controller.create_network(
            "a", driver, subnets=["10.9.0.0/24"], internal=True, options={"x": 1}
        )
    assert [it.partition(":")[0] for it in caught.value.problems] == [
        "subnets",
        "internal",
        "options",
    ]
    network = await controller.create_network("a", driver)
    box = await controller.create_sandbox("box", netns="host")
    with pytest.raises(cnm.InvalidError, match="no interfaces"):
        await network.connect(box, mac="02:00:00:00:00:01")
    with pytest.raises(cnm.InvalidError, match="does not publish ports"):
        await network.connect(box, ports=["80:80"])
    with pytest.raises(cnm.InvalidError, match="does not belong to any"):
        await network.connect(box, address="10.0.0.1")
    assert network.endpoints == ()


async def test_they_are_back(tmp_path: Path) -> None:
    path = tmp_path / "cnm.db"
    async with Controller(store=SQLiteStore(path)) as controller:
        for driver in ("host", "null"):
            network = await controller.create_network(driver, driver)
            box = await controller.create_sandbox(
                driver, netns="host" if driver == "host" else None
            )
            await network.connect(box)
    async with Controller(store=SQLiteStore(path)) as controller:
        assert controller.restored.of("failed") == ()
        assert await controller.check() == ()
        for driver in ("host", "null"):
            (endpoint,) = controller.network(driver).endpoints
            assert endpoint.joined
            with pytest.raises(cnm.ForbiddenError):
                await controller.create_network("more", driver)
            await controller.sandbox(driver).delete()
            await controller.network(driver).delete()
        await controller._services.kernel.run(remove_table, controller._services)
