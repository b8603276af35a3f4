"""Parsing messages of people who may mean no good."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias, TypeVar, TypeVarTuple

import anyio
import anyio.to_thread
import dns.message
from anyio.lowlevel import RunVar

Message: TypeAlias = dns.message.Message
T = TypeVar("T")
Args = TypeVarTuple("Args")

#: Bytes of a message that takes some milliseconds to parse: 30 us for each record.
LARGE = 2048

# a pointer to a part of another name, RFC 1035 section 4.1.4
_POINTER = re.compile(rb"[\xc0-\xff](?=(.))", re.DOTALL)
_OFFSET = 0x3F
_LONGEST_CHAIN = 32
_thread: RunVar[anyio.CapacityLimiter] = RunVar("cnm.dns")


def parse(data: bytes) -> Message | None:
    """Return a message, or None for what is none, whatever it is."""
    if _has_chain(data):
        return None
    try:
        return dns.message.from_wire(data)
    except Exception:  # the parser's errors are of many kinds
        return None


def _has_chain(data: bytes) -> bool:
    """Tell whether there is a pointer to a pointer to a pointer, and so on.

    dnspython (before 2.9) follows all of them for every record: 64 KiB take 20 seconds.
    """
    lengths: dict[int, int] = {}
    for match in _POINTER.finditer(data):
        at = match.start()
        target = (data[at] & _OFFSET) << 8 | data[at + 1]
        lengths[at] = lengths.get(target, 0) + 1
        if lengths[at] > _LONGEST_CHAIN:
            return True
    return False


async def sized(size: int, work: Callable[[*Args], T], *args: *Args) -> T:
    """Work on a message, in a thread if it is large, so that the loop is not late.

    It is one thread for all: several would leave the loop less and less of the time.
    """
    if size < LARGE:
        return work(*args)
    limiter = _thread.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(1)
        _thread.set(limiter)
    return await anyio.to_thread.run_sync(work, *args, limiter=limiter)
