"""The user-space proxy, with real sockets."""

from __future__ import annotations

import logging
import os
import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any

import anyio
import pytest

from cnm.firewall import Firewall
from cnm.linux import Kernel, forget_ports
from cnm.ports import PortMapper, Proxy, datagrams
from tests.integration.lab import BLOCKED_AFTER

from .peer import Peer
from .world import HOST4, HOST6, World, descriptors, publisher

ONLY4: dict[str, Any] = {"address6": ""}
LARGE = bytes(range(256)) * 4096 * 4
#: the ways to the proxy: redirected by the firewall, or served without one
WAYS = pytest.mark.parametrize("enabled", [True, False], ids=["redirected", "served"])


@WAYS
async def test_a_client_that_has_said_everything_gets_its_answer(
    world: World, enabled: bool
) -> None:
    async with publisher(world, enabled=enabled) as it:
        await it.mapper.publish(world.publication("7:7", **ONLY4))
        with (
            Peer.server(world.box, 7) as listener,
            await Peer.client(world.host, "::1", 7) as client,
            await listener.accept() as server,
        ):
            await client.send(b"question")
            client.end()
            assert await server.all() == b"question"
            await server.send(b"answer")
            assert await client.receive() == b"answer"
            server.end()
            assert await client.all() == b""


@WAYS
async def test_a_server_that_has_said_everything_hears_the_rest(
    world: World, enabled: bool
) -> None:
    async with publisher(world, enabled=enabled) as it:
        await it.mapper.publish(world.publication("7:7", **ONLY4))
        with (
            Peer.server(world.box, 7) as listener,
            await Peer.client(world.host, "::1", 7) as client,
            await listener.accept() as server,
        ):
            await server.send(b"hello")
            server.end()
            assert await client.all() == b"hello"
            await client.send(b"goodbye")
            client.end()
            assert await server.all() == b"goodbye"


@WAYS
async def test_much_goes_both_ways_at_once_for_several_clients(
    world: World, enabled: bool
) -> None:
    async with publisher(world, enabled=enabled) as it:
        await it.mapper.publish(world.publication("7:7", **ONLY4))

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


@WAYS
async def test_who_is_not_heard_has_to_wait(world: World, enabled: bool) -> None:
    async with publisher(world, enabled=enabled) as it:
        await it.mapper.publish(world.publication("7:7", **ONLY4))
        with (
            Peer.server(world.box, 7) as listener,
            await Peer.client(world.host, "::1", 7) as client,
            await listener.accept() as server,
        ):
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


@WAYS
@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_reset_is_passed_on(world: World, enabled: bool, who: str) -> None:
    async with publisher(world, enabled=enabled) as it:
        await it.mapper.publish(world.publication("7:7", **ONLY4))
        with (
            Peer.server(world.box, 7) as listener,
            await Peer.client(world.host, "::1", 7) as client,
            await listener.accept() as server,
        ):
            await client.send(b"1")
            assert await server.receive() == b"1"
            ends, stays = (client, server) if who == "client" else (server, client)
            linger = struct.pack("ii", 1, 0)
            ends.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            ends.socket.close()
            with pytest.raises(ConnectionResetError):
                await stays.receive()


@WAYS
async def test_nobody_serves_the_port(world: World, enabled: bool) -> None:
    async with publisher(world, enabled=enabled) as it:
        await it.mapper.publish(world.publication("7:7", **ONLY4))
        client = await Peer.client(world.host, "::1", 7)
        with client, pytest.raises(ConnectionResetError):
            await client.receive()
        # and somebody does, later
        with (
            Peer.server(world.box, 7) as listener,
            await Peer.client(world.host, "::1", 7),
            await listener.accept(),
        ):
            pass


@WAYS
async def test_connections_end_when_their_port_is_taken_back(
    world: World, enabled: bool
) -> None:
    async with publisher(world, enabled=enabled) as it:
        bindings = await it.mapper.publish(world.publication("7:7", "8:8", **ONLY4))
        with (
            Peer.server(world.box, 7) as listener,
            Peer.server(world.box, 8) as other_listener,
            await Peer.client(world.host, "::1", 7) as client,
            await listener.accept() as server,
            await Peer.client(world.host, "::1", 8) as other_client,
            await other_listener.accept() as other_server,
        ):
            await client.send(b"1")
            assert await server.receive() == b"1"

            gone = [each for each in bindings if each.host_port == 7]
            await it.mapper.unpublish("e1", gone)

            assert await client.receive() == b""
            assert await server.receive() == b""
            await other_client.send(b"2")
            assert await other_server.receive() == b"2"


async def udp_server(world: World, port: int) -> Peer:
    peer = Peer(world.box.socket(socket.AF_INET, socket.SOCK_DGRAM))
    peer.socket.bind(("", port))
    return peer


async def heard(server: Peer) -> tuple[bytes, tuple[str, int]]:
    with anyio.fail_after(3):
        await anyio.wait_readable(server.socket)
    data, client = server.socket.recvfrom(100)
    return data, client


