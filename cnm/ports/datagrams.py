"""What goes through the user-space proxy by UDP.

A client is known by its address and port. As long as it says something, or is told
something, it has a socket of its own towards the sandbox.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections import OrderedDict, deque
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, TypeAlias

import anyio
import anyio.lowlevel

from ..errors import CNMError
from ..linux import Kernel, Sockets, original_destination
from .places import HostPort
from .publication import LOOPBACK6
from .sockets import open_socket

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .routes import Routes, Target

_logger = logging.getLogger(__name__)

_Client: TypeAlias = "tuple[str, int] | tuple[str, int, int, int]"
_Ancillary: TypeAlias = "tuple[int, int, bytes]"
_Key: TypeAlias = "tuple[int, _Client, _Ancillary | None]"

#: Seconds for which a client is remembered that says nothing and is told nothing. RFC
#: 4787, REQ-5, demands two minutes, which the kernel's conntrack has as well.
IDLE = 120.0
#: Clients that are remembered; the one that has been idle for longest makes room.
CLIENTS = 1024
# Seconds after which the kernel may have redirected a client's address from another
# port than before: it forgets after 30 (nf_conntrack_udp_timeout).
_SURE = 20.0
# Datagrams that are kept while the way is looked for.
_PENDING = 16
_LONGEST = 1 << 16

# include/uapi/linux/in.h: IP_PKTINFO; struct in_pktinfo {ifindex, spec_dst, addr}
_IP_PKTINFO = 8
_PKTINFO4 = struct.Struct("=i4s4s")
# include/uapi/linux/ipv6.h: struct in6_pktinfo {addr, ifindex}
_PKTINFO6 = struct.Struct("=16si")
_ANCILLARY = socket.CMSG_SPACE(_PKTINFO6.size)


class Flows:
    """The clients of a proxy, the one that has been idle for longest first."""

    def __init__(self) -> None:
        self._flows: OrderedDict[_Key, _Flow] = OrderedDict()

    def get(self, key: _Key) -> _Flow | None:
        """Return a client that is known."""
        return self._flows.get(key)

    def add(self, flow: _Flow) -> None:
        """Remember a client."""
        self._flows[flow.key] = flow
        if len(self._flows) > CLIENTS:
            _, oldest = self._flows.popitem(last=False)
            oldest.scope.cancel()

    def touch(self, flow: _Flow) -> None:
        """Note that a client is not idle."""
        flow.last = anyio.current_time()
        if self._flows.get(flow.key) is flow:
            self._flows.move_to_end(flow.key)

    def discard(self, flow: _Flow) -> None:
        """Forget a client."""
        if self._flows.get(flow.key) is flow:
            del self._flows[flow.key]


class _Flow:
    """A client.

    :ivar key: which one
    :ivar last: when it last said or was told something
    :ivar place: the port of the host that it wants
    :ivar scope: what ends it
    """

    def __init__(self, key: _Key, pending: Iterable[bytes] = ()) -> None:
        self.key = key
        self.last: float = anyio.current_time()
        self.scope: anyio.CancelScope = anyio.CancelScope()
        self.place: HostPort | None = None
        self.pending: deque[bytes] | None = deque(pending, maxlen=_PENDING)
        self._connection: socket.socket

    def open(self, place: HostPort, connection: socket.socket) -> None:
        """Have the way, and send what has been waiting for it."""
        self.place = place
        self._connection = connection
        self.flush()

    def flush(self) -> None:
        """Send what has been waiting."""
        pending, self.pending = self.pending, None
        for data in pending or ():
            self._send(data)

    def say(self, data: bytes) -> None:
        """Send what the client says, now or when there is a way."""
        if self.pending is None:
            self._send(data)
        else:
            self.pending.append(data)

    def _send(self, data: bytes) -> None:
        for _ in range(2):
            try:
                self._connection.send(data)
            except ConnectionRefusedError:
                continue  # the answer to the datagram before this one
            except OSError as exc:
                # also if there is no room: datagrams may get lost
                _logger.debug("a proxied datagram is lost: %s", exc)
            return


class Datagrams:
    """Serves the clients of one UDP socket.

    :param server: a non-blocking socket
    :param place: the port that all clients want; None if the kernel has redirected
        each from the one that it wants
    """

    def __init__(
        self,
        server: socket.socket,
        place: HostPort | None,
        kernel: Kernel,
        routes: Routes,
        flows: Flows,
    ) -> None:
        self._server = server
        self._place = place
        self._kernel = kernel
        self._routes = routes
        self._flows = flows
        self._tasks = anyio.create_task_group()
        if server.family == socket.AF_INET:
            server.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        else:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)

    async def serve(self) -> None:
        """Serve until cancelled, or until the socket is closed."""
        async with self._tasks:
            try:
                while True:
                    await self._receive()
            except anyio.ClosedResourceError:
                self._tasks.cancel_scope.cancel()

    async def _receive(self) -> None:
        """Take in a datagram, or wait until there is one."""
        try:
            data, ancillary, _, client = self._server.recvmsg(_LONGEST, _ANCILLARY)
        except BlockingIOError:
            await anyio.wait_readable(self._server)
            return
        except OSError as exc:
            if exc.errno == errno.EBADF:
                raise anyio.ClosedResourceError from exc
            raise
        self._arrived(data, (id(self), client, _reply_source(ancillary)))
        await anyio.lowlevel.checkpoint()

    def _arrived(self, data: bytes, key: _Key) -> None:
        flow = self._flows.get(key)
        if flow is None:
            self._begin(_Flow(key, [data]))
            return
        unsure = self._place is None and anyio.current_time() - flow.last > _SURE
        self._flows.touch(flow)
        if unsure and flow.pending is None:
            flow.pending = deque(maxlen=_PENDING)
            self._tasks.start_soon(self._confirm, flow)
        flow.say(data)

    def _begin(self, flow: _Flow) -> None:
        self._flows.add(flow)
        self._tasks.start_soon(self._converse, flow)

    async def _confirm(self, flow: _Flow) -> None:
        """Begin anew with a client if it wants another port than before."""
        try:
            place = await self._kernel.run(self._wanted, flow.key)
        except CNMError as exc:
            _logger.debug("a client's port is not known: %s", exc)
            return
        if place == flow.place:
            flow.flush()
        else:
            flow.scope.cancel()
            self._begin(_Flow(flow.key, flow.pending or ()))

    async def _converse(self, flow: _Flow) -> None:
        """Serve one client, as long as it is not idle."""
        try:
            with flow.scope:
                opened = await self._kernel.run(self._open, flow.key)
                if opened is None:
                    return
                place, target, connection = opened
                with (
                    connection,
                    self._routes.using(place, target, connection) as valid,
                ):
                    if valid:
                        flow.open(place, connection)
                        await self._answer(flow, connection, place, target)
        except (OSError, CNMError) as exc:
            _logger.debug("a client of the proxy is not served: %s", exc)
        finally:
            self._flows.discard(flow)

    def _wanted(self, sockets: Sockets, key: _Key) -> HostPort | None:
        """Plan: return the port of the host that a client wants."""
        if self._place is not None:
            return self._place
        address, port = key[1][:2]
        own, own_port = self._server.getsockname()[:2]
        found = original_destination(
            sockets, "udp", (ip_address(address), port), (ip_address(own), own_port)
        )
        return None if found is None else HostPort(LOOPBACK6, "udp", found[1])

    def _open(
        self, sockets: Sockets, key: _Key
    ) -> tuple[HostPort, Target, socket.socket] | None:
        """Plan: open the way for a client; None if there is none."""
        place = self._wanted(sockets, key)
        target = place and self._routes.target(place)
        if place is None or target is None:
            return None
        connection = open_socket(target[0], "udp")
        try:
            connection.setblocking(False)
            connection.connect((str(target[0]), target[1]))
        except BaseException:
            connection.close()
            raise
        return place, target, connection

    async def _answer(
        self, flow: _Flow, connection: socket.socket, place: HostPort, target: Target
    ) -> None:
        """Send back what the sandbox says."""
        while self._routes.target(place) == target:
            with anyio.move_on_after(flow.last + IDLE - anyio.current_time()) as idle:
                await anyio.wait_readable(connection)
            if idle.cancelled_caught:
                if anyio.current_time() >= flow.last + IDLE:
                    return
                continue
            try:
                data = connection.recv(_LONGEST)
            except (BlockingIOError, ConnectionRefusedError):
                continue  # nobody serves the port, yet
            self._flows.touch(flow)
            self._reply(data, flow.key)

    def _reply(self, data: bytes, key: _Key) -> None:
        _, client, source = key
        try:
            self._server.sendmsg([data], [source] if source else [], 0, client)
        except OSError as exc:
            # also if there is no room: datagrams may get lost
            _logger.debug("a proxied answer is lost: %s", exc)


def _reply_source(ancillary: Iterable[_Ancillary]) -> _Ancillary | None:
    """Return what has answers come from the address that a client has sent to."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            _, own, _ = _PKTINFO4.unpack(data)
            return level, kind, _PKTINFO4.pack(0, own, bytes(4))
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            address, index = _PKTINFO6.unpack(data)
            local = IPv6Address(address).is_link_local
            return level, kind, _PKTINFO6.pack(address, index if local else 0)
    return None
