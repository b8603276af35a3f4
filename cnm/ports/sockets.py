"""Sockets that hold a port, so that no other program can take it, and nothing else.

The kernel translates what arrives at a published port before any socket sees it. All
functions are for plans: sockets belong to the network namespace of their thread.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from ..types import address_text

if TYPE_CHECKING:
    from ..types import IPAddress, Proto
    from .places import HostPort

# include/uapi/linux/in.h: IP_MINTTL; in6.h: IPV6_MINHOPCOUNT; hosts send with 64 or so
_HOPS4 = (socket.IPPROTO_IP, 21)
_HOPS6 = (socket.IPPROTO_IPV6, 73)
# an IPv6 socket may serve both families
_HOPS = {socket.AF_INET: (_HOPS4,), socket.AF_INET6: (_HOPS4, _HOPS6)}
_MOST_HOPS = 255
# include/uapi/linux/in.h: IP_FREEBIND; in6.h: IPV6_FREEBIND
_FREEBIND = {
    socket.AF_INET: (socket.IPPROTO_IP, 15),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 78),
}

_KINDS: dict[Proto, tuple[int, int]] = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}


def hold(place: HostPort, *, absent: bool = False) -> socket.socket | None:
    """Take a port.

    A socket that listens would accept what is not translated (yet), and one that does
    not could be bound over by a socket with ``SO_REUSEADDR``: so it listens for an
    instant, in which it hears nobody. (A filter would cost 10 kB for each socket.)

    :param absent: whether the host need not have the address
    :return: the socket that holds it; None if the kernel does not have the protocol,
        so that nobody can take the port
    :raises OSError: if it cannot be taken
    """
    try:
        opened = open_socket(place.address, place.proto)
    except OSError as exc:
        if exc.errno != errno.EPROTONOSUPPORT:
            raise
        if not absent:
            _check_address(place.address)
        return None
    return _bind(opened, place, absent=absent)


def hold_both(place: HostPort) -> socket.socket:
    """Take a TCP or UDP port at all addresses of both families, with one socket.

    :param place: the port at ``::``
    :raises OSError: if it cannot be taken in one of the families
    """
    opened = open_socket(place.address, place.proto)
    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return _bind(opened, place)


def narrow(held: socket.socket, place: HostPort) -> socket.socket:
    """Return a socket that holds a port in one family, instead of one for both.

    There is no moment at which nothing holds the port.

    :param held: what :func:`hold_both` returned; it is closed
    :param place: where the port is still to be held
    :raises OSError: if it cannot be taken; ``held`` holds it as before
    """
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        narrowed = _bind(open_socket(place.address, place.proto), place, beside=True)
    except OSError:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        raise
    held.close()
    return narrowed


def _bind(
    opened: socket.socket,
    place: HostPort,
    *,
    beside: bool = False,
    absent: bool = False,
) -> socket.socket:
    """Have a socket hold a port, or close it.

    :param beside: whether there is another socket that makes room
    :param absent: whether the host need not have the address
    """
    tcp = place.proto == "tcp"
    try:
        if absent:
            opened.setsockopt(*_FREEBIND[opened.family], 1)
        if tcp:
            for level, option in _HOPS[opened.family]:
                opened.setsockopt(level, option, _MOST_HOPS)
        else:
            # what arrives before the port is translated is not to pile up
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        # connections of the last owner, in state TIME-WAIT, are no obstacle
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, tcp or beside)
        opened.bind((address_text(place.address), place.port))
        if tcp:
            opened.listen(0)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        if tcp:
            opened.shutdown(socket.SHUT_RD)
    except BaseException:
        opened.close()
        raise
    return opened


def listen(place: HostPort, *, absent: bool = False) -> socket.socket:
    """Take a TCP or UDP port for the proxy, and listen on it.

    :param absent: whether the host need not have the address
    :raises OSError: if it cannot be taken
    """
    listener = open_socket(place.address, place.proto)
    try:
        listener.setblocking(False)
        if absent:
            listener.setsockopt(*_FREEBIND[listener.family], 1)
        if place.proto == "tcp":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address_text(place.address), place.port))
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
