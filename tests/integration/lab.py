"""Network namespaces for tests: hosts, bridges, containers, and traffic between them.

Everything happens in namespaces that the test makes itself; they are gone when it ends.
All sockets of all namespaces belong to the test's process: a thread enters a namespace,
makes a socket there, and dies.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Self, TypeVar

import anyio

from cnm.errors import KernelError
from cnm.linux import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    add_address,
    add_bridge,
    add_route,
    add_veth,
    choose_index,
    delete_link,
    namespaces,
    set_bridge_port,
    set_link,
    sysctl,
)
from cnm.linux.carrier import wait_for_carrier
from cnm.linux.links import RTNLGRP_LINK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

T = TypeVar("T")

LOOPBACK = 1
#: how long a test waits for an answer that must come, and for one that must not
PATIENCE = 3.0
BLOCKED_AFTER = 0.3


def in_thread(function: Callable[[], T]) -> T:
    """Run a function in a thread of its own, which may end in any namespace."""
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class Closing(ABC):
    """Something that is closed at the end of a ``with`` block."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


class Namespace(Closing):
    """A network namespace: a new one, which lives until it is closed, or another's.

    :param path: where another's is pinned
    :ivar netns: its file descriptor
    :ivar route: rtnetlink socket in it
    :ivar nft: nfnetlink socket in it
    """

    def __init__(self, name: str = "namespace", path: str = "") -> None:
        self.name = name
        self.netns, self.route, self.nft = in_thread(partial(self._open, path))
        self.sysctl("net.ipv4.ping_group_range", "0 0")
        if path:
            return
        self.route.call(set_link(LOOPBACK, up=True))
        for scope in ("all", "default"):
            # nothing is forwarded to a link while its link-local address is on trial
            self.sysctl(f"net.ipv6.conf.{scope}.accept_dad", "0")

    @staticmethod
    def _open(path: str) -> tuple[int, NetlinkSocket, NetlinkSocket]:
        if not path:
            namespaces.unshare(namespaces.CLONE_NEWNET)
        netns = namespaces.open_namespace(path or namespaces.OWN)
        namespaces.enter(netns)
        return netns, NetlinkSocket(), NetlinkSocket(NETLINK_NETFILTER)

    def close(self) -> None:
        """Let go of the namespace."""
        self.route.close()
        self.nft.close()
        os.close(self.netns)

    def run(self, function: Callable[[], T]) -> T:
        """Run a function in a thread inside the namespace."""

        def inside() -> T:
            namespaces.enter(self.netns)
            return function()

        return in_thread(inside)

    def sysctl(self, name: str, value: str) -> None:
        """Write a kernel setting of the namespace."""
        self.run(lambda: sysctl.write(name, value))

    def socket(self, family: int, kind: int, proto: int = 0) -> socket.socket:
        """Return a new socket in the namespace."""
        return self.run(lambda: socket.socket(family, kind, proto))

    def add_addresses(self, index: int, *addresses: str) -> None:
        """Give a link addresses, and switch it on."""
        interfaces = [ip_interface(address) for address in addresses]
        self.route.call(
            set_link(index, up=True),
            *(add_address(index, interface) for interface in interfaces),
        )

    def add_default_routes(self, *gateways: str) -> None:
        """Route everything by way of gateways."""
        self.route.call(*(add_route(None, via=ip_address(it)) for it in gateways))

    def add_bridge(self, name: str, *addresses: str) -> int:
        """Make a bridge with addresses; return its index."""
        index = choose_index()
        self.route.call(add_bridge(name, index=index))
        self.add_addresses(index, *addresses)
        return index

    def connect(
        self,
        other: Namespace,
        name: str,
        *addresses: str,
        master: int = 0,
        interface: str = "eth0",
        isolated: bool = False,
    ) -> tuple[int, int]:
        """Make a veth pair to another namespace; return the indexes of both ends.

        :param addresses: the other end's addresses
        :param master: index of the bridge that this end becomes a port of
        """
        index, peer = choose_index(), choose_index()
        self.route.call(
            add_veth(
                name,
                interface,
                index=index,
                peer_index=peer,
                peer_netns=other.netns,
                master=master,
            )
        )
        if isolated:
            self.route.call(set_bridge_port(index, isolated=True))
        other.add_addresses(peer, *addresses)
        wait_for_carrier(self.route, index, *([master] if master else []))
        return index, peer


