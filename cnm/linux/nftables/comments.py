"""Comments of rules, in the user data that the kernel keeps for nft(8).

Source: libnftnl include/libnftnl/udata.h; each entry is a type, a length and a value.
"""

from __future__ import annotations

from ..wire import text

_NFTNL_UDATA_RULE_COMMENT = 0


def encode_comment(comment: str) -> bytes:
    """Return the user data of a rule that has a comment."""
    value = comment.encode() + b"\0"
    return bytes((_NFTNL_UDATA_RULE_COMMENT, len(value))) + value


def decode_comment(userdata: bytes) -> str:
    """Return the comment in the user data of a rule, ``""`` if there is none."""
    start = 0
    while start + 2 <= len(userdata):
        kind, length = userdata[start : start + 2]
        start += 2
        if kind == _NFTNL_UDATA_RULE_COMMENT:
            return text(userdata[start : start + length])
        start += length
    return ""
