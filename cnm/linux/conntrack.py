"""Connection tracking: forgetting connections, and asking where they went at first.

What the kernel knows of a connection decides where its packets go, whatever has become
of rules and addresses meanwhile. Constants:
include/uapi/linux/netfilter/nfnetlink_conntrack.h; those of filters:
net/netfilter/nf_conntrack_netlink.c, CTA_FILTER_F_...
"""

from __future__ import annotations

import errno
from collections import defaultdict
from dataclasses import dataclass
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, AF_UNSPEC
from struct import Struct
from typing import TYPE_CHECKING

from ..errors import KernelError, MissingFeature, NetlinkError
from . import sysctl
from .addresses import dump_addresses, parse_address
from .netlink import Request
from .wire import attribute, attribute_list, attributes, nested, u8, u32

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..types import IPAddress, Proto
    from .kernel import Sockets
    from .netlink import Message, NetlinkSocket

# include/uapi/linux/netfilter/nfnetlink.h: struct nfgenmsg, NFNL_SUBSYS_CTNETLINK
_GENERAL = Struct(">BBH")
_NFNL_SUBSYS_CTNETLINK = 1 << 8
_IPCTNL_MSG_CT_GET = 1
_IPCTNL_MSG_CT_DELETE = 2
# with version 0, older kernels take a deletion for one in all families
_VERSION = 1

_CTA_TUPLE_ORIG = 1
_CTA_TUPLE_REPLY = 2
_CTA_ID = 12
_CTA_ZONE = 18
_CTA_FILTER = 25
_CTA_TUPLE_IP = 1
_CTA_TUPLE_PROTO = 2
_CTA_IP_V4_SRC = 1
_CTA_IP_V4_DST = 2
_CTA_IP_V6_SRC = 3
_CTA_IP_V6_DST = 4
_CTA_PROTO_NUM = 1
_CTA_PROTO_SRC_PORT = 2
_CTA_PROTO_DST_PORT = 3
_CTA_FILTER_ORIG_FLAGS = 1
_CTA_FILTER_REPLY_FLAGS = 2
_F_IP_SRC = 1 << 0
_F_PROTO_NUM = 1 << 3
_F_PROTO_DST_PORT = 1 << 5

# include/uapi/linux/in.h
_PROTOCOLS: dict[Proto, int] = {"tcp": 6, "udp": 17, "sctp": 132}
_FAMILIES = {0: AF_UNSPEC, 4: AF_INET, 6: AF_INET6}
_COUNT = "net.netfilter.nf_conntrack_count"
# To go through all connections once takes the kernel 3 to 10 ms, if there are none: it
# has 262,144 chains for them. Meanwhile we could look at so many that it tells of.
_WALK = 500
# How many deletions are sent at once; errors have to fit into the receive buffer.
_DELETIONS = 1000


@dataclass(frozen=True, slots=True)
class _Connection:
    """Where a connection went at first.

    :ivar message: all that the kernel told of it
    """

    address: bytes
    port: bytes
    message: Message


def forget(
    sockets: Sockets,
    addresses: Iterable[IPAddress],
    ports: Iterable[tuple[Proto, IPAddress | None, int]],
) -> None:
    """Plan: do what :func:`forget_addresses` and :func:`forget_ports` do.

    If there are few connections, the kernel goes through its table only once.

    :raises MissingFeature: if the kernel does not let connections be deleted
    """
    addresses, count = tuple(addresses), _count()
    if not count:
        return
    if count > _WALK:
        forget_addresses(sockets, *addresses)
        forget_ports(sockets, ports)
        return
    known = _dump(sockets.nft, _request(_IPCTNL_MSG_CT_GET, 0, b"", "list connections"))
    packed = {address.packed for address in addresses}
    requests = list(_of_addresses(known, packed))
    for (version, proto), wanted in _by_kind(ports).items():
        connections = [
            _connection(message, version)
            for message in known
            if message.body[0] == _FAMILIES[version] and _is_of(message, proto)
        ]
        requests += _of_ports(sockets, connections, version, wanted)
    _delete(sockets.nft, requests)


def forget_addresses(sockets: Sockets, *addresses: IPAddress) -> None:
    """Plan: forget the connections that come from addresses, or go to them.

    Those that are translated count by the addresses that they really have.

    :raises MissingFeature: if the kernel does not let connections be deleted
    """
    count = _count()
    if not count:
        return
    packed: dict[int, set[bytes]] = {4: set(), 6: set()}
    for address in addresses:
        packed[address.version].add(address.packed)
    requests: list[Request] = []
    for version, some in packed.items():
        if version == 4 and count > _WALK * 2 * len(some):
            requests += (it for address in some for it in _deletions4(address))
        elif some:
            # The kernel's own filter is of no use for IPv6:
            # ctnetlink_filter_match_tuple() takes a return value of ipv6_addr_cmp() for
            # its opposite, and selects all other addresses (seen in Linux 6.18).
            what = f"list IPv{version} connections"
            request = _request(_IPCTNL_MSG_CT_GET, version, b"", what)
            requests += _of_addresses(_dump(sockets.nft, request), some)
    _delete(sockets.nft, requests)


