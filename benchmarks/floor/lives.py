"""Sandboxes with an interface, from the first system call to the last."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from abc import ABC, abstractmethod
from ipaddress import IPv4Address, IPv6Address

from cnm.firewall import Element
from cnm.firewall.ruleset import ANY4, ANY6, PROXIED

from .host import REAP, Host, Network, link_local, listener, transaction, write
from .packing import (
    Netlink,
    Request,
    address,
    alias,
    attribute,
    change_link,
    default_route,
    hairpin,
    look_at_link,
    new_link,
    no_address_generation,
    no_neighbour,
    number,
    pack,
    route_to,
    text,
)

_libc = ctypes.CDLL(None, use_errno=True)
_NEWNET, _BIND, _DETACH = 0x40000000, 4096, 2
_OWN = b"/proc/thread-self/ns/net"
_LOOPBACK = 1
#: Stands for the namespace's file descriptor in what is packed before there is one.
_UNKNOWN = 0x7EDCBA98
_DEFAULTS = (
    ("ipv4/ip_forward", b"0"),
    ("ipv6/conf/default/accept_ra", b"0"),
    ("ipv6/conf/default/mldv2_unsolicited_report_interval", b"86400000"),
)
_HOSTS = b"127.0.0.1\tlocalhost\n" + b"::1\tlocalhost ip6-localhost\n" * 4
_RESOLV_CONF = b"# Generated.\nnameserver 127.0.0.11\n" + b"# options\n" * 25
_DIGEST = b"\nsha256:" + b"0" * 64


class Life(ABC):
    """A sandbox with an interface, and a published port perhaps.

    :param names: whether there are files, and the sockets of a resolver
    :param port: port of the host that leads to port 80
    """

    def __init__(
        self, host: Host, network: Network, position: int, *, names: bool, port: int = 0
    ) -> None:
        self.host, self.network = host, network
        #: of the interface, and of its other end if it has one
        self.index, self.other = host.next_index(), host.next_index()
        self.mac = b"\x02" + os.urandom(5)
        self.own4 = network.gateway4 + position + 1
        self.own6 = network.gateway6 + position + 1
        self.name = f"f{self.index}"
        self.key = f"{host.directory}/{self.name}"
        self._files = f"{host.directory}/files/{self.name}"
        self._names = names
        self._loopback = pack(change_link(_LOOPBACK, up=True))
        plugged = bytearray(pack(*self.plugged()))
        self._netns_at = plugged.index(struct.pack("=I", _UNKNOWN))
        self._plugged = plugged
        self._configured = pack(*self._configuration())
        self._gone = pack(*self.unplugged())
        self._left = pack(
            change_link(self.index, up=False),
            change_link(self.index, text(3, f"gone{self.index}"), number(27, REAP)),
        )
        self._port = port
        if port:
            elements = led(port, self.own4, self.own6, 80)
            self._published = transaction(add=elements)
            self._unpublished = transaction(remove=elements)

    @abstractmethod
    def plugged(self) -> list[Request]:
        """Return what makes the interface, inside the sandbox."""

    @abstractmethod
    def unplugged(self) -> list[Request]:
        """Return what takes it off the network."""

    def _configuration(self) -> list[Request]:
        index, network = self.index, self.network
        return [
            change_link(index, no_address_generation()),
            change_link(index, alias(), up=True),
            address(index, link_local(self.mac), 64),
            address(index, self.own4.packed, 20),
            address(index, self.own6.packed, 64),
            default_route(network.gateway4.packed, index),
            default_route(network.gateway6.packed, index),
        ]

    def begin(self) -> None:
        """Make the sandbox, its interface in the network, and publish the port."""
        self.make()
        self.connect()

    def connect(self) -> None:
        """Make the interface, and publish the port."""
        self.join()
        if self._port:
            self.publish()

    def make(self) -> None:
        """Make the sandbox."""
        os.close(os.open(self.key, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o444))
        _libc.unshare(_NEWNET)
        _libc.mount(_OWN, self.key.encode(), None, _BIND, None)
        self._route = Netlink()
        self._route.send(self._loopback)
        for name, value in _DEFAULTS:
            write(f"/proc/sys/net/{name}", value)
        self._netns = os.open(_OWN, os.O_RDONLY)
        _libc.setns(self.host.home, _NEWNET)
        if self._names:
            self._write_files()

    def _write_files(self) -> None:
        os.mkdir(self._files, 0o755)
        write(f"{self._files}/hosts", _HOSTS)
        write(f"{self._files}/resolv.conf.hash", _DIGEST)
        write(f"{self._files}/resolv.conf", _RESOLV_CONF)

    def join(self) -> None:
        """Give the sandbox its interface."""
        struct.pack_into("=I", self._plugged, self._netns_at, self._netns)
        self.host.route.send(self._plugged)
        if self._names:
            _libc.setns(self._netns, _NEWNET)
            self._resolver = listener("127.0.0.11", 53)
            _libc.setns(self.host.home, _NEWNET)
        self._route.send(self._configured)

    def publish(self) -> None:
        """Publish the port."""
        self._held = hold(self._port)
        self.host.nft.send(self._published)

    def leave(self) -> None:
        """Take the interface away; the sandbox stays."""
        self._route.send(self._left)
        self.unplug()

    def unplug(self) -> None:
        """Take the interface off the network."""
        self.host.route.send(self._gone)

    def end(self) -> None:
        """Unpublish the port, take the interface off, and remove the sandbox."""
        host = self.host
        if self._port:
            host.nft.send(self._unpublished)
            self._held.close()
        self.unplug()
        self.stop()

    def stop(self) -> None:
        """Remove the sandbox, when the interface has left."""
        if self._names:
            for made in self._resolver:
                made.close()
        self._route.close()
        os.close(self._netns)
        _libc.umount2(self.key.encode(), _DETACH)
        os.unlink(self.key)
        if self._names:
            for name in ("hosts", "resolv.conf", "resolv.conf.hash"):
                os.unlink(f"{self._files}/{name}")
            os.rmdir(self._files)


def led(port: int, to4: IPv4Address, to6: IPv6Address, own: int) -> tuple[Element, ...]:
    """Return what leads a port of the host to a sandbox's own."""
    key = ("tcp", port)
    return (
        Element(ANY4, key, (to4, own)),
        Element(ANY6, key, (to6, own)),
        Element(PROXIED, key),
    )


