"""The user-space proxy, with real sockets."""

from __future__ import annotations

import logging
import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress

import anyio
import pytest

from cnm.firewall import Firewall
from cnm.linux import Kernel
from cnm.ports import PortMapper, Proxy
from cnm.ports.places import HostPort
from tests.integration.lab import BLOCKED_AFTER

from .peer import Peer
from .world import HOST4, HOST6, ONLY4, Publisher, World, descriptors, publisher

LARGE = bytes(range(256)) * 4096 * 4


@asynccontextmanager
async def connected(world: World, port: int = 7) -> AsyncIterator[tuple[Peer, Peer]]:
    """Have a client of the host's, and the server in the sandbox that accepts it."""
    with (
        Peer.server(world.box, port) as listener,
        await Peer.client(world.host, "::1", port) as client,
        await listener.accept() as server,
    ):
        yield client, server


async def test_a_client_that_has_said_everything_gets_its_answer(
    world: World, proxied: Publisher
) -> None:
    await proxied.mapper.publish(world.publication("7:7", **ONLY4))
    async with connected(world) as (client, server):
        await client.send(b"question")
        client.end()
        assert await server.all() == b"question"
        await server.send(b"answer")
        assert await client.receive() == b"answer"
        server.end()
        assert await client.all() == b""


async def test_a_server_that_has_said_everything_hears_the_rest(
    world: World, proxied: Publisher
) -> None:
    await proxied.mapper.publish(world.publication("7:7", **ONLY4))
    async with connected(world) as (client, server):
        await server.send(b"hello")
        server.end()
        assert await client.all() == b"hello"
        await client.send(b"goodbye")
        client.end()
        assert await server.all() == b"goodbye"


async def test_much_goes_both_ways_at_once_for_several_clients(
    world: World, proxied: Publisher
) -> None:
    await proxied.mapper.publish(world.publication("7:7", **ONLY4))

    async def say(peer: Peer, data: bytes) -> None:
        await peer.send(data)
        peer.end()

    async def exchange(listener: Peer, number: int) -> None:
        client = await Peer.client(world.host, "::1", 7)
        with client, await listener.accept() as server:
            up, down = LARGE[number:], LARGE[: -1 - number]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(say, client, up)
                tasks.start_soon(say, server, down)

                async def hear() -> None:
                    assert await server.all() == up

                tasks.start_soon(hear)
                assert await client.all() == down

    with Peer.server(world.box, 7) as listener:
        await exchange(listener, 1)
        first = await Peer.client(world.host, "::1", 7)
        with first, await listener.accept() as server:
            await exchange(listener, 2)
            # one that was there all the time
            await first.send(b"1")
            assert await server.receive() == b"1"


async def test_who_is_not_heard_has_to_wait(world: World, proxied: Publisher) -> None:
    await proxied.mapper.publish(world.publication("7:7", **ONLY4))
    async with connected(world) as (client, server):
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sent = 0
        with anyio.move_on_after(3) as patience:
            while True:
                with anyio.move_on_after(BLOCKED_AFTER) as scope:
                    await anyio.wait_writable(client.socket)
                if scope.cancelled_caught:
                    break
                sent += client.socket.send(LARGE)
        assert not patience.cancelled_caught
        # what the kernel keeps in four buffers
        assert sent < 32 << 20
        client.end()
        received = 0
        while data := await server.receive():
            received += len(data)
        assert received == sent


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_reset_is_passed_on(world: World, proxied: Publisher, who: str) -> None:
    await proxied.mapper.publish(world.publication("7:7", **ONLY4))
    async with connected(world) as (client, server):
        await client.send(b"1")
        assert await server.receive() == b"1"
        ends, stays = (client, server) if who == "client" else (server, client)
        linger = struct.pack("ii", 1, 0)
        ends.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        ends.socket.close()
        with pytest.raises(ConnectionResetError):
            await stays.receive()


async def test_nobody_serves_the_port(world: World, proxied: Publisher) -> None:
    await proxied.mapper.publish(world.publication("7:7", **ONLY4))
    client = await Peer.client(world.host, "::1", 7)
    with client, pytest.raises(ConnectionResetError):
        await client.receive()
    # and somebody does, later
    async with connected(world):
        pass


async def test_connections_end_when_their_port_is_taken_back(
    world: World, proxied: Publisher
) -> None:
    bindings = await proxied.mapper.publish(world.publication("7:7", "8:8", **ONLY4))
    async with (
        connected(world) as (client, server),
        connected(world, 8) as (other_client, other_server),
    ):
        await client.send(b"1")
        assert await server.receive() == b"1"

        gone = [each for each in bindings if each.host_port == 7]
        await proxied.mapper.unpublish("e1", gone)

        assert await client.receive() == b""
        assert await server.receive() == b""
        await other_client.send(b"2")
        assert await other_server.receive() == b"2"


async def test_who_comes_to_the_proxy_itself_is_turned_away(world: World) -> None:
    async with publisher(world) as it:
        await it.mapper.publish(world.publication("8080:80", **ONLY4))

        def ports() -> list[int]:
            with open("/proc/thread-self/net/tcp6", encoding="ascii") as file:
                rows = [line.split() for line in file][1:]
            return [int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A"]

        for port in world.host.run(ports):
            client = await Peer.client(world.host, "::1", port)
            with client, pytest.raises(ConnectionResetError):
                await client.receive()
        assert (await world.ask(world.host, "::1", 8080)).startswith("box ")


@contextmanager
def no_more_files() -> Iterator[None]:
    """Leave the process no file descriptor that it could open."""
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(map(int, os.listdir("/proc/self/fd"))) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, old[1]))
    copies: list[int] = []
    try:
        with suppress(OSError):
            while True:
                copies.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)
        for copy in copies:
            os.close(copy)


