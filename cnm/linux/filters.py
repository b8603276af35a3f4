"""Socket filters, by which the kernel keeps back messages that nobody needs to see.

What is kept back costs no wake-up of the event loop. A filter is a classic BPF program
(include/uapi/linux/bpf_common.h, filter.h). It reads numbers in network order, and
netlink has them in that of the host.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from socket import htonl, htons
from typing import NamedTuple

from .links import (
    IFF_UP,
    IFLA_GROUP,
    REAP_GROUP,
    REAP_SINGLY_GROUP,
    RTM_DELLINK,
    RTM_NEWLINK,
)
from .routes import RT_TABLE_MAIN, RTM_DELROUTE
from .wire import HEADER, LINK

_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30
_LOAD_NUMBER, _LOAD_WORD_AT_X = 0x00, 0x40
_SET_X, _COPY_TO_X = 0x01, 0x07
_EQUAL, _ANY_OF = 0x15, 0x45
_RETURN = 0x06
_EVERYTHING, _NOTHING = 0xFFFFFFFF, 0
#: SKF_AD_OFF + SKF_AD_NLATTR: look for the attribute X from A on, A = where it is
_FIND_ATTRIBUTE = 0xFFFFF000 + 12

# where they are in a message: struct nlmsghdr, struct ifinfomsg
_TYPE, _PORT = 4, 12
_FAMILY, _FLAGS, _CHANGED = HEADER.size, HEADER.size + 8, HEADER.size + 12
_ATTRIBUTES = HEADER.size + LINK.size
# and in struct rtmsg; tables with numbers of more than a byte have another one here
_TABLE = HEADER.size + 4
_AF_UNSPEC = 0
#: What has changed of a link that is new
_ALL = 0xFFFFFFFF


class _Step(NamedTuple):
    """An instruction; a comparison goes on at a label, or with the next one."""

    code: int
    number: int = 0
    yes: str = ""
    no: str = ""


def _assemble(*lines: _Step | str) -> bytes:
    """Return a program; a string among its steps is the label of the next."""
    steps: list[_Step] = []
    labels: dict[str, int] = {}
    for line in (*lines, "take", _Step(_RETURN, _EVERYTHING)):
        if isinstance(line, str):
            labels[line] = len(steps)
        else:
            steps.append(line)
    labels["leave"] = len(steps)
    steps.append(_Step(_RETURN, _NOTHING))

    def distance(position: int, label: str) -> int:
        return labels[label] - position - 1 if label else 0

    return b"".join(
        struct.pack(
            "=HBBI",
            step.code,
            distance(position, step.yes),
            distance(position, step.no),
            step.number,
        )
        for position, step in enumerate(steps)
    )


def lost_routes() -> bytes:
    """Return a filter for routes of the main table that are gone."""
    return _assemble(
        _Step(_LOAD_HALF, _TYPE),
        _Step(_EQUAL, htons(RTM_DELROUTE), no="leave"),
        _Step(_LOAD_BYTE, _TABLE),
        _Step(_EQUAL, RT_TABLE_MAIN, no="leave"),
    )


def not_by(ports: Collection[int]) -> bytes:
    """Return a filter for what others cause than some netlink sockets."""
    return _assemble(
        _Step(_LOAD_WORD, _PORT),
        *(_Step(_EQUAL, htonl(port), yes="leave") for port in ports),
    )


def damaged_links() -> bytes:
    """Return a filter for links that are gone, have been set down, or left a bridge.

    Those that we take down ourselves are in a group that is reaped. A link has been
    down for some time when it is reaped: then it is nothing new that it leaves its
    bridge.
    """
    return _assemble(
        _Step(_LOAD_HALF, _TYPE),
        _Step(_EQUAL, htons(RTM_DELLINK), yes="deleted"),
        _Step(_EQUAL, htons(RTM_NEWLINK), no="leave"),
        _Step(_LOAD_BYTE, _FAMILY),
        _Step(_EQUAL, _AF_UNSPEC, no="leave"),
        _Step(_LOAD_WORD, _CHANGED),
        _Step(_EQUAL, _ALL, yes="leave"),
        _Step(_ANY_OF, htonl(IFF_UP), no="leave"),
        _Step(_LOAD_WORD, _FLAGS),
        _Step(_ANY_OF, htonl(IFF_UP), yes="leave", no="group"),
        "deleted",
        _Step(_LOAD_BYTE, _FAMILY),
        _Step(_EQUAL, _AF_UNSPEC, yes="group"),
        _Step(_LOAD_WORD, _FLAGS),
        _Step(_ANY_OF, htonl(IFF_UP), yes="take", no="leave"),
        "group",
        _Step(_SET_X, IFLA_GROUP),
        _Step(_LOAD_NUMBER, _ATTRIBUTES),
        _Step(_LOAD_WORD, _FIND_ATTRIBUTE),
        _Step(_COPY_TO_X),
        _Step(_LOAD_WORD_AT_X, 4),
        _Step(_EQUAL, htonl(REAP_GROUP), yes="leave"),
        _Step(_EQUAL, htonl(REAP_SINGLY_GROUP), yes="leave"),
    )
