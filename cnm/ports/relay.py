"""Copying what goes through the user-space proxy by TCP."""

from __future__ import annotations

import logging
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from .sockets import open_socket

if TYPE_CHECKING:
    from .routes import Target

_logger = logging.getLogger(__name__)

#: Bytes that are on their way in each direction, at most.
CHUNK = 1 << 16
# struct linger of socket(7): on, no time to linger. Closing then resets a connection.
_RESET = struct.pack("ii", 1, 0)


def connect(target: Target) -> socket.socket:
    """Begin a connection from the network namespace of the calling thread.

    :raises OSError: if it fails at once
    """
    address, port = target
    connection = open_socket(address, "tcp")
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BlockingIOError):
            connection.connect((str(address), port))
    except BaseException:
        connection.close()
        raise
    return connection


async def connected(connection: socket.socket) -> None:
    """Wait for a connection that has been begun.

    :raises OSError: if it fails
    """
    await anyio.wait_writable(connection)
    if error := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(error, "connection failed")


async def relay(client: socket.socket, server: socket.socket) -> None:
    """Copy both ways, until both sides have said all they have to say.

    When one side has ended, the other one is told, and may go on. Nothing is read that
    the other side does not take. If one side fails, both are reset.
    """
    async with anyio.create_task_group() as tasks:

        async def one_way(source: socket.socket, sink: socket.socket) -> None:
            try:
                await _copy(source, sink)
            except OSError as exc:
                _logger.debug("a proxied connection has failed: %s", exc)
                reset(client, server)
                tasks.cancel_scope.cancel()

        tasks.start_soon(one_way, client, server)
        tasks.start_soon(one_way, server, client)


def reset(*connections: socket.socket) -> None:
    """Have connections be reset when they are closed, in place of being ended."""
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


async def _copy(source: socket.socket, sink: socket.socket) -> None:
    while data := await _receive(source):
        await _send(sink, memoryview(data))
        # who always finds data would not let anybody else have a turn
        await anyio.lowlevel.checkpoint()
    sink.shutdown(socket.SHUT_WR)


async def _receive(source: socket.socket) -> bytes:
    while True:
        try:
            return source.recv(CHUNK)
        except BlockingIOError:
            await anyio.wait_readable(source)


async def _send(sink: socket.socket, data: memoryview) -> None:
    while data:
        try:
            data = data[sink.send(data) :]
        except BlockingIOError:
            await anyio.wait_writable(sink)
