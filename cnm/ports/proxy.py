"""The user-space proxy: for what the kernel cannot translate.

That is what is sent to ``::1``, which it redirects here, and everything if there is no
firewall. There are no processes and no threads for it, but a task or two for each
connection.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import anyio
import anyio.lowlevel

from ..errors import CNMError, KernelError
from ..firewall import Element, Firewall
from ..firewall.ruleset import PROXY
from ..linux import Kernel, Sockets
from ..requests.specs import asks_for
from .datagrams import Datagrams, Flows
from .places import HostPort, host_port
from .publication import LOOPBACK6, PROXIED_PROTOCOLS
from .relay import connect, connected, relay, reset
from .routes import Routes, Target
from .sockets import listen

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from anyio.abc import TaskGroup, TaskStatus

    from ..types import PortBinding, PortRequest, Proto

#: A protocol, and a port at ``::1``.
_Place: TypeAlias = "tuple[Proto, int]"
_Listeners: TypeAlias = "dict[_Place, socket.socket]"
_logger = logging.getLogger(__name__)

# include/uapi/linux/netfilter_ipv6/ip6_tables.h: IP6T_SO_ORIGINAL_DST, with a struct
# sockaddr_in6, in which the port comes after the family
_IP6T_SO_ORIGINAL_DST = 80
_SOCKADDR_IN6 = struct.Struct("!2xH24x")

_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# Behind the ports that the kernel chooses by itself, net.ipv4.ip_local_port_range.
_OUT_OF_THE_WAY = range(65535, 65435, -1)
# Seconds to wait for room for another connection.
_BACK_OFF = 0.1


class Proxy:
    """Passes connections and datagrams on to sandboxes.

    Both sides see each other's half-closing and resetting, and neither may send more
    than the other one takes. When a port is taken back, its connections end.

    :param kernel: where connections to sandboxes are made from
    :param firewall: what redirects to the proxy what is sent to ``::1``
    :ivar routes: where ports lead
    """

    def __init__(self, kernel: Kernel, firewall: Firewall) -> None:
        self._kernel = kernel
        self._firewall = firewall
        self.routes: Routes = Routes()
        self._flows = Flows()
        self._opening = anyio.Lock()
        self._redirected: _Listeners = {}
        self._served: dict[HostPort, socket.socket] = {}
        self._tasks: TaskGroup | None = None
        self._warned = False

    def is_open(self, requests: Collection[PortRequest] = ()) -> bool:
        """Tell whether what is sent to ``::1`` can be redirected to the proxy.

        :param requests: what is to be published, and must not be in use by the proxy
        """
        return bool(self._redirected) and not self._in_the_way(requests)

    async def open(self, requests: Collection[PortRequest] = ()) -> bool:
        """Have what is sent to ``::1`` redirected to the proxy.

        There is one TCP and one UDP socket for all ports, and :attr:`routes` says where
        each of them leads.

        :param requests: what is to be published: the sockets make way for it
        :return: whether that is possible: not if the host does not have ``::1``
        :raises KernelError: if the sockets cannot be made
        """
        async with self._opening:
            wanted = self._in_the_way(requests)
            if not self._redirected:
                wanted = PROXIED_PROTOCOLS
            if wanted:
                opened = await self._kernel.run(self._listen, wanted, requests)
                for former in _alike(self._redirected, opened):
                    self._make_way(self._redirected.pop(former))
                self._redirected |= opened
                for listener in opened.values():
                    self._start(listener, None)
        return bool(self._redirected)

    def serve(self, binding: PortBinding, listener: socket.socket) -> None:
        """Serve a binding on a listening socket, which now belongs to the proxy."""
        place = host_port(binding)
        self.routes.add({place: _target(binding)})
        self._served[place] = listener
        self._start(listener, place)

    def stop(self, binding: PortBinding) -> None:
        """Undo :meth:`serve`, and free the port; no error if it is not served."""
        place = host_port(binding)
        if listener := self._served.pop(place, None):
            _close(listener)
        self.routes.remove({place: _target(binding)})

    async def run(
        self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                for listener in self._redirected.values():
                    self._start(listener, None)
                for place, listener in self._served.items():
                    self._start(listener, place)
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._tasks = None
            self.close()

    def close(self) -> None:
        """Close the sockets that are listened on."""
        for listener in (*self._redirected.values(), *self._served.values()):
            _close(listener)
        self._redirected, self._served = {}, {}

    def _in_the_way(self, requests: Collection[PortRequest]) -> tuple[Proto, ...]:
        """Return the protocols whose socket has a port that is asked for."""
        return tuple(
            proto
            for proto, port in self._redirected
            if _is_wanted(proto, port, requests)
        )

    def _listen(
        self,
        sockets: Sockets,
        protocols: Iterable[Proto],
        requests: Collection[PortRequest],
    ) -> _Listeners:
        """Plan: open sockets that are redirected to, from now on."""
        opened: _Listeners = {}
        try:
            for proto in protocols:
                made = _listen_out_of_the_way(proto, requests)
                opened[proto, made.getsockname()[1]] = made
            former = _alike(self._redirected, opened)
            self._firewall.update(
                sockets, add=_elements(opened), remove=_elements(former)
            )
        except BaseException as exc:
            for listener in opened.values():
                listener.close()
            if not isinstance(exc, OSError) or isinstance(exc, CNMError):
                raise
            if exc.errno not in _NO_IPV6:
                number = exc.errno or errno.EIO
                raise KernelError(number, "listen on ::1 for the proxy") from exc
            _logger.debug("nothing is proxied: there is no ::1")
            return {}
        return opened

    def _start(self, listener: socket.socket, place: HostPort | None) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(self._serve, listener, place)

    async def _serve(self, listener: socket.socket, place: HostPort | None) -> None:
        """Serve what comes to a socket.

        :param place: the port that it is; None if it is redirected from many
        """
        try:
            if listener.type == socket.SOCK_DGRAM:
                context = self._kernel, self.routes, self._flows
                await Datagrams(listener, place, *context).serve()
            else:
                await self._accept(listener, place)
        except Exception:
            if listener.fileno() >= 0:  # it was stopped otherwise, before it began
                what = place or LOOPBACK6
                _logger.exception("the proxy has ceased to serve %s", what)

    async def _accept(self, listener: socket.socket, place: HostPort | None) -> None:
        """Accept connections until the socket is closed."""
        while True:
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                try:
                    await anyio.wait_readable(listener)
                except anyio.ClosedResourceError:
                    return
            except OSError as exc:
                if exc.errno == errno.EBADF:
                    return
                await self._cannot_accept(exc)
            else:
                assert self._tasks is not None
                self._tasks.start_soon(self._converse, client, place)
                await anyio.lowlevel.checkpoint()

    def _make_way(self, listener: socket.socket) -> None:
        """Close a socket that nothing comes to any more; serve who has come to it."""
        if self._tasks is not None and listener.type == socket.SOCK_STREAM:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    self._tasks.start_soon(self._converse, client, None)
        _close(listener)

    async def _cannot_accept(self, error: OSError) -> None:
        """Say so once, and leave time for something to be closed."""
        if error.errno not in _NO_ROOM:
            return  # the client has gone away
        if not self._warned:
            self._warned = True
            _logger.warning("the proxy cannot accept connections: %s", error)
        await anyio.sleep(_BACK_OFF)

    async def _converse(self, client: socket.socket, place: HostPort | None) -> None:
        """Serve one connection."""
        with client:
            try:
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                place = place or _wanted(client)
                target = self.routes.target(place)
                if target is None:
                    reset(client)
                else:
                    await self._pass_on(client, place, target)
            except (OSError, CNMError) as exc:
                _logger.debug("a connection to %s has failed: %s", place, exc)
                reset(client)

    async def _pass_on(
        self, client: socket.socket, place: HostPort, target: Target
    ) -> None:
        with (
            await self._kernel.run(_connect, target) as server,
            self.routes.using(place, target, client, server) as valid,
        ):
            if valid:
                await connected(server)
                await relay(client, server)


def _alike(places: Iterable[_Place], others: Iterable[_Place]) -> list[_Place]:
    """Return the places that are of the same protocols as others."""
    protocols = {proto for proto, _ in others}
    return [place for place in places if place[0] in protocols]


def _elements(places: Iterable[_Place]) -> list[Element]:
    """Return what redirects to some places."""
    return [Element(PROXY, (proto,), (port,)) for proto, port in places]


def _is_wanted(proto: Proto, port: int, requests: Iterable[PortRequest]) -> bool:
    return any(it.proto == proto and asks_for(it, port) for it in requests)


def _listen_out_of_the_way(
    proto: Proto, requests: Iterable[PortRequest]
) -> socket.socket:
    """Listen at ``::1``, at a port that hardly anybody wants to publish."""
    for port in _OUT_OF_THE_WAY:
        if _is_wanted(proto, port, requests):
            continue
        try:
            return listen(HostPort(LOOPBACK6, proto, port))
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
    return listen(HostPort(LOOPBACK6, proto, 0))


def _connect(sockets: Sockets, target: Target) -> socket.socket:
    """Plan: begin a connection, from the controller's network namespace."""
    return connect(target)


def _wanted(client: socket.socket) -> HostPort:
    """Return the port that a client was redirected from.

    :raises OSError: if it was not
    """
    size = _SOCKADDR_IN6.size
    found = client.getsockopt(socket.IPPROTO_IPV6, _IP6T_SO_ORIGINAL_DST, size)
    (port,) = _SOCKADDR_IN6.unpack(found)
    return HostPort(LOOPBACK6, "tcp", port)


def _target(binding: PortBinding) -> Target:
    return binding.container_address, binding.container_port


def _close(listener: socket.socket) -> None:
    """Close a socket that somebody may be waiting for."""
    anyio.notify_closing(listener)
    listener.close()