@contextmanager
def busy_kernel() -> Iterator[None]:
    """Have others make and remove links all the time.

    The kernel has to take turns with them to do what it does in the background, such as
    to notice carriers: they wait already when it begins to.
    """
    over = threading.Event()

    def keep_busy() -> None:
        with Namespace("busy") as where:
            while not over.is_set():
                where.route.call(add_bridge("br0", index=9), delete_link(9))

    with ThreadPoolExecutor() as pool:
        others = [pool.submit(keep_busy) for _ in range(3)]
        try:
            yield
        finally:
            over.set()
        for other in others:
            other.result()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds of which nobody tells."""
    with anyio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - this is a test
            await anyio.sleep(0.01)


async def until_links(condition: Callable[[], bool]) -> None:
    """Wait until something holds that depends on the links of the host."""
    with NetlinkSocket() as told, anyio.fail_after(30):
        told.subscribe(RTNLGRP_LINK)
        while not condition():
            await anyio.wait_readable(told)
            with suppress(OSError):  # more has come than there is room for
                told.receive()


def make_router(host: Namespace, *, filter_bridges: bool = False) -> None:
    """Have a namespace forward IPv4 and IPv6.

    :param filter_bridges: whether what stays within a bridge passes the firewall as
        well, if the kernel has br_netfilter
    """
    host.sysctl("net.ipv4.ip_forward", "1")
    host.sysctl("net.ipv6.conf.all.forwarding", "1")
    for name in ("iptables", "ip6tables"):
        with suppress(KernelError):  # without br_netfilter there is no such setting
            host.sysctl(f"net.bridge.bridge-nf-call-{name}", str(int(filter_bridges)))


class Servers:
    """Answer ``NAME CLIENT-ADDRESS`` on TCP and UDP ports, in any namespaces."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, wakened = socket.socketpair()
        self._selector.register(wakened, selectors.EVENT_READ, None)
        self._sockets = [self._wake, wakened]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def add(self, where: Namespace, port: int, proto: str = "tcp") -> None:
        """Serve a port, on all IPv4 and IPv6 addresses."""
        kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
        server = where.socket(socket.AF_INET6, kind)
        self._sockets.append(server)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", port))
        if proto == "tcp":
            server.listen()
        self._selector.register(server, selectors.EVENT_READ, where.name)

    def close(self) -> None:
        """Stop serving."""
        self._wake.send(b"\0")
        self._thread.join()
        self._selector.close()
        for open_socket in self._sockets:
            open_socket.close()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                with suppress(OSError):  # a client that has gone away
                    self._answer(key.fileobj, key.data)

    @staticmethod
    def _answer(server: object, name: str) -> None:
        assert isinstance(server, socket.socket)
        if server.type == socket.SOCK_DGRAM:
            _, client = server.recvfrom(100)
            server.sendto(_greeting(name, client), client)
        else:
            connection, client = server.accept()
            with connection:
                connection.sendall(_greeting(name, client))


def _greeting(name: str, client: tuple[str, ...]) -> bytes:
    return f"{name} {client[0].removeprefix('::ffff:')}".encode()


@dataclass(frozen=True, slots=True)
class Question:
    """How a server is asked: by a socket of what kind, and what is sent.

    :ivar header: how much of the answer comes before its text
    """

    family: int
    kind: int
    proto: int = 0
    text: bytes = b""
    header: int = 0


def question(address: str, proto: str) -> Question:
    """Return how to ask an address: by ``tcp``, ``udp`` or ``icmp``."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if proto == "tcp":
        return Question(family, socket.SOCK_STREAM)
    if proto == "udp":
        return Question(family, socket.SOCK_DGRAM, 0, b"?")
    # icmp(7): the kernel completes the request, and passes on the answer to it only
    icmp, request = socket.IPPROTO_ICMP, 8
    if family == socket.AF_INET6:
        icmp, request = socket.IPPROTO_ICMPV6, 128
    text = bytes([request, *bytes(7)]) + b"echo"
    return Question(family, socket.SOCK_DGRAM, icmp, text, 8)


def failed(answer: str) -> bool:
    """Tell whether what was asked has had no answer, or an error."""
    return not answer or answer in errno.errorcode.values()


def ask(
    where: Namespace,
    address: str,
    port: int,
    proto: str = "tcp",
    *,
    timeout: float = PATIENCE,
) -> str:
    """Return what a server answers; ``echo`` by ICMP, at whatever port.

    :return: ``""`` if nothing comes in time, or the name of an error number
    """
    it = question(address, proto)
    with where.socket(it.family, it.kind, it.proto) as client:
        client.settimeout(timeout)
        try:
            client.connect((address, port))
            if it.text:
                client.send(it.text)
            return client.recv(100)[it.header :].decode()
        except TimeoutError:
            return ""
        except OSError as exc:
            return errno.errorcode[exc.errno or 0]
