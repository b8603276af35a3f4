"""Router advertisements (RFC 4861, section 4.2) from somebody who is no router."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address
from struct import Struct

from ..lab import Namespace

PREFIX = IPv6Address("2001:db8:bad::")
_ADVERTISEMENT = Struct("!BBHBBHII")
_PREFIX_INFORMATION = Struct("!BBBBIII16s")
_ALL_NODES = "ff02::1"


def advertise(where: Namespace, interface: str = "eth0") -> None:
    """Say on a link that the default route leads here, and what its prefix is."""

    def send() -> None:
        index = socket.if_nametoindex(interface)
        text = _ADVERTISEMENT.pack(134, 0, 0, 64, 0, 1800, 0, 0)
        text += _PREFIX_INFORMATION.pack(3, 4, 64, 0xC0, 90, 90, 0, PREFIX.packed)
        with socket.socket(
            socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6
        ) as router:
            router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            router.sendto(text, (_ALL_NODES, 0, 0, index))

    where.run(send)


class Ear:
    """Hears what is advertised on the links of the host."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6
        )
        self._socket.settimeout(5)

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()

    def wait(self) -> None:
        """Return when the next advertisement has arrived."""
        while self._socket.recv(200)[0] != 134:
            pass
