"""Reading tables.

Rules, chains, sets and elements are returned as the attributes that would make them
again, without a look inside: what somebody else put there can be put back verbatim.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import MissingFeature, NetlinkError
from ..netlink import Request
from ..wire import attribute, attribute_list, attributes, nested, string, text
from .batch import (
    GENERAL,
    INET_HEADER,
    NFNL_SUBSYS_NFTABLES,
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETGEN,
    NFT_MSG_GETRULE,
    NFT_MSG_GETSET,
    NFT_MSG_GETSETELEM,
    NFT_MSG_GETTABLE,
    NFTA_CHAIN_HOOK,
    NFTA_CHAIN_NAME,
    NFTA_CHAIN_POLICY,
    NFTA_CHAIN_TYPE,
    NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_USERDATA,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET,
    NFTA_TABLE_NAME,
)
from .sets import NFTA_LIST_ELEM, NFTA_SET_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..netlink import Message, NetlinkSocket

_NFTA_GEN_ID = 1
_NFTA_CHAIN_USERDATA = 12
# Of all that the kernel tells, what can be told to it.
_CHAIN_ATTRIBUTES = (
    NFTA_CHAIN_NAME,
    NFTA_CHAIN_HOOK,
    NFTA_CHAIN_POLICY,
    NFTA_CHAIN_TYPE,
    _NFTA_CHAIN_USERDATA,
)
_RULE_ATTRIBUTES = (NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA)
# name, flags, key and data types, policy, description, timeout, gc interval, user data,
# object type, expression(s)
_SET_ATTRIBUTES = (2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17, 18)
# key, data, flags, timeout, expiration, user data, expression, object, key end,
# expressions
_ELEMENT_ATTRIBUTES = (1, 2, 3, 4, 5, 6, 7, 9, 10, 11)


@dataclass(frozen=True, slots=True)
class Definition:
    """Something in a table, and what would make it again.

    :ivar name: its name; for a rule, the name of its chain
    :ivar body: for the ``add_raw_...()`` methods of a batch
    """

    name: str
    body: bytes


def list_tables(socket: NetlinkSocket) -> list[str]:
    """Return the names of the tables of family inet.

    :raises MissingFeature: if the kernel has no nf_tables
    """
    request = _request(NFT_MSG_GETTABLE, b"", "list tables")
    try:
        found = socket.dump(request)
    except NetlinkError as exc:
        _raise_if_missing(exc)
        raise
    return [_name(message, NFTA_TABLE_NAME) for message in found]


def list_chains(socket: NetlinkSocket, table: str) -> list[Definition]:
    """Return the chains of a table."""
    found = _dump(socket, NFT_MSG_GETCHAIN, table, b"", f"list chains of {table}")
    return _definitions(found, table, NFTA_CHAIN_NAME, _CHAIN_ATTRIBUTES)


def list_rules(socket: NetlinkSocket, table: str, chain: str) -> list[Definition]:
    """Return the rules of a chain, in their order."""
    body = string(NFTA_RULE_CHAIN, chain)
    found = _dump(socket, NFT_MSG_GETRULE, table, body, f"list rules of {chain}")
    return _definitions(found, table, NFTA_RULE_CHAIN, _RULE_ATTRIBUTES)


def list_sets(socket: NetlinkSocket, table: str) -> list[Definition]:
    """Return the sets and maps of a table, the anonymous ones of rules included."""
    found = _dump(socket, NFT_MSG_GETSET, table, b"", f"list sets of {table}")
    return _definitions(found, table, NFTA_SET_NAME, _SET_ATTRIBUTES)


def list_elements(socket: NetlinkSocket, table: str, name: str) -> list[bytes]:
    """Return the elements of a set or map."""
    body = string(NFTA_SET_ELEM_LIST_SET, name)
    found = _dump(socket, NFT_MSG_GETSETELEM, table, body, f"list elements of {name}")
    return [
        nested(NFTA_LIST_ELEM, _selected(attribute_list(element), _ELEMENT_ATTRIBUTES))
        for message in found
        for kind, listed in attribute_list(message.body, GENERAL.size)
        if kind == NFTA_SET_ELEM_LIST_ELEMENTS
        for _, element in attribute_list(listed)
    ]


def generation(socket: NetlinkSocket) -> int:
    """Return a number that changes whenever anybody changes any table.

    :raises MissingFeature: if the kernel has no nf_tables
    """
    request = _request(NFT_MSG_GETGEN, b"", "get the generation of the tables")
    try:
        (message,) = socket.call(request)
    except NetlinkError as exc:
        _raise_if_missing(exc)
        raise
    return int.from_bytes(attributes(message.body, GENERAL.size)[_NFTA_GEN_ID], "big")


def _request(kind: int, body: bytes, what: str) -> Request:
    return Request(NFNL_SUBSYS_NFTABLES | kind, 0, INET_HEADER + body, what)


def _raise_if_missing(error: NetlinkError) -> None:
    # nfnetlink's answer to a message for a subsystem that is not there
    if error.errno == errno.EINVAL:
        raise MissingFeature(errno.EINVAL, error.what, "CONFIG_NF_TABLES") from error


def _dump(
    socket: NetlinkSocket, kind: int, table: str, body: bytes, what: str
) -> list[Message]:
    return socket.dump(_request(kind, string(NFTA_TABLE_NAME, table) + body, what))


def _name(message: Message, kind: int) -> str:
    return text(attributes(message.body, GENERAL.size).get(kind))


def _definitions(
    found: list[Message], table: str, name: int, wanted: tuple[int, ...]
) -> list[Definition]:
    return [
        Definition(
            _name(message, name),
            _selected(attribute_list(message.body, GENERAL.size), wanted),
        )
        for message in found
        # older kernels ignore which table is asked for
        if _name(message, NFTA_TABLE_NAME) == table
    ]


def _selected(found: Iterable[tuple[int, bytes]], wanted: tuple[int, ...]) -> bytes:
    return b"".join([attribute(kind, data) for kind, data in found if kind in wanted])