def hold(port: int) -> socket.socket:
    """Return a socket that holds a port in both families, and hears nobody."""
    held = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    # include/uapi/linux/in.h: IP_MINTTL, in6.h: IPV6_MINHOPCOUNT
    held.setsockopt(socket.IPPROTO_IP, 21, 255)
    held.setsockopt(socket.IPPROTO_IPV6, 73, 255)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("::", port))
    held.listen(0)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    held.shutdown(socket.SHUT_RD)
    return held


class BridgeLife(Life):
    """On a port of a bridge."""

    def __init__(
        self, host: Host, network: Network, position: int, *, names: bool, port: int = 0
    ) -> None:
        super().__init__(host, network, position, names=names, port=port)
        looked = self.other, *self.outwards()
        self._answers = len(looked) + 1
        self._looked = pack(*map(look_at_link, looked))

    def join(self) -> None:
        """Give the sandbox its interface; the kernel notices at once that it has."""
        super().join()
        self.host.route.send(self._looked, answers=self._answers)

    def outwards(self) -> tuple[int, ...]:
        """Return what else has to notice that there is a carrier."""
        return (self.network.index,)

    def plugged(self) -> list[Request]:
        end, bridge = self.other, number(10, self.network.index)
        port = [change_link(end, hairpin())] if self.host.filtered else []
        return [
            self._veth(bridge),
            *port,
            change_link(end, alias(), no_address_generation(), up=True),
        ]

    def _veth(self, extra: bytes) -> Request:
        peer = struct.pack("=BxHiII", 0, 0, self.index, 0, 0) + text(3, "eth0")
        peer += number(28, _UNKNOWN) + attribute(1, self.mac)
        return new_link(self.other, self.name, "veth", attribute(1, peer), extra)

    def unplugged(self) -> list[Request]:
        bridge, own = self.network.index, (self.own4, self.own6)
        forgotten = [no_neighbour(it.packed, bridge) for it in own]
        return [*forgotten, change_link(self.other, number(27, REAP), up=False)]

    def unplug(self) -> None:
        """Take the interface off, and forget who had its addresses."""
        # nobody has asked for them: there are errors before the answer
        self.host.route.send(self._gone, answers=3)


class LineLife(BridgeLife):
    """At the end of a line to the host."""

    def outwards(self) -> tuple[int, ...]:
        """Return nothing: there is no bridge."""
        return ()

    def plugged(self) -> list[Request]:
        end, network = self.other, self.network
        return [
            self._veth(b""),
            change_link(end, alias(), no_address_generation(), up=True),
            address(end, network.gateway4.packed, 32),
            address(end, network.gateway6.packed, 128),
            route_to(self.own4.packed, end),
            route_to(self.own6.packed, end),
        ]

    def unplugged(self) -> list[Request]:
        return [change_link(self.other, number(27, REAP), up=False)]

    def unplug(self) -> None:
        """Take the line down."""
        self.host.route.send(self._gone)


class ParentLife(Life):
    """On a macvlan of a link of the host."""

    def plugged(self) -> list[Request]:
        extra = number(5, self.network.index) + attribute(1, self.mac)
        extra += number(28, _UNKNOWN)
        return [new_link(self.index, "eth0", "macvlan", number(1, 4), extra)]

    def unplugged(self) -> list[Request]:
        # one that is down has freed its MAC address
        return [change_link(self.index, up=False)]

    def unplug(self) -> None:
        """Take it down, inside the sandbox."""
        self._route.send(self._gone)
