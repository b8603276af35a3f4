"""Ports that come, go and move at run time."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

import cnm
from cnm.linux import NETLINK_NETFILTER, NetlinkSocket, Sockets
from cnm.linux.forgetter import Forgetter
from cnm.linux.nftables import Batch, commit
from tests.integration.api.conftest import HOST4, HOST6
from tests.integration.api.test_restore import remove_all
from tests.integration.api.traffic import serving
from tests.integration.lab import Namespace

from .reach import none_reached, reach, reach_all, unanswered


@asynccontextmanager
async def heard(controller: cnm.Controller) -> AsyncIterator[list[str]]:
    """Collect the events about ports, as text."""
    texts: list[str] = []
    kinds = cnm.EndpointPublished, cnm.EndpointUnpublished
    async with controller.subscribe(*kinds) as events:
        yield texts
        with anyio.move_on_after(0.1):
            async for event in events:
                ports = event.endpoint.ports
                if isinstance(event, cnm.EndpointUnpublished):
                    ports = event.bindings
                places = sorted((it.host_port, str(it.host_address)) for it in ports)
                hosts = [f"{address}:{port}" for port, address in places]
                network = event.endpoint.network.name
                texts.append(f"{event.name} {network} {' '.join(hosts)}")


async def test_publish_and_unpublish(
    controller: cnm.Controller, outside: Namespace
) -> None:
    network = await controller.create_network("front", subnets=["10.9.0.0/24"])
    api = await controller.create_sandbox("api")
    endpoint = await network.connect(api)
    async with heard(controller) as events, serving(api):
        bound = await endpoint.publish("0.0.0.0:8080:80", "80/udp")
        assert [str(bound[0])] == ["0.0.0.0:8080->10.9.0.2:80/tcp"]
        assert set(endpoint.ports) == set(bound) == set(api.ports)
        (any_port,) = {it.host_port for it in bound if it.proto == "udp"}
        answers = await reach_all(
            [(outside, HOST4, 8080, "tcp"), (outside, HOST4, any_port, "udp")]
        )
        assert unanswered(answers) == {}
        await endpoint.unpublish(bound[0])
        assert await none_reached([(outside, HOST4, 8080, "tcp")]) == {}
        assert {it.proto for it in endpoint.ports} == {"udp"}
        await endpoint.unpublish()
        assert endpoint.ports == ()
        await endpoint.publish("0.0.0.0:8080:80")
    assert events == [
        f"endpoint.published front 0.0.0.0:8080 0.0.0.0:{any_port} ::1:{any_port}",
        "endpoint.unpublished front 0.0.0.0:8080",
        f"endpoint.unpublished front 0.0.0.0:{any_port} ::1:{any_port}",
        "endpoint.published front 0.0.0.0:8080",
    ]


async def test_refused(controller: cnm.Controller) -> None:
    network = await controller.create_network("front", subnets=["10.9.0.0/24"])
    api = await controller.create_sandbox("api")
    endpoint = await network.create_endpoint("api", ports=["8080:80"])
    assert endpoint.ports == ()
    with pytest.raises(cnm.ForbiddenError, match="endpoint 'api' is not joined"):
        await endpoint.publish("8081:81")
    await endpoint.join(api)
    before = endpoint.ports
    assert len(before) == 2
    with pytest.raises(cnm.ConflictError, match="8080"):
        await endpoint.publish("8081:81", "8080:82")
    with pytest.raises(cnm.PortNotFound, match=r"8080:80/tcp"):
        await endpoint.unpublish("80", "9090:90")
    with pytest.raises(cnm.InvalidError, match=r"65536.*; .*"):
        await endpoint.publish("65536", "a:b")
    assert endpoint.ports == before
    await endpoint.leave()
    assert endpoint.ports == ()
    with pytest.raises(cnm.ForbiddenError):
        await endpoint.unpublish()
    await endpoint.join(api)
    assert endpoint.ports == before


async def test_ports_move_with_the_gateway(
    controller: cnm.Controller, outside: Namespace
) -> None:
    one = await controller.create_network("one", subnets=["10.1.0.0/24", "fd01::/64"])
    two = await controller.create_network("two", subnets=["10.2.0.0/24"])
    api = await controller.create_sandbox("api")
    probes = [
        (where, to, 8080, proto)
        for where, to in ((outside, HOST4), (outside, HOST6), (None, "127.0.0.1"))
        for proto in ("tcp", "udp")
    ]
    async with serving(api), heard(controller) as events:
        first = await one.connect(api, ports=["8080:80", "8080:80/udp"])
        assert unanswered(await reach_all(probes)) == {}
        second = await two.connect(api, gateway_priority=10)
        # IPv6 stays where it was: the other network has none
        assert {str(it.container_address) for it in first.ports} == {"fd01::2"}
        assert {str(it.container_address) for it in second.ports} == {"10.2.0.2"}
        assert unanswered(await reach_all(probes)) == {}
        await two.disconnect(api)
        assert len(first.ports) == 4
        assert unanswered(await reach_all(probes)) == {}
    assert events == [
        "endpoint.published one 0.0.0.0:8080 0.0.0.0:8080 :::8080 :::8080",
        "endpoint.unpublished one 0.0.0.0:8080 0.0.0.0:8080",
        "endpoint.published two 0.0.0.0:8080 0.0.0.0:8080",
        "endpoint.unpublished two 0.0.0.0:8080 0.0.0.0:8080",
        "endpoint.published one 0.0.0.0:8080 0.0.0.0:8080 :::8080 :::8080",
    ]


async def test_a_port_chosen_freely_stays_when_it_moves(
    controller: cnm.Controller,
) -> None:
    one = await controller.create_network("one", subnets=["10.1.0.0/24"])
    two = await controller.create_network("two", subnets=["10.2.0.0/24"])
    api = await controller.create_sandbox("api")
    first = await one.connect(api, ports=["80"])
    second = await two.connect(api)
    assert first.ports != ()
    assert second.ports == ()
    before = {it.host_port for it in first.ports}
    await first.publish("81")
    assert before < {it.host_port for it in first.ports}


async def test_a_join_that_fails_moves_nothing(controller: cnm.Controller) -> None:
    one = await controller.create_network("one", subnets=["10.1.0.0/24"])
    two = await controller.create_network("two", subnets=["10.2.0.0/24"])
    api = await controller.create_sandbox("api")
    first = await one.connect(api, ports=["8080:80"])
    before = first.ports
    with socket.socket() as busy:
        busy.bind(("0.0.0.0", 8081))
        with pytest.raises(cnm.PortInUse, match="8081/tcp"):
            await two.connect(api, ports=["8081:80"], gateway_priority=5)
    assert first.ports == before
    assert two.endpoints == ()
    async with serving(api):
        assert await reach(None, "127.0.0.1", 8080) != ""


async def test_udp_client_from_before(
    controller: cnm.Controller, outside: Namespace
) -> None:
    """A client that kept sending is answered, though its packets went nowhere before,
    or to the port's former owner."""
    network = await controller.create_network("front", subnets=["10.9.0.0/24"])
    old = await controller.create_sandbox("old")
    new = await controller.create_sandbox("new")
    client = outside.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setblocking(False)

    async def asked() -> bytes:
        with anyio.move_on_after(2):
            while True:
                try:
                    client.send(b"?")
                    with anyio.move_on_after(0.05):
                        await anyio.wait_readable(client)
                        return client.recv(100)
                except ConnectionRefusedError:
                    await anyio.sleep(0.01)
        return b""

    with client:
        client.connect((HOST4, 8080))
        client.send(b"?")
        async with serving(old, new):
            await network.connect(old, ports=["8080:80/udp"])
            assert await asked() == b"203.0.113.2"
            await network.disconnect(old)
            await network.connect(new, ports=["8080:80/udp"])
            assert await asked() == b"203.0.113.2"