def forget_ports(
    sockets: Sockets, ports: Iterable[tuple[Proto, IPAddress | None, int]]
) -> None:
    """Plan: forget the connections whose original destination is a port of the host.

    That is where the client sent its first packet, whether or not it was translated.
    Connections that others have to the same port of other machines are left alone.

    :param ports: protocol, address, port; an unspecified address stands for all that
        the host has of the family, None for all that it has
    :raises MissingFeature: if the kernel does not let connections be deleted
    """
    count = _count()
    if not count:
        return
    for (version, proto), wanted in _by_kind(ports).items():
        one_by_one = count > _WALK * len(wanted)
        found = _find(sockets.nft, version, proto, wanted, one_by_one)
        _delete(sockets.nft, list(_of_ports(sockets, found, version, wanted)))


def original_destination(
    sockets: Sockets,
    proto: Proto,
    client: tuple[IPAddress, int],
    local: tuple[IPAddress, int],
) -> tuple[IPAddress, int] | None:
    """Plan: return where a client sent what has arrived at an address of the host.

    :param client: address and port of the client
    :param local: address and port at which it arrived
    :return: address and port before translation, or None if nothing is known of it
    """
    version = local[0].version
    body = nested(_CTA_TUPLE_REPLY, *_tuple(proto, local, client))
    what = f"find the connection from {client[0]} to {local[0]}"
    try:
        (message,) = _call(
            sockets.nft, _request(_IPCTNL_MSG_CT_GET, version, body, what)
        )
    except NetlinkError as exc:
        if exc.errno == errno.ENOENT:
            return None
        raise
    original = _connection(message, version)
    return ip_address(original.address), int.from_bytes(original.port, "big")


def _count() -> int:
    """Return how many connections the calling thread's namespace tracks."""
    try:
        return int(sysctl.read(_COUNT))
    except KernelError as exc:
        if exc.errno != errno.ENOENT:
            raise
        return 0


def _by_kind(
    ports: Iterable[tuple[Proto, IPAddress | None, int]],
) -> dict[tuple[int, Proto], dict[bytes, set[bytes]]]:
    """Return the wanted addresses by port, of each family and protocol."""
    kinds: dict[tuple[int, Proto], dict[bytes, set[bytes]]] = defaultdict(dict)
    for proto, address, port in ports:
        ends = (
            {4: bytes(4), 6: bytes(16)}
            if address is None
            else {address.version: address.packed}
        )
        for version, packed in ends.items():
            by_port = kinds[version, proto]
            by_port.setdefault(port.to_bytes(2, "big"), set()).add(packed)
    return kinds


def _find(
    nft: NetlinkSocket,
    version: int,
    proto: Proto,
    ports: Iterable[bytes],
    one_by_one: bool,
) -> Iterator[_Connection]:
    """Yield at least the connections that have one of some ports for destination."""
    number = u8(_CTA_PROTO_NUM, _PROTOCOLS[proto])
    # The kernel compares the ports of TCP and UDP only.
    if one_by_one and proto != "sctp":
        flags = _F_PROTO_NUM | _F_PROTO_DST_PORT
        ends = [number + attribute(_CTA_PROTO_DST_PORT, port) for port in ports]
    else:
        flags, ends = _F_PROTO_NUM, [number]
    restriction = nested(_CTA_FILTER, u32(_CTA_FILTER_ORIG_FLAGS, flags))
    for end in ends:
        body = nested(_CTA_TUPLE_ORIG, nested(_CTA_TUPLE_PROTO, end)) + restriction
        what = f"list {proto} connections"
        request = _request(_IPCTNL_MSG_CT_GET, version, body, what)
        for message in _dump(nft, request):
            yield _connection(message, version)


def _connection(message: Message, version: int) -> _Connection:
    original = _first(message.body, _CTA_TUPLE_ORIG, _GENERAL.size)
    destination = _CTA_IP_V4_DST if version == 4 else _CTA_IP_V6_DST
    return _Connection(
        _first(_first(original, _CTA_TUPLE_IP), destination),
        _first(_first(original, _CTA_TUPLE_PROTO), _CTA_PROTO_DST_PORT),
        message,
    )


def _first(buffer: bytes, kind: int, start: int = 0) -> bytes:
    """Return an attribute, without a look at what follows it: there may be many."""
    return next(data for it, data in attribute_list(buffer, start) if it == kind)


def _deletions4(address: bytes) -> Iterator[Request]:
    """Yield requests to delete what comes from an IPv4 address, or goes to it."""
    source = nested(_CTA_TUPLE_IP, attribute(_CTA_IP_V4_SRC, address))
    what = f"forget the connections of {ip_address(address)}"
    for direction, flags in (
        (_CTA_TUPLE_ORIG, _CTA_FILTER_ORIG_FLAGS),
        (_CTA_TUPLE_REPLY, _CTA_FILTER_REPLY_FLAGS),
    ):
        body = nested(direction, source) + nested(_CTA_FILTER, u32(flags, _F_IP_SRC))
        yield _request(_IPCTNL_MSG_CT_DELETE, 4, body, what)


