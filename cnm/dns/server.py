"""Serving the resolvers of all sandboxes, with one task."""

from __future__ import annotations

import errno
import logging
import select
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from .messages import HEADER, Question
from .upstream import receive_exactly

if TYPE_CHECKING:
    from .resolver import Resolver

_logger = logging.getLogger(__name__)

#: Sockets that are served before other tasks have their turn, and datagrams of each.
SOCKETS = 4
DATAGRAMS = 16
#: Bytes of the largest query by UDP.
LARGEST_QUERY = 4096
#: TCP clients of a sandbox, and seconds in which one has to send or to take a message.
CLIENTS = 16
TCP_TIMEOUT = 10


class _Served:
    """A resolver's sockets, and what is being done for it."""

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self.sockets: list[socket.socket] = []
        self.clients: set[socket.socket] = set()
        self.scopes: set[anyio.CancelScope] = set()


class Server:
    """Serves resolvers.

    There is one epoll for all sockets, so that thousands of sandboxes need no tasks.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._served: dict[Resolver, _Served] = {}
        self._handlers: dict[int, Callable[[], None]] = {}
        self._tasks: TaskGroup

    def open(self, resolver: Resolver, udp: socket.socket, tcp: socket.socket) -> None:
        """Serve a resolver at sockets, which are taken over.

        :param udp: a bound socket
        :param tcp: a listening socket
        """
        served = self._served.setdefault(resolver, _Served(resolver))
        for made, handler in ((udp, self._datagrams), (tcp, self._connections)):
            served.sockets.append(made)
            self._handlers[made.fileno()] = partial(handler, served, made)
            self._epoll.register(made, select.EPOLLIN)

    def close(self, resolver: Resolver) -> None:
        """Serve a resolver no more: close its sockets, and drop its queries."""
        served = self._served.pop(resolver, None)
        if served is None:
            return
        for made in served.sockets:
            self._epoll.unregister(made)
            del self._handlers[made.fileno()]
            made.close()
        for scope in served.scopes:
            scope.cancel()
        for client in served.clients:
            # an open socket would keep the sandbox's namespace alive
            anyio.notify_closing(client)
            client.close()

    def shut(self) -> None:
        """Close everything."""
        for resolver in list(self._served):
            self.close(resolver)
        self._epoll.close()

    async def run(self) -> None:
        """Serve, until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            while True:
                ready = self._epoll.poll(0, SOCKETS)
                for descriptor, _ in ready:
                    # one that came before may have closed it
                    if handler := self._handlers.get(descriptor):
                        _survive(handler)
                if ready:
                    await anyio.lowlevel.checkpoint()
                else:
                    await anyio.wait_readable(self._epoll)

    # --- UDP --------------------------------------------------------------------------

    def _datagrams(self, served: _Served, made: socket.socket) -> None:
        resolver = served.resolver
        answers = resolver.answers
        for _ in range(DATAGRAMS):
            try:
                data, client = made.recvfrom(LARGEST_QUERY + 1)
            except OSError:
                return  # there are no more
            kept = answers.get(data[2:])
            if kept is not None:
                # the way of most queries: nothing is parsed, nothing is made
                counters = resolver.counters
                counters.queries += 1
                counters.own += 1
                counters.noerror += 1
                if not isinstance(kept, bytes):
                    kept.rotate(-1)
                    kept = kept[0]
                reply: bytes | Question = data[:2] + kept
            elif len(data) > LARGEST_QUERY:
                reply = resolver.begin(data[:HEADER], tcp=False)
            else:
                reply = resolver.begin(data, tcp=False)
            if isinstance(reply, bytes):
                _send(resolver, made, reply, client)
            else:
                self._tasks.start_soon(self._finish, served, made, reply, client)

    async def _finish(
        self,
        served: _Served,
        made: socket.socket,
        question: Question,
        client: tuple[object, ...],
    ) -> None:
        with anyio.CancelScope() as scope:
            served.scopes.add(scope)
            try:
                reply = await served.resolver.finish(question)
                _send(served.resolver, made, reply, client)
            except Exception:
                _logger.exception("a query of %r", served.resolver.sandbox.name)
            finally:
                served.scopes.discard(scope)

    # --- TCP --------------------------------------------------------------------------

    def _connections(self, served: _Served, made: socket.socket) -> None:
        for _ in range(DATAGRAMS):
            try:
                client, _ = made.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in (errno.EMFILE, errno.ENFILE):
                    self._refuse(made)
                return
            if len(served.clients) >= CLIENTS:
                client.close()
                continue
            client.setblocking(False)
            served.clients.add(client)
            self._tasks.start_soon(self._serve_client, served, client)

    def _refuse(self, made: socket.socket) -> None:
        """Take no clients for a while, instead of being told of them all the time."""
        self._epoll.modify(made, 0)
        self._tasks.start_soon(self._accept_again, made)

    async def _accept_again(self, made: socket.socket) -> None:
        await anyio.sleep(1)
        if made.fileno() >= 0:
            self._epoll.modify(made, select.EPOLLIN)

    async def _serve_client(self, served: _Served, client: socket.socket) -> None:
        with anyio.CancelScope() as scope:
            served.scopes.add(scope)
            try:
                while True:
                    await _answer(served.resolver, client)
            except (
                OSError,
                TimeoutError,
                anyio.EndOfStream,
                anyio.ClosedResourceError,
            ):
                _logger.debug("a client of %r is gone", served.resolver.sandbox.name)
            except Exception:
                _logger.exception("a client of %r", served.resolver.sandbox.name)
            finally:
                served.scopes.discard(scope)
                served.clients.discard(client)
                client.close()


def _survive(handler: Callable[[], None]) -> None:
    """Serve a socket; a fault there must not be the end of all others."""
    try:
        handler()
    except Exception:
        _logger.exception("a query could not be handled")


def _send(
    resolver: Resolver, made: socket.socket, reply: bytes, client: tuple[object, ...]
) -> None:
    if not reply:
        return
    try:
        made.sendto(reply, client)
    except OSError:
        resolver.counters.lost += 1


async def _answer(resolver: Resolver, client: socket.socket) -> None:
    """Read a query from a TCP client, and answer it."""
    with anyio.fail_after(TCP_TIMEOUT):
        length = int.from_bytes(await receive_exactly(client, 2), "big")
        data = await receive_exactly(client, length)
    await anyio.lowlevel.checkpoint()
    reply = resolver.begin(data, tcp=True)
    if not isinstance(reply, bytes):
        reply = await resolver.finish(reply)
    if not reply:
        raise anyio.EndOfStream
    view = memoryview(len(reply).to_bytes(2, "big") + reply)
    with anyio.fail_after(TCP_TIMEOUT):
        while view:
            try:
                view = view[client.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(client)