async def test_too_many_connections(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with publisher(world) as it:
        await it.mapper.publish(world.publication("7:7", **ONLY4))
        with (
            Peer.server(world.box, 7) as listener,
            Peer(world.host.socket(socket.AF_INET6, socket.SOCK_STREAM)) as client,
        ):
            with no_more_files():
                client.socket.connect_ex(("::1", 7))
                await anyio.sleep(0.3)
            with await listener.accept() as server:
                await server.send(b"1")
                assert await client.receive() == b"1"
    warnings = [it for it in caplog.records if it.levelno == logging.WARNING]
    assert [it.message for it in warnings] == [
        "the proxy cannot accept connections: [Errno 24] Too many open files"
    ]


async def test_answers_come_from_the_address_that_was_asked(world: World) -> None:
    async with publisher(world, enabled=False) as it:
        await it.mapper.publish(world.publication("53:53/udp"))
        for address in (HOST4, "192.0.2.9", HOST6, "2001:db8::9"):
            answer = await world.ask(world.client, address, 53, "udp")
            # the sandbox sees the host, since nothing is translated
            assert answer in ("box 10.9.0.1", "box fd00:9::1")


async def test_everything_is_served_without_a_firewall(world: World) -> None:
    async with publisher(world, enabled=False) as it:
        bindings = await it.mapper.publish(world.publication("8080:80"))
        assert len(bindings) == 2
        for address in (HOST4, HOST6):
            assert (await world.ask(world.client, address, 8080)).startswith("box ")
        for address in (HOST4, "127.0.0.1", "::1"):
            assert (await world.ask(world.host, address, 8080)).startswith("box ")
        await it.mapper.publish(world.publication("8080:81", "8081:80"))
        assert (await world.ask(world.client, HOST4, 8080)).startswith("box ")
        assert (await world.ask(world.client, HOST4, 8081)).startswith("box ")
        await it.mapper.unpublish("e1")
        assert await world.ask(world.client, HOST4, 8080) == "ECONNREFUSED"
        assert world.is_free("0.0.0.0", 8080)
        assert world.is_free("::", 8081)


async def test_what_was_published_before_the_proxy_runs(world: World) -> None:
    for enabled in (True, False):
        async with Kernel(f"/proc/self/fd/{world.host.netns}") as kernel:
            firewall = Firewall("cnm", enabled=enabled)
            await kernel.run(firewall.rebuild)
            proxy = Proxy(kernel, firewall)
            mapper = PortMapper(kernel, firewall, proxy=proxy)
            await mapper.publish(world.publication("8080:80", **ONLY4))
            async with anyio.create_task_group() as tasks:
                await tasks.start(proxy.run)
                answer = await world.ask(world.host, "::1", 8080)
                assert answer.startswith("box ")
                tasks.cancel_scope.cancel()
            await mapper.close()
            await kernel.run(firewall.remove)


async def test_nothing_is_open_when_the_proxy_has_ended(world: World) -> None:
    before = descriptors()
    async with publisher(world) as it:
        await it.mapper.publish(world.publication("7:7", "7:7/udp", **ONLY4))
        async with connected(world) as (client, server):
            with Peer.udp(world.host, "::1", 7) as asking:
                asking.socket.send(b"1")
                await client.send(b"1")
                assert await server.receive() == b"1"
    assert descriptors() == before


@pytest.mark.parametrize("proto", ["tcp", "udp"])
async def test_the_proxy_makes_way(world: World, proto: str) -> None:
    """It listens at a port of its own, which is not to be had then; others are."""
    target = {"tcp": 80, "udp": 53}[proto]
    async with publisher(world) as it:
        await it.mapper.publish(world.publication(f"[::1]:8080:{target}/{proto}"))
        for port in (65535, 65534, 65533):
            spec = f"[::1]:{port}:{target}/{proto}"
            publication = world.publication(spec, endpoint_id=f"e{port}")
            await it.mapper.publish(publication)
            assert "box" in await world.ask(world.host, "::1", port, proto)
        assert "box" in await world.ask(world.host, "::1", 8080, proto)


async def test_who_has_come_before_it_makes_way_is_served(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = Proxy._accept

    async def accept_later(
        proxy: Proxy, listener: socket.socket, place: HostPort | None
    ) -> None:
        if listener.getsockname()[1] != 65535:
            await accept(proxy, listener, place)

    monkeypatch.setattr(Proxy, "_accept", accept_later)
    async with publisher(world) as it:
        await it.mapper.publish(world.publication("7:7", **ONLY4))
        with Peer.server(world.box, 7) as listener, ExitStack() as stack:
            clients = [await Peer.client(world.host, "::1", 7) for _ in range(20)]
            wanted = world.publication("[::1]:65535:7", endpoint_id="b", **ONLY4)
            await it.mapper.publish(wanted)
            clients.append(await Peer.client(world.host, "::1", 65535))
            for client in clients:
                stack.enter_context(client)
                server = stack.enter_context(await listener.accept())
                await server.send(b"welcome")
            for client in clients:
                assert await client.receive() == b"welcome"
