"""Announcing addresses: gratuitous ARP and unsolicited neighbour advertisements.

Neighbours that knew an address by another MAC address learn the new one. The frames go
out on a link of the controller's namespace, a bridge for example, so that nothing has
to be entered for them.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import anyio

from ..errors import KernelError
from .kernel import Kernel, Sockets

_logger = logging.getLogger(__name__)

#: Seconds between two moments at which announcements go out, many together.
GATHER = 0.05

_ETH_P_ARP = 0x0806
_ETH_P_IPV6 = 0x86DD
_BROADCAST = b"\xff" * 6
_ALL_NODES = IPv6Address("ff02::1")
_ALL_NODES_MAC = bytes.fromhex("333300000001")  # RFC 2464, section 7
_ICMPV6 = 58
_NEIGHBOUR_ADVERTISEMENT = 136
_OVERRIDE = 0x20000000
_TARGET_LINK_LAYER_ADDRESS = 2


def arp_announcement(address: IPv4Address, mac: bytes) -> bytes:
    """Return the Ethernet frame that announces an IPv4 address (RFC 5227, 2.3)."""
    header = _BROADCAST + mac + _ETH_P_ARP.to_bytes(2, "big")
    fixed = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1)
    return header + fixed + mac + address.packed + bytes(6) + address.packed


def neighbour_advertisement(address: IPv6Address, mac: bytes) -> bytes:
    """Return the Ethernet frame that announces an IPv6 address (RFC 4861, 7.2.6)."""
    body = struct.pack(">I", _OVERRIDE) + address.packed
    body += struct.pack(">BB", _TARGET_LINK_LAYER_ADDRESS, 1) + mac
    ends = address.packed + _ALL_NODES.packed
    size = 4 + len(body)
    message = struct.pack(">BBH", _NEIGHBOUR_ADVERTISEMENT, 0, 0) + body
    checksum = _checksum(ends + struct.pack(">II", size, _ICMPV6) + message)
    message = message[:2] + checksum.to_bytes(2, "big") + message[4:]
    # hop limit 255, as neighbour discovery demands
    ip = struct.pack(">IHBB", 6 << 28, size, _ICMPV6, 255) + ends
    header = _ALL_NODES_MAC + mac + _ETH_P_IPV6.to_bytes(2, "big")
    return header + ip + message


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(slots=True)
class _Announcement:
    owner: str
    link: str
    addresses: Sequence[IPv4Address | IPv6Address]
    mac: str
    remaining: int
    interval: float
    _frames: tuple[bytes, ...] = ()

    def frames(self) -> tuple[bytes, ...]:
        """Return what is to be sent. It is made when it is first sent."""
        if not self._frames:
            octets = bytes.fromhex(self.mac.replace(":", ""))
            self._frames = tuple(
                arp_announcement(address, octets)
                if isinstance(address, IPv4Address)
                else neighbour_advertisement(address, octets)
                for address in self.addresses
            )
        return self._frames


class Announcer:
    """Announces addresses a number of times, in the background.

    The first announcement goes out at once, but for a moment in which others may join
    it. Failures are logged: what an announcement brings about comes by itself, later.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._queue: list[tuple[float, int, _Announcement]] = []
        self._order = itertools.count()
        self._wanted = anyio.Event()
        self._owners: dict[str, _Announcement] = {}

    def announce(
        self,
        owner: str,
        link: str,
        addresses: Sequence[IPv4Address | IPv6Address],
        mac: str,
        *,
        times: int,
        interval: float,
    ) -> None:
        """Announce addresses on a link.

        :param owner: whose addresses they are, for :meth:`cancel`
        :param interval: seconds between two announcements
        """
        if times <= 0 or not addresses:
            return
        announcement = _Announcement(owner, link, addresses, mac, times, interval)
        self._owners[owner] = announcement
        self._schedule(anyio.current_time(), announcement)
        self._wanted.set()

    def cancel(self, owner: str) -> None:
        """Announce an owner's addresses no more."""
        if announcement := self._owners.pop(owner, None):
            announcement.remaining = 0

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        while True:
            if not self._queue:
                self._wanted = anyio.Event()
                await self._wanted.wait()
            await anyio.sleep(GATHER)
            if due := self._take(anyio.current_time()):
                try:
                    await self._kernel.run(_send, due)
                except KernelError:
                    _logger.warning("addresses could not be announced", exc_info=True)

    def _schedule(self, when: float, announcement: _Announcement) -> None:
        heapq.heappush(self._queue, (when, next(self._order), announcement))

    def _take(self, now: float) -> list[_Announcement]:
        """Return what is due, and schedule its next time."""
        due: list[_Announcement] = []
        while self._queue and self._queue[0][0] <= now:
            _, _, announcement = heapq.heappop(self._queue)
            if announcement.remaining <= 0:
                continue
            due.append(announcement)
            announcement.remaining -= 1
            if announcement.remaining:
                self._schedule(now + announcement.interval, announcement)
            elif self._owners.get(announcement.owner) is announcement:
                del self._owners[announcement.owner]
        return due


def _send(sockets: Sockets, due: Iterable[_Announcement]) -> None:
    frames = ((it.link, frame) for it in due for frame in it.frames())
    for link, frame in frames:
        try:
            sockets.packet.sendto(frame, (link, 0))
        except OSError as exc:
            # the link may be down or gone by now
            _logger.debug("no announcement on %s: %s", link, exc)