async def test_flushed_ruleset(controller: cnm.Controller, outside: Namespace) -> None:
    network = await controller.create_network("front", subnets=["10.9.0.0/24"])
    api = await controller.create_sandbox("api")
    await network.connect(api, ports=["8080:80", "7000-7100:7000-7100"])
    async with serving(api), controller.subscribe(cnm.FirewallRebuilt) as rebuilt:
        with NetlinkSocket(NETLINK_NETFILTER) as nft:
            batch = Batch("cnm")
            batch.delete_table()
            commit(nft, batch)
        with anyio.fail_after(30):
            await anext(rebuilt)
        assert await reach(outside, HOST4, 8080) == "203.0.113.2"


async def test_restart(tmp_path: Path, outside: Namespace) -> None:
    """A new controller publishes the same ports; one that is taken is left out."""

    def controller() -> cnm.Controller:
        return cnm.Controller(store=cnm.SQLiteStore(tmp_path / "state.db"))

    async with controller() as running:
        network = await running.create_network("front", subnets=["10.9.0.0/24"])
        api = await running.create_sandbox("api")
        ports = ["80", "8080:80", "8081:80", "8090-8093:80/udp"]
        before = (await network.connect(api, ports=ports)).ports
    port = next(it.host_port for it in before if it.host_port > 9000)
    with socket.socket() as busy:
        busy.bind(("0.0.0.0", 8081))
        async with controller() as running:
            (endpoint,) = running.network("front").endpoints
            kept = [it for it in before if it.host_port != 8081]
            assert sorted(map(str, endpoint.ports)) == sorted(map(str, kept))
            async with serving(running.sandbox("api")):
                probes = [
                    (outside, HOST4, number, proto)
                    for number, proto in ((port, "tcp"), (8080, "tcp"), (8090, "udp"))
                ]
                assert unanswered(await reach_all(probes)) == {}
                assert await none_reached([(outside, HOST4, 8081, "tcp")]) == {}
    async with controller() as running:
        (endpoint,) = running.network("front").endpoints
        assert sorted(map(str, endpoint.ports)) == sorted(map(str, before))
    await remove_all(tmp_path / "state.db")


