"""A host with the links and rules that a controller makes, and nothing around them."""

from __future__ import annotations

import os
import socket
from ipaddress import IPv4Address, IPv6Address, ip_network

from cnm.firewall import Element, Firewall, NetworkRules
from cnm.linux import NETLINK_NETFILTER, NetlinkSocket
from cnm.linux.nftables import Batch, commit

from .packing import (
    Netlink,
    Request,
    address,
    alias,
    attribute,
    change_link,
    new_link,
    no_address_generation,
    number,
    pack,
)

REAP = 0x636E6D53
_OWN = "/proc/thread-self/ns/net"
_TABLE = "floor"
#: include/uapi/linux/netfilter/nfnetlink.h, with the resource id of nf_tables
_BEGIN, _END, _GENERAL = 16, 17, b"\0\0\0\x0a"


class Host:
    """Sockets and names that all of it needs.

    The table is a controller's own, because what a change costs depends on the rules
    that refer to it. It is made before anything is measured.
    """

    def __init__(self) -> None:
        self.home = os.open(_OWN, os.O_RDONLY)
        self.directory = "/run/floor"
        os.makedirs(f"{self.directory}/files")
        self.route = Netlink()
        self.nft = Netlink(NETLINK_NETFILTER)
        self._index = 0x100000
        with NetlinkSocket(NETLINK_NETFILTER) as nft:
            Firewall(_TABLE).rebuild(_Sockets(nft))
        self.filtered = _reads("/proc/sys/net/bridge/bridge-nf-call-iptables") == "1"

    def drop_rules(self) -> None:
        """Remove the table."""
        batch = Batch(_TABLE)
        batch.delete_table()
        with NetlinkSocket(NETLINK_NETFILTER) as nft:
            commit(nft, batch)

    def next_index(self) -> int:
        """Return an index for a link."""
        self._index += 1
        return self._index

    def network(self, number_: int) -> Network:
        """Prepare a dual-stack network with a bridge."""
        return Network(self, number_)


class _Sockets:
    def __init__(self, nft: NetlinkSocket) -> None:
        self.nft = nft


def _reads(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


class Network:
    """A bridge with addresses, and its elements in the table.

    :ivar index: index of the bridge
    :ivar gateway4: its IPv4 address; the ones above it are for sandboxes
    :ivar gateway6: its IPv6 address
    """

    def __init__(self, host: Host, number_: int) -> None:
        self._host = host
        self.index = index = host.next_index()
        self.name = f"fl{number_}"
        self.gateway4 = IPv4Address("10.64.0.1") + (number_ << 12)
        self.gateway6 = IPv6Address("fd11::1") + (number_ << 64)
        mac = b"\x02" + os.urandom(5)
        self._made = pack(
            new_link(index, self.name, "bridge", b"", attribute(1, mac)),
            change_link(index, alias()),
        )
        self._configured = pack(
            change_link(index, no_address_generation()),
            change_link(index, up=True),
            address(index, self.gateway4.packed, 20),
            address(index, self.gateway6.packed, 64),
            address(index, link_local(mac), 64),
        )
        rules = NetworkRules(
            interface=self.name,
            subnets4=(ip_network((self.gateway4, 20), strict=False),),
            subnets6=(ip_network((self.gateway6, 64), strict=False),),
            mode6="nat",
        ).elements()
        self._opened = transaction(add=rules)
        self._closed = transaction(remove=rules)
        self._removed = pack(change_link(index, number(27, REAP), up=False))

    def begin(self) -> None:
        """Make it."""
        host = self._host
        host.route.send(self._made)
        write(f"/proc/sys/net/ipv6/conf/{self.name}/accept_ra", b"0")
        host.route.send(self._configured)
        host.nft.send(self._opened)

    def end(self) -> None:
        """Take it down, and leave the bridge to whoever reaps."""
        self._host.nft.send(self._closed)
        self._host.route.send(self._removed)


def transaction(
    *, add: tuple[Element, ...] = (), remove: tuple[Element, ...] = ()
) -> bytes:
    """Return a change of the table as one datagram."""
    batch = Batch(_TABLE)
    batch.delete_elements(remove)
    batch.add_elements(add)
    changes: list[Request] = [(it.kind, it.flags, it.body) for it in batch.requests]
    # the end of a batch is not acknowledged
    return pack(
        (_BEGIN, 0, _GENERAL), *changes, (_END, 0, _GENERAL), acknowledged=len(changes)
    )


def link_local(mac: bytes) -> bytes:
    """Return the link-local address of a MAC address."""
    return (
        b"\xfe\x80" + bytes(6) + bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:]
    )


def write(path: str, content: bytes) -> None:
    """Write a file, or make one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(descriptor, content)
    os.close(descriptor)


def listener(address_: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Return a resolver's sockets."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for made in (udp, tcp):
        made.setblocking(False)
        made.bind((address_, port))
    tcp.listen(64)
    return udp, tcp
