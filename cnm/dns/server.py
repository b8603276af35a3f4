"""Serving the resolvers of all sandboxes, with one task."""

from __future__ import annotations

import logging
import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from .messages import LARGEST_QUERY, Question
from .upstream import receive_exactly

if TYPE_CHECKING:
    from .resolver import Resolver

_logger = logging.getLogger(__name__)

#: Sockets that are served before other tasks have their turn, datagrams of each, and
#: seconds: what has not been asked before takes longer.
SOCKETS = 4
DATAGRAMS = 16
SLICE = 0.002
#: TCP clients of a sandbox, and seconds in which one has to send or to take a message.
CLIENTS = 16
TCP_TIMEOUT = 10
#: Bytes of answers that wait for a TCP client; one more may be as long as it likes.
TCP_BUFFER = 65536
#: Seconds for which a socket is left alone that cannot be read.
PAUSE = 1


class _Served:
    """A resolver's sockets, and what is being done for it."""

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self.sockets: list[socket.socket] = []
        self.clients: set[socket.socket] = set()
        self.scopes: set[anyio.CancelScope] = set()

    def scope(self) -> anyio.CancelScope:
        """Return a scope for something that is to end when the resolver is closed."""
        made = anyio.CancelScope()
        self.scopes.add(made)
        return made


_Handler: TypeAlias = Callable[[_Served, socket.socket], None]


class Server:
    """Serves resolvers.

    There is one epoll for all sockets, so that thousands of sandboxes need no tasks.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._served: dict[Resolver, _Served] = {}
        self._handlers: dict[int, tuple[_Handler, _Served, socket.socket]] = {}
        self._paused: set[socket.socket] = set()
        self._slice_ends = 0.0
        self._tasks: TaskGroup

    def open(self, resolver: Resolver, udp: socket.socket, tcp: socket.socket) -> None:
        """Serve a resolver at sockets, which are taken over.

        :param udp: a bound socket
        :param tcp: a listening socket
        """
        served = self._served.setdefault(resolver, _Served(resolver))
        for made, handler in ((udp, self._datagrams), (tcp, self._connections)):
            served.sockets.append(made)
            self._handlers[made.fileno()] = handler, served, made
            self._epoll.register(made, select.EPOLLIN)

    def close(self, resolver: Resolver) -> None:
        """Serve a resolver no more: close its sockets, and drop its queries."""
        for made in self.release(resolver):
            made.close()

    def release(self, resolver: Resolver) -> list[socket.socket]:
        """Serve a resolver no more, and drop its queries.

        :return: its sockets, to be closed; the event loop need not do it
        """
        served = self._served.pop(resolver, None)
        if served is None:
            return []
        for made in served.sockets:
            self._paused.discard(made)
            # what comes until it is closed, which takes it out of the epoll, is ignored
            del self._handlers[made.fileno()]
        for scope in served.scopes:
            scope.cancel()
        for client in served.clients:
            # an open socket would keep the sandbox's namespace alive
            anyio.notify_closing(client)
            client.close()
        return served.sockets

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
                if not ready:
                    await anyio.wait_readable(self._epoll)
                self._slice_ends = time.perf_counter() + SLICE
                for descriptor, _ in ready:
                    if time.perf_counter() > self._slice_ends:
                        await self._yield()
                    self._handle(descriptor)
                if ready:
                    await self._yield()

    async def _yield(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._slice_ends = time.perf_counter() + SLICE

    def _handle(self, descriptor: int) -> None:
        # it may have been closed in the meantime
        if entry := self._handlers.get(descriptor):
            handler, served, made = entry
            try:
                handler(served, made)
            except Exception:
                # a fault of ours is not to be the end of all others
                served.resolver.complain("a query")

    def _pause(self, made: socket.socket) -> None:
        """Leave a socket alone for a while: its error may stay for long."""
        self._epoll.unregister(made)
        self._paused.add(made)
        self._tasks.start_soon(self._resume, made)

    async def _resume(self, made: socket.socket) -> None:
        await anyio.sleep(PAUSE)
        if made in self._paused:
            self._paused.remove(made)
            self._epoll.register(made, select.EPOLLIN)

    # --- UDP --------------------------------------------------------------------------

    def _datagrams(self, served: _Served, made: socket.socket) -> None:
        resolver = served.resolver
        answers = resolver.answers
        for _ in range(DATAGRAMS):
            try:
                data, client = made.recvfrom(LARGEST_QUERY + 1)
            except BlockingIOError:
                return  # there are no more
            except OSError:
                self._pause(made)
                return
            kept = answers.get(data[2:])
            if kept is not None:
                # the way of most queries: nothing is parsed, nothing is made
                counters = resolver.counters
                counters.queries += 1
                counters.own += 1
                counters.noerror += 1
                if not isinstance(kept, bytes):
                    counters.truncated += kept.truncated
                    kept.rotate(-1)
                    kept = kept[0]
                _send(resolver, made, data[:2] + kept, client)
                continue
            reply = resolver.begin(data, tcp=False)
            if isinstance(reply, bytes):
                _send(resolver, made, reply, client)
            else:
                self._tasks.start_soon(
                    self._finish, served, served.scope(), made, reply, client
                )
            if time.perf_counter() > self._slice_ends:
                return

    async def _finish(
        self,
        served: _Served,
        scope: anyio.CancelScope,
        made: socket.socket,
        question: Question,
        client: tuple[object, ...],
    ) -> None:
        try:
            with scope:
                reply = await served.resolver.finish(question)
                _send(served.resolver, made, reply, client)
        except Exception:
            served.resolver.complain(question.name)
        finally:
            served.scopes.discard(scope)

    # --- TCP --------------------------------------------------------------------------

    def _connections(self, served: _Served, made: socket.socket) -> None:
        for _ in range(DATAGRAMS):
            try:
                client, _ = made.accept()
            except BlockingIOError:
                return
            except OSError:
                self._pause(made)  # there may be too many files open
                return
            if len(served.clients) >= CLIENTS:
                client.close()
                continue
            client.setblocking(False)
            # the kernel would keep megabytes for one that does not read its answers
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, TCP_BUFFER)
            served.clients.add(client)
            scope = served.scope()
            self._tasks.start_soon(self._serve_client, served, scope, client)

    async def _serve_client(
        self, served: _Served, scope: anyio.CancelScope, client: socket.socket
    ) -> None:
        try:
            with scope:
                while True:
                    await _answer(served.resolver, client)
        except (OSError, TimeoutError, anyio.EndOfStream, anyio.ClosedResourceError):
            _logger.debug("a client of %r is gone", served.resolver.sandbox.name)
        except Exception:
            served.resolver.complain("a query by TCP")
        finally:
            served.scopes.discard(scope)
            served.clients.discard(client)
            client.close()


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
