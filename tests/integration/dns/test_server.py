"""Queries by real sockets."""

from __future__ import annotations

import gc
import logging
import os
import resource
import socket
import time
from collections import Counter
from dataclasses import asdict

import anyio
import anyio.lowlevel
import dns.flags
import dns.message
import dns.rcode
import pytest

from cnm.dns import server as server_module
from cnm.dns.forwarder import Forwarder
from cnm.dns.server import Server
from tests.integration.lab import until

from ..lab import Namespace
from .world import (
    RESOLVER,
    Elsewhere,
    World,
    descriptors,
    receive,
    says,
    silent,
    texts,
)


async def test_names_of_our_own(world: World) -> None:
    for tcp in (False, True):
        answer = await world.ask("wEb.", tcp=tcp)
        assert texts(answer) == ["10.9.0.2"]
        assert answer.question[0].name.labels[0] == b"wEb"
        assert answer.flags & dns.flags.AA
        assert answer.edns == -1
        assert (await world.ask("web.", tcp=tcp, edns=0)).edns == 0
    assert await world.resolve("web.", "AAAA") == []
    assert await world.resolve("six.", "AAAA") == ["fd00::1"]
    assert await world.resolve("nobody.") == ["SERVFAIL"]


async def test_a_repeated_question_is_looked_up_once(world: World) -> None:
    for _ in range(5):
        assert await world.resolve("web.") == ["10.9.0.2"]
    assert world.view.looked == 1
    # letters are given back as they were sent
    assert await world.resolve("WEB.") == ["10.9.0.2"]
    assert world.view.looked == 2
    world.view.names["web"] = ["10.9.0.7"]
    world.box.forget()
    assert await world.resolve("web.") == ["10.9.0.7"]
    counted = world.box.counters.snapshot()
    assert (counted.queries, counted.own, counted.noerror) == (7, 7, 7)


async def test_each_address_comes_first_at_times(world: World) -> None:
    firsts: Counter[str] = Counter()
    for _ in range(9):
        found = await world.resolve("shared.")
        assert sorted(found) == ["10.9.0.2", "10.9.0.3", "10.9.0.4"]
        firsts[found[0]] += 1
    assert set(firsts.values()) == {3}


async def test_long_answers(world: World) -> None:
    for _ in range(2):
        part = await world.ask("many.")
        assert part.flags & dns.flags.TC
        assert len(texts(part)) == (512 - 12 - 10) // 16
    more = await world.ask("many.", edns=0)
    assert more.flags & dns.flags.TC
    assert 70 < len(texts(more)) < 77
    assert world.box.counters.truncated == 3
    whole = await world.ask("many.", tcp=True)
    assert not whole.flags & dns.flags.TC
    assert sorted(texts(whole)) == sorted(world.view.names["many"])
    assert world.box.counters.truncated == 3


async def test_several_addresses_of_a_resolver(world: World) -> None:
    world.listen(world.box, "::1", "127.0.0.12")
    for server in ("::1", "127.0.0.12", RESOLVER):
        for tcp in (False, True):
            answer = await world.ask("web.", server=server, tcp=tcp)
            assert texts(answer) == ["10.9.0.2"]


async def test_a_query_that_came_before_the_server_ran() -> None:
    with Namespace() as there:
        world = World(there, Server(), Forwarder())
        world.listen(world.box, RESOLVER)
        async with world.client() as made:
            made.send(dns.message.make_query("web.", "A").to_wire())
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(world.server.run)
                assert texts(dns.message.from_wire(await receive(made)))
                tasks.cancel_scope.cancel()
        world.server.shut()


