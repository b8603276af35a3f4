"""Processes, sockets and files of a sandbox."""

from __future__ import annotations

import os
import socket as stdlib_socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import Process, SocketListener, SocketStream, UDPSocket

from .errors import InvalidError
from .linux import Sockets
from .linux.process import start
from .types import IPAddress
from .validation import address as parse_address, shown

if TYPE_CHECKING:
    from .sandbox import Sandbox


def start_process(
    sockets: Sockets,
    key: str,
    command: str | Sequence[str],
    files: Mapping[str, str],
    options: Mapping[str, Any],
) -> subprocess.Popen[bytes]:
    """Plan: start a process in a sandbox."""
    with sockets.sandbox(key) as sandbox:
        return start(sandbox.netns, command, files, options)


async def communicate(
    process: Process,
    command: str | Sequence[str],
    input: bytes | None,
    *,
    check: bool,
) -> subprocess.CompletedProcess[bytes]:
    """Feed a process, drain it, and wait for its end. It is killed if cancelled."""
    outputs: dict[str, bytes | None] = {"stdout": None, "stderr": None}

    async def drain(name: str, stream: anyio.abc.ByteReceiveStream) -> None:
        outputs[name] = b"".join([chunk async for chunk in stream])

    async def feed(stream: anyio.abc.ByteSendStream) -> None:
        with suppress(anyio.BrokenResourceError):  # a program need not read it all
            await stream.send(input or b"")
        await stream.aclose()

    async with process, anyio.create_task_group() as tasks:
        if process.stdin is not None:
            tasks.start_soon(feed, process.stdin)
        for name in outputs:
            if (stream := getattr(process, name)) is not None:
                tasks.start_soon(drain, name, stream)
        await process.wait()
    result = subprocess.CompletedProcess(
        command, process.returncode or 0, outputs["stdout"], outputs["stderr"]
    )
    if check:
        result.check_returncode()
    return result


def _endpoint(host: str | IPAddress, port: int) -> tuple[int, tuple[str, int]]:
    """Return the family and the address of a socket."""
    try:
        parsed = parse_address(host)
    except (ValueError, TypeError) as exc:
        raise InvalidError(f"host: {exc}") from exc
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise InvalidError(f"port: expected 0 to 65535, not {shown(port)}")
    family = stdlib_socket.AF_INET if parsed.version == 4 else stdlib_socket.AF_INET6
    return family, (str(parsed), port)


async def connect_tcp(
    sandbox: Sandbox, host: str | IPAddress, port: int
) -> SocketStream:
    """Connect from a sandbox."""
    family, address = _endpoint(host, port)
    made = await sandbox.socket(family, stdlib_socket.SOCK_STREAM)
    try:
        made.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
        try:
            made.connect(address)
        except BlockingIOError:
            await anyio.wait_writable(made)
        if error := made.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_ERROR):
            raise OSError(error, f"connect to {host} port {port}: {os.strerror(error)}")
        return await SocketStream.from_socket(made)
    except BaseException:
        made.close()
        raise


async def _bound(
    sandbox: Sandbox, host: str | IPAddress, port: int, type: int
) -> stdlib_socket.socket:
    family, address = _endpoint(host, port)
    made = await sandbox.socket(family, type)
    try:
        if type == stdlib_socket.SOCK_STREAM:
            made.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEADDR, 1)
        if family == stdlib_socket.AF_INET6:
            made.setsockopt(stdlib_socket.IPPROTO_IPV6, stdlib_socket.IPV6_V6ONLY, 0)
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made


async def listen_tcp(
    sandbox: Sandbox, host: str | IPAddress, port: int, backlog: int
) -> SocketListener:
    """Listen in a sandbox."""
    made = await _bound(sandbox, host, port, stdlib_socket.SOCK_STREAM)
    try:
        made.listen(backlog)
        return await SocketListener.from_socket(made)
    except BaseException:
        made.close()
        raise


async def udp(sandbox: Sandbox, host: str | IPAddress, port: int) -> UDPSocket:
    """Make a UDP socket in a sandbox."""
    made = await _bound(sandbox, host, port, stdlib_socket.SOCK_DGRAM)
    try:
        return await UDPSocket.from_socket(made)
    except BaseException:
        made.close()
        raise
