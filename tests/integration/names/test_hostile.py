"""Clients that mean no good."""

# ruff: noqa: ASYNC110 - tests wait

from __future__ import annotations

import os
import random
import socket
import threading

import anyio
import anyio.lowlevel
import dns.message
import dns.rcode
import pytest

import cnm
from cnm.dns import server

from .ask import RESOLVER, ask, resolve

GOOD = dns.message.make_query("box.", "A", id=7, use_edns=0).to_wire()


@pytest.fixture
async def box(controller: cnm.Controller) -> cnm.Sandbox:
    network = await controller.create_network("front", subnets=["10.9.0.0/24"])
    box = await controller.create_sandbox("box")
    await network.connect(box, aliases=["*.box"])
    return box


async def connect(box: cnm.Sandbox, type_: int = socket.SOCK_STREAM) -> socket.socket:
    made = await box.socket(type=type_)
    try:
        made.connect((RESOLVER, 53))
    except BlockingIOError:
        await anyio.wait_writable(made)
    return made


async def receive(made: socket.socket, size: int = 65535) -> bytes:
    with anyio.fail_after(10):
        await anyio.wait_readable(made)
    return made.recv(size)


async def still_serves(box: cnm.Sandbox) -> None:
    assert await resolve(box, "box") == ["10.9.0.2"]
    answer = await ask(box, "box", tcp=True)
    assert answer.rcode() == dns.rcode.NOERROR


async def test_junk(box: cnm.Sandbox) -> None:
    dice = random.Random(5)
    with await connect(box, socket.SOCK_DGRAM) as made:
        for number in range(3000):
            packet = bytearray(GOOD)
            for _ in range(dice.randrange(6)):
                packet[dice.randrange(len(packet))] = dice.randrange(256)
            made.send(packet[: dice.randrange(len(packet) + 1)])
            if number % 50 == 0:
                await anyio.lowlevel.checkpoint()
        made.send(b"x" * 60_000)
        made.send(GOOD + b"\0" * 4080)
        while box.name_statistics.queries < 100:
            await anyio.sleep(0.01)
        seen = -1
        while seen != box.name_statistics.queries:  # until the socket's queue is empty
            seen = box.name_statistics.queries
            await anyio.sleep(0.1)
    await still_serves(box)


async def test_what_is_no_query_is_not_answered(box: cnm.Sandbox) -> None:
    with await connect(box, socket.SOCK_DGRAM) as made:
        made.send(b"")
        made.send(GOOD[:11])
        made.send(GOOD[:2] + b"\x80" + GOOD[3:])  # an answer
        made.send(GOOD[:-2] + b"x" * 5000)  # too long: malformed
        assert (await receive(made))[:4] == b"\0\7\x81\1"
        made.send(GOOD)
        answer = dns.message.from_wire(await receive(made))
        assert answer.rcode() == dns.rcode.NOERROR


async def test_many_questions_on_one_connection(box: cnm.Sandbox) -> None:
    with await connect(box) as made:
        names = [f"n{number}.box." for number in range(50)]
        for number, name in enumerate(names):
            data = dns.message.make_query(name, "A", id=number).to_wire()
            made.send(len(data).to_bytes(2, "big") + data)
        received = b""
        answers: list[dns.message.Message] = []
        while len(answers) < 50:
            received += await receive(made)
            while len(received) > 2 and len(received) - 2 >= (
                length := int.from_bytes(received[:2], "big")
            ):
                answers.append(dns.message.from_wire(received[2 : length + 2]))
                received = received[length + 2 :]
    assert [it.id for it in answers] == list(range(50))
    assert [str(it.question[0].name) for it in answers] == names


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\0",
        b"\0\0",
        b"\0\5abc",
        b"\xff\xff" + b"x" * 1000,
        b"\0\x0c" + GOOD[:12],
        b"\0\1x",
    ],
)
async def test_clients_that_do_not_go_on(
    box: cnm.Sandbox, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(server, "TCP_TIMEOUT", 0.3)
    with await connect(box) as made:
        made.send(sent)
        while await receive(made):
            pass  # it may be told that this is malformed; then it is hung up
    await still_serves(box)


async def accepts(made: socket.socket, data: bytes) -> bool:
    """Send what fits, and return whether the other side is still there."""
    try:
        made.send(data)
    except BlockingIOError:
        return True
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


async def test_a_client_that_does_not_read(
    box: cnm.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "TCP_TIMEOUT", 0.3)
    with await connect(box) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        data = len(GOOD).to_bytes(2, "big") + GOOD
        with anyio.fail_after(20):
            while await accepts(made, data * 1000):
                await anyio.sleep(0.01)
    await still_serves(box)


def clients(controller: cnm.Controller) -> int:
    """Return how many TCP clients all resolvers have."""
    served = controller._services.names._server._served.values()
    return sum(len(each.clients) for each in served)


async def until(controller: cnm.Controller, count: int) -> None:
    with anyio.fail_after(30):
        while clients(controller) != count:
            await anyio.sleep(0.01)


async def test_more_clients_than_one_sandbox_may_have(
    box: cnm.Sandbox, controller: cnm.Controller
) -> None:
    made = [await connect(box) for _ in range(server.CLIENTS)]
    await until(controller, server.CLIENTS)
    with await connect(box) as surplus:
        assert await receive(surplus) == b""
    assert await resolve(box, "box") == ["10.9.0.2"]
    for client in made:
        client.close()
    await until(controller, 0)
    await still_serves(box)


async def test_clients_are_gone_with_their_sandbox(
    box: cnm.Sandbox, controller: cnm.Controller
) -> None:
    made = [await connect(box) for _ in range(5)]
    await until(controller, 5)
    before = len(os.listdir("/proc/self/fd"))
    await box.delete()
    assert len(os.listdir("/proc/self/fd")) <= before - 5
    for client in made:
        client.close()
    assert clients(controller) == 0
    other = await controller.create_sandbox("other")
    await controller.network("front").connect(other)
    assert await resolve(other, "other") == ["10.9.0.3"]


async def test_a_flood_in_one_sandbox_is_not_felt_in_others(
    box: cnm.Sandbox, controller: cnm.Controller
) -> None:
    network = controller.network("front")
    other = await controller.create_sandbox("other")
    await network.connect(other)
    stop = threading.Event()
    made = await connect(box, socket.SOCK_DGRAM)
    made.setblocking(True)

    def flood() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            name = f"n{number}.box."
            made.send(dns.message.make_query(name, "A").to_wire())

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for number in range(20):
            assert await resolve(other, "other") == ["10.9.0.3"]
            late = await controller.create_sandbox(f"late{number}")
            await network.connect(late)
            assert await resolve(late, "box") == ["10.9.0.2"]
            await late.delete()
    finally:
        stop.set()
        await anyio.to_thread.run_sync(thread.join)
        made.close()
    assert box.name_statistics.own > 100


async def test_a_fault_of_ours_is_not_the_end(
    box: cnm.Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(*args: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("cnm.dns.view.SandboxView.find", fails)
        with await connect(box, socket.SOCK_DGRAM) as made:
            made.send(GOOD)
            while "a bug" not in caplog.text:
                await anyio.sleep(0.01)
    await still_serves(box)