async def test_what_is_counted(world: World) -> None:
    for name in ("web.", "web.", "shared.", "many.", "nobody."):
        await world.ask(name)
    await world.ask("web.", tcp=True)
    with Elsewhere(world.there, "127.0.0.53", says("192.0.2.1")) as elsewhere:
        world.asks("127.0.0.54", "127.0.0.53")
        await world.ask("x.example.")
        await world.ask("x.example.")
        elsewhere.script = says(code=dns.rcode.NXDOMAIN)
        await world.ask("y.example.")
        elsewhere.script = says(code=dns.rcode.SERVFAIL)
        await world.ask("z.example.")
    async with world.client() as made:
        made.send(b"\0" * 12)
        await receive(made)
        made.send(b"x")
        await until(lambda: world.box.counters.malformed == 2)
    counted = world.box.counters.snapshot()
    assert counted.latency_max > 0
    assert counted.latency_sum >= counted.latency_max
    assert asdict(counted) == {
        "latency_max": counted.latency_max,
        "latency_sum": counted.latency_sum,
        "queries": 12,
        "tcp": 1,
        "own": 5,
        "cached": 1,
        "upstream": 2,
        "noerror": 7,
        "nxdomain": 1,
        "servfail": 2,
        "refused": 0,
        "malformed": 2,
        "truncated": 1,
        "lost": 0,
        "limited": 0,
        # the server that is not there, three times, and the one that failed
        "failures": 4,
    }


# --- the end of a resolver ------------------------------------------------------------


async def test_a_resolver_is_closed_while_it_has_work(world: World) -> None:
    other = world.resolver()
    world.listen(other, "127.0.0.12")
    before = descriptors()
    doomed = world.resolver()
    world.listen(doomed, "127.0.0.13")
    world.asks("127.0.0.53")
    data = dns.message.make_query("x.example.", "A").to_wire()
    with Elsewhere(world.there, "127.0.0.53", silent) as elsewhere:
        async with (
            world.client(server="127.0.0.13") as udp,
            world.client(server="127.0.0.13", tcp=True) as idle,
            world.client(server="127.0.0.13", tcp=True) as half,
            world.client(server="127.0.0.13", tcp=True) as waiting,
        ):
            udp.send(data)
            half.send(b"\0\x20abc")
            waiting.send(len(data).to_bytes(2, "big") + data)
            await until(lambda: bool(elsewhere.asked) and doomed.counters.queries == 2)
            await until(lambda: world.opened == 1)
            world.server.close(doomed)
            world.server.close(doomed)  # a second time: nothing
            for client in (idle, half, waiting):
                assert await receive(client) == b""
    await until(lambda: descriptors() == before)
    assert texts(await world.ask("web.", server="127.0.0.12")) == ["10.9.0.2"]
    world.listen(doomed, "127.0.0.13")
    assert texts(await world.ask("web.", server="127.0.0.13")) == ["10.9.0.2"]


