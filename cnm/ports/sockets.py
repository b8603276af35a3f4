"""Sockets that hold a port, so that no other program can take it, and nothing else.

The kernel translates what arrives at a published port before any socket sees it. All
functions are for plans: sockets belong to the network namespace of their thread.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..types import IPAddress, Proto
    from .places import HostPort

# include/uapi/linux/in.h: IP_MINTTL; in6.h: IPV6_MINHOPCOUNT; hosts send with 64 or so
_HOPS = {4: (socket.IPPROTO_IP, 21), 6: (socket.IPPROTO_IPV6, 73)}
_MOST_HOPS = 255

_KINDS: dict[Proto, tuple[int, int]] = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}


def hold(place: HostPort) -> socket.socket | None:
    """Take a port.

    A socket that listens would accept what is not translated (yet), and one that does
    not could be bound over by a socket with ``SO_REUSEADDR``: so it listens for an
    instant, in which it hears nobody. (A filter would cost 10 kB for each socket.)

    :return: the socket that holds it; None if the kernel does not have the protocol,
        so that nobody can take the port
    :raises OSError: if it cannot be taken
    """
    try:
        held = open_socket(place.address, place.proto)
    except OSError as exc:
        if exc.errno != errno.EPROTONOSUPPORT:
            raise
        _check_address(place.address)
        return None
    try:
        if place.proto == "tcp":
            # connections of the last owner, in state TIME-WAIT, are no obstacle
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.setsockopt(*_HOPS[place.address.version], _MOST_HOPS)
        else:
            # what arrives before the port is translated is not to pile up
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        held.bind((str(place.address), place.port))
        if place.proto == "tcp":
            held.listen(0)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            held.shutdown(socket.SHUT_RD)
    except BaseException:
        held.close()
        raise
    return held


def listen(place: HostPort) -> socket.socket:
    """Take a TCP or UDP port for the proxy, and listen on it.

    :raises OSError: if it cannot be taken
    """
    listener = open_socket(place.address, place.proto)
    try:
        listener.setblocking(False)
        if place.proto == "tcp":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(place.address), place.port))
        if place.proto == "tcp":
            listener.listen(socket.SOMAXCONN)
    except BaseException:
        listener.close()
        raise
    return listener


def open_socket(address: IPAddress, proto: Proto) -> socket.socket:
    """Open a socket for an address.

    :raises OSError: if the kernel does not have the protocol, or no room
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    opened = socket.socket(family, *_KINDS[proto])
    if address.version == 6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return opened


def has_address(address: IPAddress) -> bool:
    """Tell whether the host has an address."""
    try:
        _check_address(address)
    except OSError:
        return False
    return True


def _check_address(address: IPAddress) -> None:
    """Raise OSError unless sockets can be bound to an address."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((str(address), 0))
