"""The sockets of a sandbox's resolver: plans that make them inside the sandbox."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from ..linux import NETLINK_NETFILTER, NetlinkSocket, set_link
from ..linux.nftables import (
    IPV4,
    OUTPUT,
    PORT,
    PROTOCOL,
    Batch,
    Element,
    Hook,
    Set,
    commit,
    expressions as ex,
)
from ..types import IPAddress

if TYPE_CHECKING:
    from ..linux import SandboxSockets, Sockets

#: libnetwork's (resolver.go): of 127.0.0.0/8, so that every sandbox has it.
RESOLVER4 = IPv4Address("127.0.0.11")
#: For sandboxes without IPv4 addresses.
RESOLVER6 = IPv6Address("::1")
DNS_PORT = 53
#: TCP clients that may wait to be accepted.
BACKLOG = 64

_TABLE = "cnm-dns"
_LOOPBACK = 1
# include/uapi/linux/netfilter_ipv4.h: NF_IP_PRI_NAT_DST
_NAT_DESTINATION = -100
_MAP = Set("resolver", (PROTOCOL, PORT), (IPV4, PORT))


@dataclass(frozen=True, slots=True)
class Listeners:
    """Sockets for queries by UDP and by TCP at one address.

    :ivar address: the address
    :ivar redirected: whether port 53 is led to other ports, which the sockets have
    """

    address: IPAddress
    udp: socket.socket
    tcp: socket.socket
    redirected: bool = False

    def close(self) -> None:
        """Close both."""
        self.udp.close()
        self.tcp.close()


def listen(
    sockets: Sockets,
    sandbox: SandboxSockets,
    *,
    adopted: bool,
    ipv6: bool,
    redirect: bool,
) -> tuple[Listeners, ...]:
    """Plan: make a resolver's sockets inside a sandbox.

    :param adopted: whether the namespace is somebody else's
    :param ipv6: whether the sandbox has no IPv4 address
    :param redirect: whether a program of the sandbox is to have port 53 of all
        addresses: the sockets then have other ports, which a rule leads to
    :raises KernelError: if the rule cannot be made
    :raises OSError: if the sockets cannot
    """
    with ExitStack() as stack, sockets.inside(sandbox.netns):
        if adopted:
            # somebody else may not have brought up its loopback
            sandbox.route.call(set_link(_LOOPBACK, up=True))
        found = []
        if ipv6 and not redirect and (six := _listen6()):
            stack.callback(six.close)
            found.append(six)
        four = _redirected() if redirect else _listen4()
        found.append(four)
        stack.pop_all()
    return tuple(found)


def _listen4() -> Listeners:
    try:
        return _bound(RESOLVER4, DNS_PORT)
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            raise
        return _redirected()


def _listen6() -> Listeners | None:
    """Return what listens at ``::1``, if there is that and nobody else does."""
    try:
        return _bound(RESOLVER6, DNS_PORT)
    except OSError as exc:
        if exc.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return None
        raise


def _redirected() -> Listeners:
    """Listen at free ports, and lead port 53 there (as libnetwork always does)."""
    listeners = _bound(RESOLVER4, 0)
    try:
        elements = [
            Element(_MAP, (proto, DNS_PORT), (RESOLVER4, made.getsockname()[1]))
            for proto, made in (("udp", listeners.udp), ("tcp", listeners.tcp))
        ]
        with NetlinkSocket(NETLINK_NETFILTER) as nft:
            commit(nft, _table(elements))
    except BaseException:
        listeners.close()
        raise
    return Listeners(RESOLVER4, listeners.udp, listeners.tcp, redirected=True)


def _table(elements: Iterable[Element]) -> Batch:
    batch = Batch(_TABLE)
    batch.add_table()  # so that there is one to delete
    batch.delete_table()
    batch.add_table()
    batch.add_set(_MAP)
    batch.add_chain("output", Hook("nat", OUTPUT, _NAT_DESTINATION))
    to_resolver = ex.equal(ex.DESTINATION4, RESOLVER4)
    key = ex.TRANSPORT_PROTOCOL + ex.DESTINATION_PORT
    batch.add_rule("output", to_resolver, ex.destination_nat(key, _MAP))
    batch.add_elements(elements)
    return batch


def undo_redirection(sockets: Sockets, key: str) -> None:
    """Plan: take the rule back, in a sandbox whose namespace is somebody else's."""
    batch = Batch(_TABLE)
    batch.add_table()
    batch.delete_table()
    with (
        sockets.sandbox(key) as sandbox,
        sockets.inside(sandbox.netns),
        NetlinkSocket(NETLINK_NETFILTER) as nft,
    ):
        commit(nft, batch)


def _bound(address: IPAddress, port: int) -> Listeners:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with ExitStack() as stack:
        udp = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        tcp = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        # connections of a former controller's resolver, in state TIME-WAIT
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for made in (udp, tcp):
            made.setblocking(False)
            made.bind((str(address), port))
        tcp.listen(BACKLOG)
        stack.pop_all()
    return Listeners(address, udp, tcp)