async def test_a_resolver_is_closed_before_its_query_is_begun(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked for it any more."""
    world.asks("127.0.0.53")
    begin = world.box.begin
    begun = []

    def then_close(data: bytes, *, tcp: bool) -> object:
        begun.append(begin(data, tcp=tcp))
        close.set()
        return begun[0]

    close = anyio.Event()
    monkeypatch.setattr(world.box, "begin", then_close)
    with Elsewhere(world.there, "127.0.0.53", says("192.0.2.1")) as elsewhere:
        async with world.client() as made:
            made.send(dns.message.make_query("x.example.", "A").to_wire())
            await close.wait()
            world.server.close(world.box)
            await anyio.sleep(0.1)
        assert len(begun) == 1
        assert elsewhere.asked == [] or world.opened == 1
    assert world.box.counters.noerror == 0
    assert world.box.counters.lost == 0


async def test_everything_is_closed() -> None:
    with Namespace() as there:
        before = descriptors()
        world = World(there, Server(), Forwarder())
        world.asks("127.0.0.53")
        resolvers = [world.resolver() for _ in range(20)]
        for number, resolver in enumerate(resolvers):
            world.listen(resolver, f"127.0.1.{number}")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.server.run)
            for number in range(20):
                server = f"127.0.1.{number}"
                assert texts(await world.ask("web.", server=server)) == ["10.9.0.2"]
            tasks.cancel_scope.cancel()
        world.server.shut()
        gc.collect()
        assert descriptors() <= before


async def test_many_resolvers(world: World) -> None:
    resolvers = [world.resolver() for _ in range(300)]
    names = [f"127.1.{number >> 8}.{number & 255}" for number in range(300)]
    for name, resolver in zip(names, resolvers, strict=True):
        world.listen(resolver, name)
    async with world.client() as made:
        for name in names:
            made.connect((name, 53))
            made.send(dns.message.make_query("web.", "A").to_wire())
            assert texts(dns.message.from_wire(await receive(made))) == ["10.9.0.2"]
    assert [resolver.counters.own for resolver in resolvers] == [1] * 300
    for resolver in resolvers:
        world.server.close(resolver)


# --- faults ---------------------------------------------------------------------------


async def test_a_socket_that_is_broken_does_not_keep_the_server_busy(
    world: World,
) -> None:
    """As ``ss --kill`` in the sandbox does."""
    broken = world.resolver()
    udp, tcp = (
        world.there.socket(socket.AF_INET, it)
        for it in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
    )
    for made in (udp, tcp):
        made.setblocking(False)
        made.bind(("127.0.0.13", 53))
    tcp.listen()
    world.server.open(broken, udp, tcp)
    tcp.shutdown(socket.SHUT_RDWR)
    busy = time.process_time()
    await anyio.sleep(0.5)
    assert time.process_time() - busy < 0.25
    assert await world.resolve("web.") == ["10.9.0.2"]
    assert texts(await world.ask("web.", server="127.0.0.13")) == ["10.9.0.2"]
    world.server.close(broken)


async def test_too_many_open_files(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "PAUSE", 0.2)
    assert await world.resolve("web.") == ["10.9.0.2"]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    data = dns.message.make_query("web.", "A").to_wire()
    async with world.client(tcp=True) as idle, world.client() as udp:
        await until(lambda: len(os.listdir("/proc/self/fd")) > 0)
        idle.send(len(data).to_bytes(2, "big") + data)
        assert await receive(idle)
        made = world.there.socket(socket.AF_INET, socket.SOCK_STREAM)
        with made:
            resource.setrlimit(resource.RLIMIT_NOFILE, (made.fileno() + 1, hard))
            try:
                made.connect((RESOLVER, 53))
                made.setblocking(False)
                made.send(len(data).to_bytes(2, "big") + data)
                busy = time.process_time()
                await anyio.sleep(0.5)
                assert time.process_time() - busy < 0.25
                udp.send(data)
                assert await receive(udp)
                with pytest.raises(BlockingIOError):
                    made.recv(1)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert await receive(made)


async def test_sockets_for_others_cannot_be_made(world: World) -> None:
    world.asks("127.0.0.53", "127.0.0.54")

    async def fail(inside: bool, family: int, type_: int) -> socket.socket:
        raise OSError(24, "Too many open files")

    resolver = type(world.box)(
        world.box.sandbox, world.view, lambda: world.servers, fail, world.forwarder
    )
    world.listen(resolver, "127.0.0.12")
    answer = await world.ask("x.example.", server="127.0.0.12")
    assert answer.rcode() == dns.rcode.SERVFAIL
    assert resolver.counters.failures == 2


async def test_an_answer_that_cannot_be_sent(world: World) -> None:
    """Port 0 is nobody's."""
    sent = []
    real = server_module._send

    def nowhere(*args: object) -> None:
        resolver, made, reply, client = args
        assert isinstance(client, tuple)
        sent.append(client)
        real(resolver, made, reply, (client[0], 0))  # type: ignore[arg-type]

    data = dns.message.make_query("web.", "A").to_wire()
    async with world.client() as made:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(server_module, "_send", nowhere)
            made.send(data)
            await until(lambda: len(sent) == 1)
            await until(lambda: world.box.counters.lost == 1)
        made.send(data)
        assert await receive(made)


async def test_faults_are_told_now_and_then(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*args: object, **kwargs: object) -> bytes:
        raise RuntimeError("a bug")

    data = dns.message.make_query("web.", "A").to_wire()
    with caplog.at_level(logging.ERROR), pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(world.box), "begin", fails)
        async with world.client() as made, world.client(tcp=True) as client:
            for _ in range(50):
                made.send(data)
            client.send(len(data).to_bytes(2, "big") + data)
            assert await receive(client) == b""
            await until(lambda: "a bug" in caplog.text)
    assert await world.resolve("web.") == ["10.9.0.2"]
    assert len(caplog.records) == 1


async def test_a_fault_in_finishing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*args: object) -> bytes:
        raise RuntimeError("a bug")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(world.box), "finish", fails)
        async with world.client() as made:
            made.send(dns.message.make_query("x.example.", "A").to_wire())
            await until(lambda: "a bug" in caplog.text)
    assert await world.resolve("web.") == ["10.9.0.2"]