@WAYS
async def test_datagrams_go_both_ways_for_several_clients(
    world: World, enabled: bool
) -> None:
    async with publisher(world, enabled=enabled) as it:
        await it.mapper.publish(world.publication("7:7/udp", **ONLY4))
        with (
            await udp_server(world, 7) as server,
            Peer.udp(world.host, "::1", 7) as one,
            Peer.udp(world.host, "::1", 7) as other,
        ):
            for text in (b"1", b"2", b""):
                one.socket.send(text)
            seen = [await heard(server) for _ in range(3)]
            assert [data for data, _ in seen] == [b"1", b"2", b""]
            assert len({client for _, client in seen}) == 1
            other.socket.send(b"3")
            data, other_client = await heard(server)
            assert data == b"3"
            assert other_client != seen[0][1]
            server.socket.sendto(b"to other", other_client)
            server.socket.sendto(b"to one", seen[0][1])
            server.socket.sendto(b"", seen[0][1])
            server.socket.sendto(LARGE[:60_000], seen[0][1])
            assert await other.receive() == b"to other"
            assert await one.receive() == b"to one"
            assert await one.receive() == b""
            assert await one.receive() == LARGE[:60_000]


@WAYS
async def test_a_udp_server_that_comes_later(world: World, enabled: bool) -> None:
    async with publisher(world, enabled=enabled) as it:
        await it.mapper.publish(world.publication("7:7/udp", **ONLY4))
        with Peer.udp(world.host, "::1", 7) as client:
            client.socket.send(b"1")
            await anyio.sleep(0.1)  # the sandbox answers: port unreachable
            with await udp_server(world, 7) as server:
                client.socket.send(b"2")
                data, peer = await heard(server)
                assert data == b"2"
                server.socket.sendto(b"3", peer)
                assert await client.receive() == b"3"


@WAYS
async def test_datagrams_end_when_their_port_is_taken_back(
    world: World, enabled: bool
) -> None:
    async with publisher(world, enabled=enabled) as it:
        before = descriptors()
        await it.mapper.publish(world.publication("7:7/udp", **ONLY4))
        with (
            await udp_server(world, 7) as server,
            Peer.udp(world.host, "::1", 7) as client,
        ):
            client.socket.send(b"1")
            _, peer = await heard(server)
            await it.mapper.unpublish("e1")
            await anyio.sleep(0.05)
            server.socket.sendto(b"2", peer)
            with pytest.raises(TimeoutError), anyio.fail_after(BLOCKED_AFTER):
                await anyio.wait_readable(client.socket)
            # the server, the client, and the two sockets that are redirected to
            assert descriptors() == before + 2 + 2 * enabled


async def test_an_idle_client_is_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "IDLE", 0.4)
    async with publisher(world) as it:
        await it.mapper.publish(world.publication("7:7/udp", **ONLY4))
        with (
            await udp_server(world, 7) as server,
            Peer.udp(world.host, "::1", 7) as client,
        ):
            before = descriptors()
            seen = set()
            for _ in range(4):
                client.socket.send(b"1")
                seen.add((await heard(server))[1])
                await anyio.sleep(0.2)
            assert len(seen) == 1
            assert descriptors() == before + 1
            (peer,) = seen
            for _ in range(4):
                server.socket.sendto(b"2", peer)
                assert await client.receive() == b"2"
                await anyio.sleep(0.2)
            assert descriptors() == before + 1
            await anyio.sleep(0.4)
            assert descriptors() == before


async def test_the_client_that_was_idle_for_longest_makes_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "CLIENTS", 2)
    async with publisher(world) as it:
        await it.mapper.publish(world.publication("7:7/udp", **ONLY4))
        with (
            await udp_server(world, 7) as server,
            Peer.udp(world.host, "::1", 7) as first,
            Peer.udp(world.host, "::1", 7) as second,
            Peer.udp(world.host, "::1", 7) as third,
        ):
            before = descriptors()
            peers = []
            for client in (first, second, first, third, first):
                client.socket.send(b"1")
                peers.append((await heard(server))[1])
            assert len(set(peers)) == 3
            assert peers[0] == peers[2] == peers[4]
            await anyio.sleep(0.05)
            assert descriptors() == before + 2
            second.socket.send(b"1")
            assert (await heard(server))[1] not in peers


@pytest.mark.parametrize("same", [True, False])
async def test_a_client_that_wants_another_port_by_the_same_socket(
    world: World, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    monkeypatch.setattr(datagrams, "_SURE", 0.0)
    async with publisher(world) as it:
        await it.mapper.publish(world.publication("7:7/udp", "8:8/udp", **ONLY4))
        client = Peer(world.host.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        with (
            client,
            await udp_server(world, 7) as seven,
            await udp_server(world, 8) as eight,
        ):
            client.socket.sendto(b"1", ("::1", 7))
            _, peer = await heard(seven)
            if same:
                client.socket.sendto(b"2", ("::1", 7))
                assert await heard(seven) == (b"2", peer)
                return
            # as when the kernel has forgotten the first one
            localhost = ip_address("::1")
            await it.kernel.run(forget_ports, [("udp", localhost, 7)])
            client.socket.sendto(b"2", ("::1", 8))
            data, peer = await heard(eight)
            assert data == b"2"
            eight.socket.sendto(b"3", peer)
            assert await client.receive() == b"3"


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
        with (
            Peer.server(world.box, 7) as listener,
            await Peer.client(world.host, "::1", 7) as client,
            await listener.accept() as server,
            Peer.udp(world.host, "::1", 7) as asking,
        ):
            asking.socket.send(b"1")
            await client.send(b"1")
            assert await server.receive() == b"1"
            listener.socket.close()
    assert descriptors() == before