async def test_connections_survive_a_restart(
    tmp_path: Path, outside: Namespace
) -> None:
    async with cnm.Controller(store=cnm.SQLiteStore(tmp_path / "a.db")) as running:
        network = await running.create_network("front", subnets=["10.9.0.0/24"])
        api = await running.create_sandbox("api")
        await network.connect(api, ports=["8080:80/udp"])
        server = await api.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("0.0.0.0", 80))
    client = outside.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setblocking(False)
    with client, server:
        client.connect((HOST4, 8080))
        client.send(b"1")
        with anyio.fail_after(30):
            await anyio.wait_readable(server)
        _, peer = server.recvfrom(10)
        async with cnm.Controller(store=cnm.SQLiteStore(tmp_path / "a.db")) as running:
            server.sendto(b"2", peer)
            with anyio.fail_after(30):
                await anyio.wait_readable(client)
            assert client.recv(10) == b"2"
    await remove_all(tmp_path / "a.db")


async def _speaks_late(
    listener: socket.socket, client: socket.socket, to: tuple[str, int]
) -> None:
    """Connect; after a while, the server says something first."""
    listener.listen()
    for each in (listener, client):
        each.setblocking(False)
    with suppress(BlockingIOError):
        client.connect(to)
    with anyio.fail_after(30):
        await anyio.wait_readable(listener)
    with listener.accept()[0] as connection:
        # had the connection been forgotten meanwhile, nobody would hear it
        await anyio.sleep(0.05)
        connection.send(b"!")
        with anyio.fail_after(30):
            await anyio.wait_readable(client)
        assert client.recv(10) == b"!"