def _of_addresses(
    messages: Iterable[Message], addresses: set[bytes]
) -> Iterator[Request]:
    """Yield requests to delete what comes from addresses, or goes to them."""
    for message in messages:
        if not any(address in message.body for address in addresses):
            continue  # most of them: no need to take them apart
        version = 4 if message.body[0] == AF_INET else 6
        source = _CTA_IP_V4_SRC if version == 4 else _CTA_IP_V6_SRC
        directions = attributes(message.body, _GENERAL.size)
        sources = {
            _first(_first(directions[kind], _CTA_TUPLE_IP), source)
            for kind in (_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY)
        }
        if sources & addresses:
            yield _deletion(message, version)


def _of_ports(
    sockets: Sockets,
    connections: Iterable[_Connection],
    version: int,
    ports: dict[bytes, set[bytes]],
) -> Iterator[Request]:
    """Yield requests to delete what went to ports of the host at first.

    :param ports: the addresses of each
    """
    found = [connection for connection in connections if connection.port in ports]
    if not found:
        return
    own = _OwnAddresses(sockets, version)
    unspecified = bytes(len(found[0].address))
    for connection in found:
        addresses = ports[connection.port]
        if connection.address in addresses or (
            unspecified in addresses and connection.address in own
        ):
            yield _deletion(connection.message, version)


def _is_of(message: Message, proto: Proto) -> bool:
    """Tell whether a connection is of a protocol."""
    original = _first(message.body, _CTA_TUPLE_ORIG, _GENERAL.size)
    number = _first(_first(original, _CTA_TUPLE_PROTO), _CTA_PROTO_NUM)
    return number[0] == _PROTOCOLS[proto]


def _deletion(message: Message, version: int) -> Request:
    """Return the request to delete one connection, and no later one like it."""
    found = attributes(message.body, _GENERAL.size)
    body = nested(_CTA_TUPLE_ORIG, found[_CTA_TUPLE_ORIG])
    for kind in (_CTA_ZONE, _CTA_ID):
        if kind in found:
            body += attribute(kind, found[kind])
    return _request(_IPCTNL_MSG_CT_DELETE, version, body, "forget a connection")


class _OwnAddresses:
    """The host's addresses of a family, 127.0.0.0/8 included."""

    def __init__(self, sockets: Sockets, version: int) -> None:
        found = map(parse_address, sockets.route.dump(dump_addresses()))
        self._packed = {
            it.interface.packed for it in found if it.interface.version == version
        }

    def __contains__(self, packed: bytes) -> bool:
        return packed in self._packed or ip_address(packed).is_loopback


def _tuple(
    proto: Proto, source: tuple[IPAddress, int], destination: tuple[IPAddress, int]
) -> tuple[bytes, bytes]:
    """Return the attributes that say where packets of a direction come from and go."""
    kinds = (
        (_CTA_IP_V4_SRC, _CTA_IP_V4_DST)
        if source[0].version == 4
        else (_CTA_IP_V6_SRC, _CTA_IP_V6_DST)
    )
    addresses = nested(
        _CTA_TUPLE_IP,
        attribute(kinds[0], source[0].packed),
        attribute(kinds[1], destination[0].packed),
    )
    ports = nested(
        _CTA_TUPLE_PROTO,
        u8(_CTA_PROTO_NUM, _PROTOCOLS[proto]),
        attribute(_CTA_PROTO_SRC_PORT, source[1].to_bytes(2, "big")),
        attribute(_CTA_PROTO_DST_PORT, destination[1].to_bytes(2, "big")),
    )
    return addresses, ports


def _request(kind: int, version: int, body: bytes, what: str) -> Request:
    header = _GENERAL.pack(_FAMILIES[version], _VERSION, 0)
    return Request(_NFNL_SUBSYS_CTNETLINK | kind, 0, header + body, what)


def _delete(nft: NetlinkSocket, requests: Sequence[Request]) -> None:
    """Send deletions; no error if there is nothing to delete."""
    for start in range(0, len(requests), _DELETIONS):
        try:
            _call(nft, *requests[start : start + _DELETIONS])
        except NetlinkError as exc:
            if any(error.errno != errno.ENOENT for error in (exc, *exc.others)):
                raise


def _call(nft: NetlinkSocket, *requests: Request) -> list[Message]:
    try:
        return nft.call(*requests)
    except NetlinkError as exc:
        _raise_if_missing(exc)
        raise


def _dump(nft: NetlinkSocket, request: Request) -> list[Message]:
    try:
        return nft.dump(request)
    except NetlinkError as exc:
        _raise_if_missing(exc)
        raise


def _raise_if_missing(error: NetlinkError) -> None:
    # nfnetlink's answer to a message for a subsystem that is not there
    if error.errno == errno.EINVAL:
        what = error.what
        raise MissingFeature(errno.EINVAL, what, "CONFIG_NF_CT_NETLINK") from error
