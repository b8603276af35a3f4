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
from socket import AF_INET
from typing import TYPE_CHECKING

from ..errors import NetlinkError
from .addresses import dump_addresses, parse_address
from .connections import (
    CTA_FILTER,
    CTA_IP_V4_DST,
    CTA_IP_V4_SRC,
    CTA_IP_V6_DST,
    CTA_IP_V6_SRC,
    CTA_PROTO_DST_PORT,
    CTA_PROTO_NUM,
    CTA_PROTO_SRC_PORT,
    CTA_TUPLE_IP,
    CTA_TUPLE_ORIG,
    CTA_TUPLE_PROTO,
    CTA_TUPLE_REPLY,
    FAMILIES,
    GENERAL,
    IPCTNL_MSG_CT_DELETE,
    IPCTNL_MSG_CT_GET,
    PROTOCOLS,
    ask,
    call_conntrack,
    count_connections,
    delete_connections,
    deletion,
    dump_connections,
)
from .netlink import Request
from .wire import attribute, attributes, first, nested, u8, u32

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..types import IPAddress, Proto
    from .kernel import Sockets
    from .netlink import Message, NetlinkSocket

_CTA_FILTER_ORIG_FLAGS = 1
_CTA_FILTER_REPLY_FLAGS = 2
_F_IP_SRC = 1 << 0
_F_PROTO_NUM = 1 << 3
_F_PROTO_DST_PORT = 1 << 5

# To go through all connections once takes the kernel 3 to 10 ms, if there are none: it
# has 262,144 chains for them. Meanwhile we could look at so many that it tells of.
_WALK = 500


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
    addresses, count = tuple(addresses), count_connections()
    if not count:
        return
    if count > _WALK:
        forget_addresses(sockets, *addresses)
        forget_ports(sockets, ports)
        return
    known = dump_connections(
        sockets.nft, ask(IPCTNL_MSG_CT_GET, 0, b"", "list connections")
    )
    packed = {address.packed for address in addresses}
    requests = list(_of_addresses(known, packed))
    for (version, proto), wanted in _by_kind(ports).items():
        connections = [
            _connection(message, version)
            for message in known
            if message.body[0] == FAMILIES[version] and _is_of(message, proto)
        ]
        requests += _of_ports(sockets, connections, version, wanted)
    delete_connections(sockets.nft, requests)


def forget_addresses(sockets: Sockets, *addresses: IPAddress) -> None:
    """Plan: forget the connections that come from addresses, or go to them.

    Those that are translated count by the addresses that they really have.

    :raises MissingFeature: if the kernel does not let connections be deleted
    """
    count = count_connections()
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
            request = ask(IPCTNL_MSG_CT_GET, version, b"", what)
            requests += _of_addresses(dump_connections(sockets.nft, request), some)
    delete_connections(sockets.nft, requests)


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
    count = count_connections()
    if not count:
        return
    for (version, proto), wanted in _by_kind(ports).items():
        one_by_one = count > _WALK * len(wanted)
        found = _find(sockets.nft, version, proto, wanted, one_by_one)
        delete_connections(
            sockets.nft, list(_of_ports(sockets, found, version, wanted))
        )


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
    body = nested(CTA_TUPLE_REPLY, *_tuple(proto, local, client))
    what = f"find the connection from {client[0]} to {local[0]}"
    try:
        (message,) = call_conntrack(
            sockets.nft, ask(IPCTNL_MSG_CT_GET, version, body, what)
        )
    except NetlinkError as exc:
        if exc.errno == errno.ENOENT:
            return None
        raise
    original = _connection(message, version)
    return ip_address(original.address), int.from_bytes(original.port, "big")


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
    number = u8(CTA_PROTO_NUM, PROTOCOLS[proto])
    # The kernel compares the ports of TCP and UDP only.
    if one_by_one and proto != "sctp":
        flags = _F_PROTO_NUM | _F_PROTO_DST_PORT
        ends = [number + attribute(CTA_PROTO_DST_PORT, port) for port in ports]
    else:
        flags, ends = _F_PROTO_NUM, [number]
    restriction = nested(CTA_FILTER, u32(_CTA_FILTER_ORIG_FLAGS, flags))
    for end in ends:
        body = nested(CTA_TUPLE_ORIG, nested(CTA_TUPLE_PROTO, end)) + restriction
        what = f"list {proto} connections"
        request = ask(IPCTNL_MSG_CT_GET, version, body, what)
        for message in dump_connections(nft, request):
            yield _connection(message, version)


def _connection(message: Message, version: int) -> _Connection:
    original = first(message.body, CTA_TUPLE_ORIG, GENERAL.size)
    destination = CTA_IP_V4_DST if version == 4 else CTA_IP_V6_DST
    return _Connection(
        first(first(original, CTA_TUPLE_IP), destination),
        first(first(original, CTA_TUPLE_PROTO), CTA_PROTO_DST_PORT),
        message,
    )


def _deletions4(address: bytes) -> Iterator[Request]:
    """Yield requests to delete what comes from an IPv4 address, or goes to it."""
    source = nested(CTA_TUPLE_IP, attribute(CTA_IP_V4_SRC, address))
    what = f"forget the connections of {ip_address(address)}"
    for direction, flags in (
        (CTA_TUPLE_ORIG, _CTA_FILTER_ORIG_FLAGS),
        (CTA_TUPLE_REPLY, _CTA_FILTER_REPLY_FLAGS),
    ):
        body = nested(direction, source) + nested(CTA_FILTER, u32(flags, _F_IP_SRC))
        yield ask(IPCTNL_MSG_CT_DELETE, 4, body, what)


def _of_addresses(
    messages: Iterable[Message], addresses: set[bytes]
) -> Iterator[Request]:
    """Yield requests to delete what comes from addresses, or goes to them."""
    for message in messages:
        if not any(address in message.body for address in addresses):
            continue  # most of them: no need to take them apart
        version = 4 if message.body[0] == AF_INET else 6
        source = CTA_IP_V4_SRC if version == 4 else CTA_IP_V6_SRC
        directions = attributes(message.body, GENERAL.size)
        sources = {
            first(first(directions[kind], CTA_TUPLE_IP), source)
            for kind in (CTA_TUPLE_ORIG, CTA_TUPLE_REPLY)
        }
        if sources & addresses:
            yield deletion(message, version)


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
            yield deletion(connection.message, version)


def _is_of(message: Message, proto: Proto) -> bool:
    """Tell whether a connection is of a protocol."""
    original = first(message.body, CTA_TUPLE_ORIG, GENERAL.size)
    number = first(first(original, CTA_TUPLE_PROTO), CTA_PROTO_NUM)
    return number[0] == PROTOCOLS[proto]


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
        (CTA_IP_V4_SRC, CTA_IP_V4_DST)
        if source[0].version == 4
        else (CTA_IP_V6_SRC, CTA_IP_V6_DST)
    )
    addresses = nested(
        CTA_TUPLE_IP,
        attribute(kinds[0], source[0].packed),
        attribute(kinds[1], destination[0].packed),
    )
    ports = nested(
        CTA_TUPLE_PROTO,
        u8(CTA_PROTO_NUM, PROTOCOLS[proto]),
        attribute(CTA_PROTO_SRC_PORT, source[1].to_bytes(2, "big")),
        attribute(CTA_PROTO_DST_PORT, destination[1].to_bytes(2, "big")),
    )
    return addresses, ports
