"""Transactions on a table: all of it happens, or nothing.

A transaction is one system call. Constants: include/uapi/linux/netfilter/nfnetlink.h,
nf_tables.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING

from ..netlink import Request
from ..wire import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    attribute,
    be32,
    be64,
    nested,
    string,
)
from .comments import encode_comment
from .datatypes import ACCEPT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..netlink import NetlinkSocket
    from .sets import Element, Set

#: struct nfgenmsg: family, version, resource id
GENERAL = Struct(">BBH")
#: include/uapi/linux/netfilter.h, NFPROTO_...: families of tables; INET is for IPv4 and
#: IPv6 together
INET = 1
NFPROTO_IPV4 = 2
NFPROTO_IPV6 = 10
#: nf_tables' number among the subsystems of nfnetlink, where it is in a message's type
NFNL_SUBSYS_NFTABLES = 10 << 8

NFT_MSG_NEWTABLE = 0
NFT_MSG_GETTABLE = 1
NFT_MSG_DELTABLE = 2
NFT_MSG_NEWCHAIN = 3
NFT_MSG_GETCHAIN = 4
NFT_MSG_DELCHAIN = 5
NFT_MSG_NEWRULE = 6
NFT_MSG_GETRULE = 7
NFT_MSG_DELRULE = 8
NFT_MSG_NEWSET = 9
NFT_MSG_GETSET = 10
NFT_MSG_DELSET = 11
NFT_MSG_NEWSETELEM = 12
NFT_MSG_GETSETELEM = 13
NFT_MSG_DELSETELEM = 14
NFT_MSG_NEWGEN = 15
NFT_MSG_GETGEN = 16

# the number of a table's name in messages of all kinds
NFTA_TABLE_NAME = 1
NFTA_CHAIN_NAME = 3
NFTA_CHAIN_HOOK = 4
NFTA_CHAIN_POLICY = 5
NFTA_CHAIN_TYPE = 7
NFTA_RULE_CHAIN = 2
NFTA_RULE_HANDLE = 3
NFTA_RULE_EXPRESSIONS = 4
_NFTA_RULE_POSITION = 6
NFTA_RULE_USERDATA = 7
NFTA_SET_ID = 10
NFTA_SET_ELEM_LIST_SET = 2
NFTA_SET_ELEM_LIST_ELEMENTS = 3
NFTA_HOOK_HOOKNUM = 1
NFTA_HOOK_PRIORITY = 2
_NFNL_MSG_BATCH_BEGIN = 0x10
_NFNL_MSG_BATCH_END = 0x11
_NFNL_BATCH_GENID = 1

_BATCH_HEADER = GENERAL.pack(0, 0, 10)
# An attribute's length is a number of 16 bits; elements of a set share one attribute.
_ELEMENTS_PER_MESSAGE = 60_000


@dataclass(frozen=True, slots=True)
class Hook:
    """Where packets come into a chain.

    :ivar type: ``"filter"`` or ``"nat"``
    :ivar number: ``NF_INET_...``, include/uapi/linux/netfilter.h
    :ivar priority: chains of a hook see packets in the order of their priorities
    """

    type: str
    number: int
    priority: int


# include/uapi/linux/netfilter.h, enum nf_inet_hooks
PREROUTING = 0
INPUT = 1
FORWARD = 2
OUTPUT = 3
POSTROUTING = 4


class Batch:
    """Collects changes of one table, for :func:`commit`.

    :param table: name of the table
    :param family: its family, ``NFPROTO_...``
    """

    def __init__(self, table: str, family: int = INET) -> None:
        self.table = table
        self.requests: list[Request] = []
        self._header = GENERAL.pack(family, 0, 0)
        self._table = string(NFTA_TABLE_NAME, table)
        self._sets = 0

    def add_table(self) -> None:
        """Make the table, unless it exists."""
        self._append(NFT_MSG_NEWTABLE, NLM_F_CREATE, b"", f"add table {self.table}")

    def delete_table(self) -> None:
        """Delete the table, and all that is in it."""
        self._append(NFT_MSG_DELTABLE, 0, b"", f"delete table {self.table}")

    def add_chain(self, name: str, hook: Hook | None = None) -> None:
        """Make a chain; without a hook it is reached by jumps only."""
        body = string(NFTA_CHAIN_NAME, name)
        if hook is not None:
            body += nested(
                NFTA_CHAIN_HOOK,
                be32(NFTA_HOOK_HOOKNUM, hook.number),
                be32(NFTA_HOOK_PRIORITY, hook.priority & 0xFFFFFFFF),
            )
            body += be32(NFTA_CHAIN_POLICY, ACCEPT.code)
            body += string(NFTA_CHAIN_TYPE, hook.type)
        self.add_raw_chain(name, body)

    def add_raw_chain(self, name: str, definition: bytes) -> None:
        """Make a chain as :func:`list_chains` found it."""
        self._append(NFT_MSG_NEWCHAIN, NLM_F_CREATE, definition, f"add chain {name}")

    def add_set(self, definition: Set) -> None:
        """Make a set or map."""
        self.add_raw_set(definition.name, definition.definition())

    def add_raw_set(self, name: str, definition: bytes) -> None:
        """Make a set or map as :func:`list_sets` found it."""
        self._sets += 1
        body = definition + be32(NFTA_SET_ID, self._sets)
        self._append(NFT_MSG_NEWSET, NLM_F_CREATE, body, f"add set {name}")

    def add_rule(self, chain: str, *expressions: bytes, comment: str = "") -> None:
        """Add a rule at the end of a chain.

        :param comment: what nft(8) and iptables(8) show with it
        """
        definition = nested(NFTA_RULE_EXPRESSIONS, *expressions)
        if comment:
            definition += attribute(NFTA_RULE_USERDATA, encode_comment(comment))
        self.add_raw_rule(chain, definition)

    def add_raw_rule(self, chain: str, definition: bytes) -> None:
        """Add a rule as :func:`list_rules` found it."""
        self._raw_rule(chain, definition, NLM_F_APPEND)

    def insert_rule(
        self, chain: str, *expressions: bytes, before: int = 0, comment: str = ""
    ) -> None:
        """Add a rule at the beginning of a chain, or before another rule.

        :param before: handle of that rule
        :param comment: what nft(8) and iptables(8) show with it
        """
        definition = nested(NFTA_RULE_EXPRESSIONS, *expressions)
        if before:
            definition += be64(_NFTA_RULE_POSITION, before)
        if comment:
            definition += attribute(NFTA_RULE_USERDATA, encode_comment(comment))
        self._raw_rule(chain, definition, 0)

    def delete_rule(self, chain: str, handle: int) -> None:
        """Delete a rule. It is an error if the chain does not have it."""
        body = string(NFTA_RULE_CHAIN, chain) + be64(NFTA_RULE_HANDLE, handle)
        self._append(NFT_MSG_DELRULE, 0, body, f"delete rule from {chain}")

    def _raw_rule(self, chain: str, definition: bytes, flags: int) -> None:
        body = string(NFTA_RULE_CHAIN, chain) + definition
        flags |= NLM_F_CREATE
        self._append(NFT_MSG_NEWRULE, flags, body, f"add rule to {chain}")

    def add_elements(self, elements: Iterable[Element]) -> None:
        """Add elements. It is no error if a set has the same element already."""
        for name, encoded in _by_set(elements).items():
            self.add_raw_elements(name, encoded)

    def add_raw_elements(self, name: str, encoded: Sequence[bytes]) -> None:
        """Add elements as :func:`list_elements` found them."""
        self._elements(NFT_MSG_NEWSETELEM, NLM_F_CREATE, name, encoded, "add to")

    def delete_elements(self, elements: Iterable[Element]) -> None:
        """Delete elements. It is an error if a set does not have one of them."""
        for name, encoded in _by_set(elements).items():
            self._elements(NFT_MSG_DELSETELEM, 0, name, encoded, "delete from")

    def _elements(
        self, kind: int, flags: int, name: str, encoded: Sequence[bytes], what: str
    ) -> None:
        start = size = 0
        for position, element in enumerate(encoded):
            if size + len(element) > _ELEMENTS_PER_MESSAGE:
                part = encoded[start:position]
                self._elements_message(kind, flags, name, part, what)
                start, size = position, 0
            size += len(element)
        if size:
            self._elements_message(kind, flags, name, encoded[start:], what)

    def _elements_message(
        self, kind: int, flags: int, name: str, encoded: Sequence[bytes], what: str
    ) -> None:
        body = string(NFTA_SET_ELEM_LIST_SET, name)
        body += nested(NFTA_SET_ELEM_LIST_ELEMENTS, *encoded)
        self._append(kind, flags, body, f"{what} set {name}")

    def _append(self, kind: int, flags: int, body: bytes, what: str) -> None:
        body = self._header + self._table + body
        self.requests.append(Request(NFNL_SUBSYS_NFTABLES | kind, flags, body, what))


def commit(socket: NetlinkSocket, batch: Batch, *, generation: int = 0) -> None:
    """Make all the changes of a batch, or none of them.

    :param socket: a socket of protocol ``NETLINK_NETFILTER``
    :param generation: what :func:`cnm.linux.nftables.generation` returned; if anybody
        has changed a table since, nothing is done
    :raises NetlinkError: if a change is refused; ERESTART if somebody was faster
    :raises MissingFeature: if the kernel has no nf_tables
    """
    if not batch.requests:
        return
    body = _BATCH_HEADER
    if generation:
        body += be32(_NFNL_BATCH_GENID, generation)
    what = f"change table {batch.table}"
    socket.call(
        Request(_NFNL_MSG_BATCH_BEGIN, 0, body, what, "CONFIG_NF_TABLES"),
        *batch.requests,
        Request(_NFNL_MSG_BATCH_END, 0, _BATCH_HEADER, what),
        # the end of a batch is not acknowledged
        acknowledged=len(batch.requests),
    )


def _by_set(elements: Iterable[Element]) -> dict[str, list[bytes]]:
    encoded: dict[str, list[bytes]] = {}
    for element in elements:
        encoded.setdefault(element.set.name, []).append(element.encoded)
    return encoded
