"""What the kernel tells of tracked connections, and how they are deleted.

Constants: include/uapi/linux/netfilter/nfnetlink_conntrack.h, nfnetlink.h,
nf_conntrack_common.h.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, AF_UNSPEC
from struct import Struct
from typing import TYPE_CHECKING

from ..errors import KernelError, MissingFeature, NetlinkError
from . import sysctl
from .netlink import Request
from .wire import attribute, attributes, be32, nested

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..types import IPAddress, Proto
    from .netlink import Message, NetlinkSocket

# include/uapi/linux/netfilter/nfnetlink.h: struct nfgenmsg, NFNL_SUBSYS_CTNETLINK
GENERAL = Struct(">BBH")
_NFNL_SUBSYS_CTNETLINK = 1 << 8
IPCTNL_MSG_CT_GET = 1
IPCTNL_MSG_CT_DELETE = 2
# with version 0, older kernels take a deletion for one in all families
_VERSION = 1

CTA_TUPLE_ORIG = 1
CTA_TUPLE_REPLY = 2
_CTA_ID = 12
_CTA_ZONE = 18
CTA_FILTER = 25
CTA_TUPLE_IP = 1
CTA_TUPLE_PROTO = 2
CTA_IP_V4_SRC = 1
CTA_IP_V4_DST = 2
CTA_IP_V6_SRC = 3
CTA_IP_V6_DST = 4
CTA_PROTO_NUM = 1
CTA_PROTO_SRC_PORT = 2
CTA_PROTO_DST_PORT = 3
_CTA_STATUS = 3
_CTA_STATUS_MASK = 26
# IPS_SRC_NAT and IPS_DST_NAT: 1 << 4, 1 << 5
_TRANSLATED = 0x30

# include/uapi/linux/in.h
PROTOCOLS: dict[Proto, int] = {"tcp": 6, "udp": 17, "sctp": 132}
_NAMES = {number: str(name) for name, number in PROTOCOLS.items()}
_NAMES |= {1: "icmp", 58: "icmpv6"}
FAMILIES = {0: AF_UNSPEC, 4: AF_INET, 6: AF_INET6}
_COUNT = "net.netfilter.nf_conntrack_count"
# How many deletions are sent at once; errors have to fit into the receive buffer.
_DELETIONS = 1000


@dataclass(frozen=True, slots=True)
class Untranslated:
    """A connection that is not translated.

    :ivar proto: its protocol, ``""`` for those that nothing is known of
    :ivar port: the port that it goes to, 0 if there is none
    :ivar message: all that the kernel has told of it
    """

    proto: str
    source: IPAddress
    destination: IPAddress
    port: int
    message: Message


def untranslated(nft: NetlinkSocket) -> Iterator[Untranslated]:
    """Yield the connections of which neither address is translated.

    :raises MissingFeature: if the kernel does not tell of connections
    """
    # older kernels do not know the mask, and tell of all
    body = be32(_CTA_STATUS, 0) + be32(_CTA_STATUS_MASK, _TRANSLATED)
    request = ask(IPCTNL_MSG_CT_GET, 0, body, "list connections")
    for message in dump_connections(nft, request):
        found = attributes(message.body, GENERAL.size)
        if not int.from_bytes(found[_CTA_STATUS], "big") & _TRANSLATED:
            yield _connection(message, found[CTA_TUPLE_ORIG])


def _connection(message: Message, original: bytes) -> Untranslated:
    ends = attributes(original)
    source, destination = attributes(ends[CTA_TUPLE_IP]).values()
    kind = attributes(ends[CTA_TUPLE_PROTO])
    return Untranslated(
        proto=_NAMES.get(kind[CTA_PROTO_NUM][0], ""),
        source=ip_address(source),
        destination=ip_address(destination),
        port=int.from_bytes(kind.get(CTA_PROTO_DST_PORT, b""), "big"),
        message=message,
    )


def count_connections() -> int:
    """Return how many connections the calling thread's namespace tracks."""
    try:
        return int(sysctl.read(_COUNT))
    except KernelError as exc:
        if exc.errno != errno.ENOENT:
            raise
        return 0


def deletion(message: Message, version: int) -> Request:
    """Return the request to delete one connection, and no later one like it."""
    found = attributes(message.body, GENERAL.size)
    body = nested(CTA_TUPLE_ORIG, found[CTA_TUPLE_ORIG])
    for kind in (_CTA_ZONE, _CTA_ID):
        if kind in found:
            body += attribute(kind, found[kind])
    return ask(IPCTNL_MSG_CT_DELETE, version, body, "forget a connection")


def ask(kind: int, version: int, body: bytes, what: str) -> Request:
    """Return a request about connections of a family; version 0 stands for both."""
    header = GENERAL.pack(FAMILIES[version], _VERSION, 0)
    return Request(_NFNL_SUBSYS_CTNETLINK | kind, 0, header + body, what)


def delete_connections(nft: NetlinkSocket, requests: Sequence[Request]) -> None:
    """Send deletions; no error if there is nothing to delete."""
    for start in range(0, len(requests), _DELETIONS):
        try:
            call_conntrack(nft, *requests[start : start + _DELETIONS])
        except NetlinkError as exc:
            if any(error.errno != errno.ENOENT for error in (exc, *exc.others)):
                raise


def call_conntrack(nft: NetlinkSocket, *requests: Request) -> list[Message]:
    """Send requests, and return the answers.

    :raises MissingFeature: if the kernel does not know them
    """
    try:
        return nft.call(*requests)
    except NetlinkError as exc:
        _raise_if_missing(exc)
        raise


def dump_connections(nft: NetlinkSocket, request: Request) -> list[Message]:
    """Return the connections that a request asks for.

    :raises MissingFeature: if the kernel does not tell of them
    """
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
