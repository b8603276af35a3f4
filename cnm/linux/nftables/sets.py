"""Sets and maps, and their elements."""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct
from typing import TYPE_CHECKING

from ...errors import InvalidError
from ..wire import attribute, attributes, be32, be64, nested, string
from .datatypes import VERDICT, DataType, Value, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

# include/uapi/linux/netfilter/nf_tables.h: enum nft_set_flags, nft_set_attributes ...
NFT_SET_ANONYMOUS = 0x01
_NFT_SET_INTERVAL = 0x04
_NFT_SET_MAP = 0x08
_NFT_SET_TIMEOUT = 0x10
_NFT_SET_CONCAT = 0x80
NFTA_SET_TABLE = 1
NFTA_SET_NAME = 2
NFTA_SET_FLAGS = 3
NFTA_SET_KEY_TYPE = 4
NFTA_SET_KEY_LEN = 5
NFTA_SET_DATA_TYPE = 6
NFTA_SET_DATA_LEN = 7
NFTA_SET_DESC = 9
NFTA_SET_USERDATA = 13
_NFTA_SET_DESC_CONCAT = 2
_NFTA_SET_FIELD_LEN = 1
NFTA_LIST_ELEM = 1
_NFTA_SET_ELEM_KEY = 1
_NFTA_SET_ELEM_DATA = 2
_NFTA_SET_ELEM_FLAGS = 3
_NFTA_SET_ELEM_TIMEOUT = 4
_NFTA_SET_ELEM_KEY_END = 10
_NFT_SET_ELEM_INTERVAL_END = 1
NFTA_DATA_VALUE = 1
_NFTA_DATA_VERDICT = 2
_NFTA_VERDICT_CODE = 1
_NFTA_VERDICT_CHAIN = 2

_BITS_PER_TYPE = 6
# nftables include/udata.h: type, length, value; for whoever lists the set with nft(8)
_USERDATA = Struct("=BBIBBI")
_UDATA_KEY_BYTE_ORDER = 0
_UDATA_DATA_BYTE_ORDER = 1
_BYTE_ORDER_HOST = 1
_BYTE_ORDER_BIG = 2


