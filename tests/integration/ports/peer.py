"""Sockets of tests, in any namespace, without blocking the event loop."""

from __future__ import annotations

import socket
from typing import Self

import anyio

from tests.integration.lab import PATIENCE, Closing, Namespace


class Peer(Closing):
    """A socket. What has to wait fails after a while."""

    def __init__(self, made: socket.socket) -> None:
        made.setblocking(False)
        self.socket = made

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    @classmethod
    def server(cls, where: Namespace, port: int, address: str = "") -> Self:
        """Return a TCP server."""
        peer = cls(where.socket(socket.AF_INET, socket.SOCK_STREAM))
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        peer.socket.bind((address, port))
        peer.socket.listen()
        return peer

    @classmethod
    def udp(cls, where: Namespace, address: str, port: int) -> Self:
        """Return a UDP socket that is connected."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        peer = cls(where.socket(family, socket.SOCK_DGRAM))
        peer.socket.connect((address, port))
        return peer

    @classmethod
    def udp_server(cls, where: Namespace, port: int) -> Self:
        """Return a UDP socket that is bound to a port."""
        peer = cls(where.socket(socket.AF_INET, socket.SOCK_DGRAM))
        peer.socket.bind(("", port))
        return peer

    @classmethod
    async def client(cls, where: Namespace, address: str, port: int) -> Self:
        """Return a TCP connection."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        peer = cls(where.socket(family, socket.SOCK_STREAM))
        error = peer.socket.connect_ex((address, port))
        if error:
            with anyio.fail_after(PATIENCE):
                await anyio.wait_writable(peer.socket)
        return peer

    async def accept(self) -> Peer:
        """Return a connection of a client."""
        await self._readable()
        return Peer(self.socket.accept()[0])

    async def receive(self, size: int = 1 << 16) -> bytes:
        """Return what comes next; ``b""`` at the end."""
        await self._readable()
        return self.socket.recv(size)

    async def hear(self) -> tuple[bytes, tuple[str, int]]:
        """Return the next datagram, and who has sent it."""
        await self._readable()
        data, sender = self.socket.recvfrom(100)
        return data, sender

    async def all(self) -> bytes:
        """Return what comes until the end."""
        parts = []
        while part := await self.receive():
            parts.append(part)
        return b"".join(parts)

    async def send(self, data: bytes) -> None:
        """Send all of something."""
        rest = memoryview(data)
        while rest:
            with anyio.fail_after(PATIENCE):
                await anyio.wait_writable(self.socket)
            rest = rest[self.socket.send(rest) :]

    def end(self) -> None:
        """Have nothing more to say."""
        self.socket.shutdown(socket.SHUT_WR)

    async def _readable(self) -> None:
        with anyio.fail_after(PATIENCE):
            await anyio.wait_readable(self.socket)
