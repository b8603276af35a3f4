"""The user-space proxy and UDP, with real sockets."""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import ip_address

import anyio
import pytest

from cnm.linux import forget_ports
from cnm.ports import datagrams
from tests.integration.lab import BLOCKED_AFTER, until

from .peer import Peer
from .world import ONLY4, Publisher, World, binding, descriptors, publisher

LARGE = bytes(range(256)) * 256


async def test_datagrams_go_both_ways_for_several_clients(
    world: World, proxied: Publisher
) -> None:
    await proxied.mapper.publish(world.publication("7:7/udp", **ONLY4))
    with (
        Peer.udp_server(world.box, 7) as server,
        Peer.udp(world.host, "::1", 7) as one,
        Peer.udp(world.host, "::1", 7) as other,
    ):
        for text in (b"1", b"2", b""):
            one.socket.send(text)
        seen = [await server.hear() for _ in range(3)]
        assert [data for data, _ in seen] == [b"1", b"2", b""]
        assert len({client for _, client in seen}) == 1
        other.socket.send(b"3")
        data, other_client = await server.hear()
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


async def test_a_udp_server_that_comes_later(world: World, proxied: Publisher) -> None:
    await proxied.mapper.publish(world.publication("7:7/udp", **ONLY4))
    with Peer.udp(world.host, "::1", 7) as client:
        client.socket.send(b"1")
        await anyio.sleep(0.1)  # the sandbox answers: port unreachable
        with Peer.udp_server(world.box, 7) as server:
            client.socket.send(b"2")
            data, peer = await server.hear()
            assert data == b"2"
            server.socket.sendto(b"3", peer)
            assert await client.receive() == b"3"


async def test_datagrams_end_when_their_port_is_taken_back(
    world: World, proxied: Publisher
) -> None:
    before = descriptors()
    await proxied.mapper.publish(world.publication("7:7/udp", **ONLY4))
    with (
        Peer.udp_server(world.box, 7) as server,
        Peer.udp(world.host, "::1", 7) as client,
    ):
        client.socket.send(b"1")
        _, peer = await server.hear()
        await proxied.mapper.unpublish("e1")
        await anyio.sleep(0.05)
        server.socket.sendto(b"2", peer)
        with pytest.raises(TimeoutError), anyio.fail_after(BLOCKED_AFTER):
            await anyio.wait_readable(client.socket)
        # the server, the client, and the two sockets that are redirected to
        assert descriptors() == before + 2 + 2 * proxied.firewall.enabled


async def test_an_idle_client_is_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "IDLE", 0.8)
    async with publisher(world) as it:
        await it.mapper.publish(world.publication("7:7/udp", **ONLY4))
        with (
            Peer.udp_server(world.box, 7) as server,
            Peer.udp(world.host, "::1", 7) as client,
        ):
            before = descriptors()
            seen = set()
            for _ in range(3):
                client.socket.send(b"1")
                seen.add((await server.hear())[1])
                await anyio.sleep(0.3)
            assert len(seen) == 1
            assert descriptors() == before + 1
            (peer,) = seen
            for _ in range(3):
                server.socket.sendto(b"2", peer)
                assert await client.receive() == b"2"
                await anyio.sleep(0.3)
            assert descriptors() == before + 1
            await until(lambda: descriptors() == before)


async def test_the_client_that_was_idle_for_longest_makes_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "CLIENTS", 2)
    async with publisher(world) as it:
        await it.mapper.publish(world.publication("7:7/udp", **ONLY4))
        with (
            Peer.udp_server(world.box, 7) as server,
            Peer.udp(world.host, "::1", 7) as first,
            Peer.udp(world.host, "::1", 7) as second,
            Peer.udp(world.host, "::1", 7) as third,
        ):
            before = descriptors()
            peers = []
            for client in (first, second, first, third, first):
                client.socket.send(b"1")
                peers.append((await server.hear())[1])
            assert len(set(peers)) == 3
            assert peers[0] == peers[2] == peers[4]
            await until(lambda: descriptors() == before + 2)
            second.socket.send(b"1")
            assert (await server.hear())[1] not in peers


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
            Peer.udp_server(world.box, 7) as seven,
            Peer.udp_server(world.box, 8) as eight,
        ):
            client.socket.sendto(b"1", ("::1", 7))
            _, peer = await seven.hear()
            if same:
                client.socket.sendto(b"2", ("::1", 7))
                assert await seven.hear() == (b"2", peer)
                return
            # as when the kernel has forgotten the first one
            localhost = ip_address("::1")
            await it.kernel.run(forget_ports, [("udp", localhost, 7)])
            client.socket.sendto(b"2", ("::1", 8))
            data, peer = await eight.hear()
            assert data == b"2"
            eight.socket.sendto(b"3", peer)
            assert await client.receive() == b"3"


async def test_to_be_stopped_before_it_begins_is_no_failure(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with publisher(world, enabled=False) as proxied:
        assert proxied.proxy is not None
        bound = replace(binding("127.0.0.1", 7, "10.9.0.2", 7), proto="udp")
        proxied.proxy.serve(bound, world.bind("127.0.0.1", 7, "udp"))
        proxied.proxy.stop(bound)
        await anyio.wait_all_tasks_blocked()
    assert caplog.records == []