@dataclass(frozen=True, slots=True, eq=False)  # one is itself alone, and quick to hash
class Set:
    """A named set, or a map if there is ``data``.

    Look-ups take the same time however many elements there are, but for interval sets:
    those with one field are trees, those with several are quick to search and slow to
    change (20 ms at 1,000 elements).

    :ivar key: the fields of a key
    :ivar data: the fields of what a key is mapped to; ``(VERDICT,)`` for a verdict map
    :ivar interval: whether an element is a range of keys
    :ivar timeout: whether elements may expire
    """

    name: str
    key: tuple[DataType, ...]
    data: tuple[DataType, ...] = ()
    interval: bool = False
    timeout: bool = False

    @property
    def maps_to_verdicts(self) -> bool:
        """Whether it maps keys to verdicts."""
        return self.data == (VERDICT,)

    def definition(self) -> bytes:
        """Return the attributes that make it, after those of its table and number."""
        flags = (
            _NFT_SET_INTERVAL * self.interval
            | _NFT_SET_MAP * bool(self.data)
            | _NFT_SET_TIMEOUT * self.timeout
            | _NFT_SET_CONCAT * (len(self.key) > 1)
        )
        parts = [
            string(NFTA_SET_NAME, self.name),
            be32(NFTA_SET_FLAGS, flags),
            be32(NFTA_SET_KEY_TYPE, _type_number(self.key)),
            be32(NFTA_SET_KEY_LEN, _length(self.key)),
        ]
        if self.data:
            parts.append(be32(NFTA_SET_DATA_TYPE, _type_number(self.data)))
            parts.append(be32(NFTA_SET_DATA_LEN, _length(self.data)))
        if len(self.key) > 1:
            fields = (
                nested(NFTA_LIST_ELEM, be32(_NFTA_SET_FIELD_LEN, field.size))
                for field in self.key
            )
            parts.append(nested(NFTA_SET_DESC, nested(_NFTA_SET_DESC_CONCAT, *fields)))
        parts.append(attribute(NFTA_SET_USERDATA, self._userdata()))
        return b"".join(parts)

    def _userdata(self) -> bytes:
        host_order = len(self.key) == 1 and self.key[0].host_order
        return _USERDATA.pack(
            _UDATA_KEY_BYTE_ORDER,
            4,
            _BYTE_ORDER_HOST if host_order else _BYTE_ORDER_BIG,
            _UDATA_DATA_BYTE_ORDER,
            4,
            _BYTE_ORDER_BIG,
        )


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a set or map.

    It is encoded once, when it is made: a table is rebuilt in a third of the time.

    :raises InvalidError: if its values do not fit the set
    :ivar set: the set or map it belongs to
    :ivar key: the values of its key, or the first key of an interval
    :ivar data: what the key is mapped to
    :ivar end: the last key of an interval, inclusive; None for an interval of one
    :ivar timeout: milliseconds after which it expires, 0 for never
    :ivar encoded: the element as the kernel wants it
    """

    set: Set
    key: tuple[Value, ...]
    data: tuple[Value, ...] | Verdict | None = None
    end: tuple[Value, ...] | None = None
    timeout: int = 0
    encoded: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoded", self._encode())

    def same_key(self, listed: bytes) -> bool:
        """Tell whether an element that the kernel has listed has the same key."""
        (inner,) = attributes(listed).values()
        key = attributes(attributes(inner)[_NFTA_SET_ELEM_KEY])[NFTA_DATA_VALUE]
        return key == _pack(self.set.key, self.key, self.set)

    def _encode(self) -> bytes:
        definition = self.set
        packed = _pack(definition.key, self.key, definition)
        key = nested(_NFTA_SET_ELEM_KEY, attribute(NFTA_DATA_VALUE, packed))
        if definition.interval:
            last = packed
            if self.end is not None:
                last = _pack(definition.key, self.end, definition)
            if len(definition.key) == 1:
                return nested(NFTA_LIST_ELEM, key + self._rest()) + _stop(last)
            key += nested(_NFTA_SET_ELEM_KEY_END, attribute(NFTA_DATA_VALUE, last))
        return nested(NFTA_LIST_ELEM, key + self._rest())

    def _rest(self) -> bytes:
        """Return the attributes other than the key."""
        rest = b""
        if self.data is not None:
            if isinstance(self.data, Verdict):
                data = encode_verdict(self.data)
            else:
                packed = _pack(self.set.data, self.data, self.set)
                data = attribute(NFTA_DATA_VALUE, packed)
            rest = nested(_NFTA_SET_ELEM_DATA, data)
        if self.timeout:
            rest += be64(_NFTA_SET_ELEM_TIMEOUT, self.timeout)
        return rest


def encode_verdict(verdict: Verdict) -> bytes:
    """Return a verdict as an attribute of data."""
    chain = string(_NFTA_VERDICT_CHAIN, verdict.chain) if verdict.chain else b""
    code = be32(_NFTA_VERDICT_CODE, verdict.code & 0xFFFFFFFF)
    return nested(_NFTA_DATA_VERDICT, code, chain)


def _stop(last: bytes) -> bytes:
    """Return the element behind the last of an interval: a tree has only boundaries."""
    after = int.from_bytes(last, "big") + 1
    if after.bit_length() > len(last) * 8:
        return b""  # the interval ends where the numbers do
    value = attribute(NFTA_DATA_VALUE, after.to_bytes(len(last), "big"))
    flags = be32(_NFTA_SET_ELEM_FLAGS, _NFT_SET_ELEM_INTERVAL_END)
    return nested(NFTA_LIST_ELEM, flags, nested(_NFTA_SET_ELEM_KEY, value))


def _pack(
    fields: Sequence[DataType], values: Sequence[Value], definition: Set
) -> bytes:
    if len(fields) != len(values):
        raise InvalidError(
            f"{tuple(values)!r} does not fit set {definition.name!r}, which has "
            f"{' . '.join(field.name for field in fields) or 'no data'}"
        )
    if len(fields) == 1:
        return fields[0].pack(values[0])[: fields[0].size]
    return b"".join(map(DataType.pack, fields, values))


def _type_number(fields: tuple[DataType, ...]) -> int:
    number = 0
    for kind in fields:
        number = number << _BITS_PER_TYPE | kind.number
    return number


def _length(fields: tuple[DataType, ...]) -> int:
    if len(fields) == 1:
        return fields[0].size
    return sum(field.room for field in fields)
