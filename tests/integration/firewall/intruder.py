"""A container that sends what it should not, one way, and who gets it."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address
from struct import Struct

from tests.integration.lab import BLOCKED_AFTER, Closing, Namespace

PORT = 632
_IPV4 = Struct("!BBHHHBBH4s4s")
_UDP = Struct("!HHHH")


class Letterbox(Closing):
    """A UDP port that is open at an address.

    :param where: a namespace; None for that of the tests
    """

    def __init__(self, where: Namespace | None, address: str = "") -> None:
        make = where.socket if where else socket.socket
        self._socket = make(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, PORT))
        self._socket.settimeout(BLOCKED_AFTER)

    def close(self) -> None:
        self._socket.close()

    def source(self) -> str:
        """Return where the next datagram comes from, or ``""`` if there is none."""
        try:
            source: str = self._socket.recvfrom(10)[1][0]
        except TimeoutError:
            return ""
        return source


def send(where: Namespace, to: str, port: int = PORT) -> None:
    """Send a datagram."""
    with where.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"?", (to, port))


def send_spoofed(where: Namespace, source: str, to: str, port: int = PORT) -> None:
    """Send a datagram in the name of somebody else."""
    addresses = IPv4Address(source).packed, IPv4Address(to).packed
    # the kernel puts in length and checksum; UDP can do without
    header = _IPV4.pack(0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0, *addresses)
    datagram = _UDP.pack(1024, port, _UDP.size + 1, 0) + b"?"
    with where.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        sender.sendto(header + datagram, (to, 0))
