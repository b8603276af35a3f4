"""The kernel's floor: the requests that cnm makes, packed by hand, with no library."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)
_NEWNET, _BIND, _DETACH = 0x40000000, 4096, 2
_REQUEST, _ACK, _CREATE_EXCL = 1, 4, 0x600
_HERE = "/proc/thread-self/ns/net"
_REAP = 0x636E6D53


def attribute(kind: int, data: bytes) -> bytes:
    size = len(data) + 4
    return struct.pack("=HH", size, kind) + data + b"\0" * (-size & 3)


def number(kind: int, value: int) -> bytes:
    return struct.pack("=HHI", 8, kind, value)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


class Netlink:
    """A netlink socket that sends batches and wants one acknowledgement."""

    def __init__(self, protocol: int = 0) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self.socket.bind((0, 0))

    def send(self, *requests: tuple[int, int, bytes]) -> None:
        last = len(requests) - 1
        data = b""
        for position, (kind, flags, body) in enumerate(requests):
            flags |= _REQUEST | (_ACK if position == last else 0)
            body += b"\0" * (-len(body) & 3)
            data += struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body
        self.socket.send(data)
        answer = self.socket.recv(65536)
        (error,) = struct.unpack_from("=i", answer, 16)
        if error:
            raise OSError(-error, os.strerror(-error))

    def close(self) -> None:
        self.socket.close()


def new_link(index: int, name: str, kind: str, data: bytes, extra: bytes) -> bytes:
    info = attribute(18 | 0x8000, text(1, kind) + attribute(2 | 0x8000, data))
    return struct.pack("=BxHiII", 0, 0, index, 0, 0) + text(3, name) + extra + info


def change_link(index: int, up: int, extra: bytes = b"") -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, up, 1) + extra


def no_address_generation() -> bytes:
    inet6 = attribute(10 | 0x8000, attribute(8, b"\x01"))
    return attribute(26 | 0x8000, inet6)


def address(index: int, packed: bytes, prefix: int) -> bytes:
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    body = struct.pack("=BBBBI", family, prefix, 0x80, 0, index)
    body += attribute(2, packed) + attribute(1, packed)
    return body if len(packed) == 4 else body + number(8, 0x82)


def default_route(via: bytes, index: int) -> bytes:
    family = socket.AF_INET if len(via) == 4 else socket.AF_INET6
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 254, 4, 0, 1, 0)
    return body + attribute(5, via) + number(4, index)


def route_to(destination: bytes, index: int) -> bytes:
    family = socket.AF_INET if len(destination) == 4 else socket.AF_INET6
    length = len(destination) * 8
    body = struct.pack("=BBBBBBBBI", family, length, 0, 0, 254, 4, 253, 1, 0)
    return body + attribute(1, destination) + number(4, index)


def write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, value.encode())
    os.close(descriptor)


class Floor:
    """Networks, sandboxes and joins with nothing around them."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.home = os.open(_HERE, os.O_RDONLY)
        self.route = Netlink()
        self.index = 0x100000
        self.inside: dict[str, tuple[int, Netlink, int]] = {}
        self.ends: dict[str, int] = {}

    def next(self) -> int:
        self.index += 1
        return self.index

    def network(self, number_: int) -> int:
        """Make a dual-stack bridge."""
        index, name = self.next(), f"fl{number_}"
        mac = attribute(1, b"\x02" + os.urandom(5))
        self.route.send((16, _CREATE_EXCL, new_link(index, name, "bridge", b"", mac)))
        write(f"/proc/sys/net/ipv6/conf/{name}/accept_ra", "0")
        four = socket.inet_aton(f"10.{100 + number_ // 250}.{number_ % 250}.1")
        six = b"\xfd\x11" + number_.to_bytes(6, "big") + b"\0" * 7 + b"\x01"
        self.route.send(
            (16, 0, change_link(index, 0, text(20, "floor:" + "0" * 64))),
            (20, _CREATE_EXCL, address(index, four, 24)),
            (20, _CREATE_EXCL, address(index, six, 64)),
            (16, 0, change_link(index, 1)),
        )
        return index

    def join(self, name: str, bridge: int, position: int) -> None:
        """Make a namespace, and give it an interface on a bridge."""

        def plug(index: int, netns: int, mac: bytes) -> None:
            host = self._veth(name, index, netns, mac, number(10, bridge))
            alias = text(20, "floor:" + "0" * 64) + no_address_generation()
            self.route.send((16, 0, change_link(host, 1, alias)))

        self._join(name, position, plug)

    def join_ptp(self, name: str, unused: int, position: int) -> None:
        """Make a namespace, and give it a line to the host."""

        def plug(index: int, netns: int, mac: bytes) -> None:
            host = self._veth(name, index, netns, mac, b"")
            alias = text(20, "floor:" + "0" * 64) + no_address_generation()
            tail = position.to_bytes(2, "big")
            prefix = b"\xfd\x11" + bytes(6)
            self.route.send(
                (16, 0, change_link(host, 1, alias)),
                (20, _CREATE_EXCL, address(host, b"\x0a\x64\0\x01", 32)),
                (20, _CREATE_EXCL, address(host, prefix + bytes(7) + b"\x01", 128)),
                (24, _CREATE_EXCL, route_to(b"\x0a\x64" + tail, host)),
                (24, _CREATE_EXCL, route_to(prefix + bytes(6) + tail, host)),
            )

        self._join(name, position, plug)

    def join_macvlan(self, name: str, parent: int, position: int) -> None:
        """Make a namespace, and give it a macvlan on a link."""

        def plug(index: int, netns: int, mac: bytes) -> None:
            extra = number(5, parent) + attribute(1, mac) + number(28, netns)
            made = new_link(index, "eth0", "macvlan", number(1, 4), extra)
            self.route.send((16, _CREATE_EXCL, made))

        self._join(name, position, plug)

    def _veth(self, name: str, index: int, netns: int, mac: bytes, extra: bytes) -> int:
        host = self.next()
        peer = struct.pack("=BxHiII", 0, 0, index, 0, 0) + text(3, "eth0")
        peer += number(28, netns) + attribute(1, mac)
        veth = new_link(host, name, "veth", attribute(1, peer), extra)
        self.route.send((16, _CREATE_EXCL, veth))
        self.ends[name] = host
        return host

    def _join(
        self, name: str, position: int, plug: Callable[[int, int, bytes], None]
    ) -> None:
        key = f"{self.directory}/{name}"
        os.close(os.open(key, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o444))
        _libc.unshare(_NEWNET)
        _libc.mount(_HERE.encode(), key.encode(), b"", _BIND, None)
        route = Netlink()
        route.send((16, 0, change_link(1, 1)))
        netns = os.open(_HERE, os.O_RDONLY)
        _libc.setns(self.home, _NEWNET)
        index = self.next()
        mac = b"\x02" + os.urandom(5)
        plug(index, netns, mac)
        _libc.setns(netns, _NEWNET)
        write("/proc/sys/net/ipv6/conf/eth0/accept_ra", "0")
        _libc.setns(self.home, _NEWNET)
        tail = position.to_bytes(2, "big")
        prefix = b"\xfd\x11" + bytes(6)
        local = b"\xfe\x80" + bytes(6) + mac[:3] + b"\xff\xfe" + mac[3:]
        route.send(
            (16, 0, change_link(index, 0, no_address_generation())),
            (20, _CREATE_EXCL, address(index, local, 64)),
            (20, _CREATE_EXCL, address(index, b"\x0a\x64" + tail, 16)),
            (20, _CREATE_EXCL, address(index, prefix + bytes(6) + tail, 64)),
            (16, 0, change_link(index, 1)),
            (24, _CREATE_EXCL, default_route(b"\x0a\x64\0\x01", index)),
            (24, _CREATE_EXCL, default_route(prefix + bytes(7) + b"\x01", index)),
        )
        self.inside[name] = netns, route, index

    def leave(self, name: str) -> None:
        """Take the interface off the bridge, and drop the namespace."""
        if name in self.ends:
            down = change_link(self.ends.pop(name), 0, number(27, _REAP))
            self.route.send((16, 0, down))
        else:  # a macvlan that is down has freed its MAC address
            _, route, index = self.inside[name]
            route.send((16, 0, change_link(index, 0)))
        netns, route, _ = self.inside.pop(name)
        route.close()
        os.close(netns)
        key = f"{self.directory}/{name}"
        _libc.umount2(key.encode(), _DETACH)
        os.unlink(key)


