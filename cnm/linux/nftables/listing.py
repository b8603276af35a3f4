"""Reading tables.

What is in tables of cnm is returned as the attributes that would make it again, without
a look inside: what somebody else put there can be put back verbatim.
:func:`list_chains_of_all` and :func:`list_rules_of` are for other people's tables.
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
    INET,
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
    NFTA_HOOK_HOOKNUM,
    NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_HANDLE,
    NFTA_RULE_USERDATA,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET,
    NFTA_TABLE_NAME,
)
from .comments import decode_comment
from .expressions import NFTA_EXPR_NAME
from .sets import NFTA_LIST_ELEM, NFTA_SET_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..netlink import Message, NetlinkSocket

_NFTA_GEN_ID = 1
_ALL_FAMILIES = 0
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """A chain of somebody's table.

    :ivar family: the table's family, ``NFPROTO_...``
    :ivar hook: the hook from where packets come into it, or None
    :ivar policy: the code of the verdict at its end, or None if nothing comes into it
        but by jumps
    """

    family: int
    table: str
    name: str
    hook: int | None
    policy: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A rule of somebody's chain.

    :ivar handle: the number by which it can be deleted
    :ivar expressions: the names of its expressions
    """

    handle: int
    comment: str
    expressions: tuple[str, ...]


def list_tables(socket: NetlinkSocket) -> list[str]:
    """Return the names of the tables of family inet.

    :raises MissingFeature: if the kernel has no nf_tables
    """
    request = _request(NFT_MSG_GETTABLE, b"", "list tables")
    found = _dump_first(socket, request)
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


def list_chains_of_all(socket: NetlinkSocket) -> list[Chain]:
    """Return the chains of all tables of all families.

    :raises MissingFeature: if the kernel has no nf_tables
    """
    request = _request(NFT_MSG_GETCHAIN, b"", "list all chains", _ALL_FAMILIES)
    return [_chain(message) for message in _dump_first(socket, request)]


def list_rules_of(socket: NetlinkSocket, chain: Chain) -> list[Rule]:
    """Return the rules of somebody's chain, in their order."""
    body = string(NFTA_TABLE_NAME, chain.table) + string(NFTA_RULE_CHAIN, chain.name)
    what = f"list rules of {chain.name}"
    found = socket.dump(_request(NFT_MSG_GETRULE, body, what, chain.family))
    return [_rule(message) for message in found]


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


def _chain(message: Message) -> Chain:
    found = attributes(message.body, GENERAL.size)
    hook = attributes(found.get(NFTA_CHAIN_HOOK, b"")).get(NFTA_HOOK_HOOKNUM)
    policy = found.get(NFTA_CHAIN_POLICY)
    return Chain(
        family=message.body[0],
        table=text(found[NFTA_TABLE_NAME]),
        name=text(found[NFTA_CHAIN_NAME]),
        hook=None if hook is None else int.from_bytes(hook, "big"),
        policy=None if policy is None else int.from_bytes(policy, "big"),
    )


def _rule(message: Message) -> Rule:
    found = attributes(message.body, GENERAL.size)
    listed = attribute_list(found.get(NFTA_RULE_EXPRESSIONS, b""))
    expressions = [attributes(expression) for _, expression in listed]
    return Rule(
        handle=int.from_bytes(found[NFTA_RULE_HANDLE], "big"),
        comment=decode_comment(found.get(NFTA_RULE_USERDATA, b"")),
        expressions=tuple(text(it[NFTA_EXPR_NAME]) for it in expressions),
    )


def _request(kind: int, body: bytes, what: str, family: int = INET) -> Request:
    header = GENERAL.pack(family, 0, 0)
    return Request(NFNL_SUBSYS_NFTABLES | kind, 0, header + body, what)


def _raise_if_missing(error: NetlinkError) -> None:
    # nfnetlink's answer to a message for a subsystem that is not there
    if error.errno == errno.EINVAL:
        raise MissingFeature(errno.EINVAL, error.what, "CONFIG_NF_TABLES") from error


def _dump_first(socket: NetlinkSocket, request: Request) -> list[Message]:
    """Dump what may be the first thing that the kernel is asked of tables."""
    try:
        return socket.dump(request)
    except NetlinkError as exc:
        _raise_if_missing(exc)
        raise


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