async def test_the_next_owner_of_a_port(
    controller: cnm.Controller, outside: Namespace
) -> None:
    """What is forgotten in the background is not the next owner's."""
    network = await controller.create_network("front", subnets=["10.9.0.0/24"])
    for name in ("old", "new"):
        sandbox = await controller.create_sandbox(name)
        with (
            await sandbox.socket() as server,
            outside.socket(socket.AF_INET, socket.SOCK_STREAM) as client,
        ):
            server.bind(("0.0.0.0", 80))
            endpoint = await network.connect(sandbox, ports=["8080:80"])
            await _speaks_late(server, client, (HOST4, 8080))
            await endpoint.unpublish()


async def test_the_next_owner_of_a_port_that_has_just_been_taken_back(
    controller: cnm.Controller, outside: Namespace
) -> None:
    """It may have connections before the event loop hears that the port was free."""
    network = await controller.create_network("front", subnets=["10.9.0.0/24"])
    old, new = [await controller.create_sandbox(it) for it in ("old", "new")]
    endpoint = await network.connect(old, ports=["8080:80"])
    services = controller._services
    withdrawing = await services.ports.unpublishing(endpoint.id)
    assert withdrawing is not None
    assert withdrawing.done is not None
    await services.kernel.run(withdrawing.plan)
    await network.connect(new, ports=["8080:80"])
    with (
        await new.socket() as server,
        outside.socket(socket.AF_INET, socket.SOCK_STREAM) as client,
    ):
        server.bind(("0.0.0.0", 80))
        server.listen()
        client.settimeout(3)
        await anyio.to_thread.run_sync(client.connect, (HOST4, 8080))
        withdrawing.done()
        await services.forgetter.flush()
        with server.accept()[0] as connection:
            # had the connection been forgotten, nobody would hear it
            connection.send(b"!")
            assert await anyio.to_thread.run_sync(client.recv, 10) == b"!"


async def test_any_port_is_not_one_that_is_to_be_forgotten(
    controller: cnm.Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nobody waits: going through the connections takes milliseconds."""
    flushed = []

    def flush(forgetter: Forgetter, sockets: Sockets) -> None:
        flushed.append(forgetter.busy)
        flush_now(forgetter, sockets)

    flush_now = Forgetter.flush_now
    monkeypatch.setattr(Forgetter, "flush_now", flush)
    monkeypatch.setattr(Forgetter, "soon", lambda forgetter: None)  # all are asked for
    network = await controller.create_network("front", subnets=["10.9.0.0/24"])
    sandbox = await controller.create_sandbox("box")
    endpoint = await network.connect(sandbox)
    (first, *_) = await endpoint.publish("80")
    await endpoint.unpublish()
    (second, *_) = await endpoint.publish("80")
    assert second.host_port != first.host_port
    assert flushed == []
    await endpoint.unpublish()
    some = f"{first.host_port}-{first.host_port + 2}"
    (third, *_) = await endpoint.publish(f"{some}:81")
    assert third.host_port == first.host_port + 2
    assert flushed == []
    # when no other one of a range is left, it is waited for
    await endpoint.unpublish(third)
    await endpoint.publish(f"{some}:82", f"{some}:83")
    assert flushed == [{("tcp", it.host_port) for it in (first, second, third)}]
    # and so is one that is asked for
    await endpoint.unpublish()
    flushed.clear()
    await endpoint.publish(f"{first.host_port}:84")
    assert len(flushed) == 1


async def test_the_next_owner_of_an_address(
    controller: cnm.Controller, outside: Namespace
) -> None:
    """The same for connections that sandboxes make."""
    network = await controller.create_network("front", subnets=["10.9.0.0/24"])
    for name in ("old", "new"):
        sandbox = await controller.create_sandbox(name)
        await network.connect(sandbox, address="10.9.0.7")
        with (
            outside.socket(socket.AF_INET, socket.SOCK_STREAM) as server,
            await sandbox.socket() as client,
        ):
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("203.0.113.2", 99))
            await _speaks_late(server, client, ("203.0.113.2", 99))
            await network.disconnect(sandbox)