def timed(call: object, *arguments: object) -> float:
    """Return how many seconds a call takes."""
    started = time.perf_counter()
    call(*arguments)  # type: ignore[operator]
    return time.perf_counter() - started


def measure(count: int) -> dict[str, list[float]]:
    """Return the seconds that each operation took."""
    directory = "/run/floor"
    os.makedirs(directory)
    floor = Floor(directory)
    networks = [timed(floor.network, number) for number in range(1, 21)]
    # a /16, as cnm's network in the same run
    bridge = floor.next()
    mac = attribute(1, b"\x02" + os.urandom(5))
    floor.route.send((16, _CREATE_EXCL, new_link(bridge, "fl0", "bridge", b"", mac)))
    floor.route.send(
        (20, _CREATE_EXCL, address(bridge, b"\x0a\x64\0\x01", 16)),
        (16, 0, change_link(bridge, 1)),
    )
    parent = floor.next()
    floor.route.send((16, _CREATE_EXCL, new_link(parent, "ifb0", "ifb", b"", b"")))
    floor.route.send((16, 0, change_link(parent, 1)))
    results = {"network": networks}
    for suffix, join, link in (
        ("", floor.join, bridge),
        (" ptp", floor.join_ptp, 0),
        (" macvlan", floor.join_macvlan, parent),
    ):
        joins = results[f"join{suffix}"] = []
        leaves = results[f"leave{suffix}"] = []
        for position in range(count):
            name = f"f{position}"
            joins.append(timed(join, name, link, position + 2))
            leaves.append(timed(floor.leave, name))
    return results
