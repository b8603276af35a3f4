"""Servers in sandboxes that tell who is asking, and those who ask."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from ipaddress import ip_address
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream, UDPSocket

import cnm

#: how long a test waits for an answer that must come, and for one that must not
PATIENCE = 5.0
BLOCKED_AFTER = 0.15
PORT = 80


def plain(address: object) -> str:
    """Return an address as text, without the prefix of mapped IPv4 addresses."""
    return str(address).removeprefix("::ffff:")


async def _tell(stream: SocketStream) -> None:
    async with stream:
        peer = stream.extra(SocketAttribute.remote_address)
        await stream.send(plain(peer[0]).encode())


async def _echo(udp: UDPSocket) -> None:
    async for _, peer in udp:
        with suppress(anyio.BrokenResourceError):  # there is no way back
            await udp.sendto(plain(peer[0]).encode(), *peer)


@asynccontextmanager
async def serving(*sandboxes: cnm.Sandbox) -> AsyncIterator[None]:
    """Serve port 80 of sandboxes, TCP and UDP: the answer is the asker's address."""
    async with AsyncExitStack() as stack:
        jobs: list[Callable[[], Coroutine[Any, Any, None]]] = []
        for sandbox in sandboxes:
            listener = await stack.enter_async_context(
                await sandbox.listen_tcp(port=PORT)
            )
            jobs.append(partial(listener.serve, _tell))
            echo = await stack.enter_async_context(await sandbox.udp(port=PORT))
            jobs.append(partial(_echo, echo))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for job in jobs:
            tasks.start_soon(job)
        stack.callback(tasks.cancel_scope.cancel)
        yield


async def tcp(sandbox: cnm.Sandbox, to: object, timeout: float = PATIENCE) -> str:
    """Return what a TCP server says, or ``""`` if there is no answer."""
    with anyio.move_on_after(timeout):
        try:
            async with await sandbox.connect_tcp(ip_address(plain(to)), PORT) as stream:
                return (await stream.receive()).decode()
        except OSError:
            return ""
    return ""


async def udp(sandbox: cnm.Sandbox, to: object, timeout: float = PATIENCE) -> str:
    """Return what a UDP server says, or ``""`` if there is no answer."""
    address = ip_address(plain(to))
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with await sandbox.socket(family, socket.SOCK_DGRAM) as client:
        with anyio.move_on_after(timeout):
            try:
                client.connect((str(address), PORT))
                client.send(b"?")
                await anyio.wait_readable(client)
                return client.recv(100).decode()
            except OSError:
                return ""
    return ""


async def blocked(sandbox: cnm.Sandbox, to: object) -> bool:
    """Tell whether neither TCP nor UDP gets an answer."""
    return not (
        await tcp(sandbox, to, BLOCKED_AFTER) or await udp(sandbox, to, BLOCKED_AFTER)
    )


async def pair(
    controller: cnm.Controller, network: cnm.Network
) -> tuple[cnm.Sandbox, cnm.Sandbox]:
    """Connect two sandboxes to a network."""
    one = await controller.create_sandbox("one")
    two = await controller.create_sandbox("two")
    await network.connect(one)
    await network.connect(two)
    return one, two


def addresses(sandbox: cnm.Sandbox, network: cnm.Network) -> list[str]:
    """Return a sandbox's addresses on a network."""
    for endpoint in network.endpoints:
        if endpoint.sandbox is sandbox:
            own = (endpoint.address, endpoint.address6)
            return [str(address.ip) for address in own if address]
    raise LookupError(sandbox)
