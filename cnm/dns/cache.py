"""Keeping the answers of other name servers, as long as they allow."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

#: Seconds for which an answer is kept at most; and one that says that there is nothing.
LONGEST = 86_400
LONGEST_NEGATIVE = 300
#: Bytes of the largest answer that is worth keeping.
LARGEST = 4096


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer that another name server has given.

    :ivar wire: the answer, in wire format
    :ivar received: when it came
    :ivar expires: when it is not valid any more
    """

    wire: bytes
    received: float
    expires: float


class Cache:
    """The answers that were used last.

    :param size: how many are kept
    :param clock: returns the time in seconds
    """

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._clock = clock
        self._entries: OrderedDict[Hashable, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> tuple[bytes, int] | None:
        """Return an answer and its age in seconds, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self._clock()
        if now >= entry.expires:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry.wire, int(now - entry.received)

    def put(self, key: Hashable, wire: bytes, ttl: int, *, negative: bool) -> None:
        """Keep an answer.

        :param ttl: seconds for which it is valid
        :param negative: whether it says that there is nothing
        """
        ttl = min(ttl, LONGEST_NEGATIVE if negative else LONGEST)
        if ttl <= 0 or not self._size:
            return
        now = self._clock()
        self._entries[key] = Entry(wire, now, now + ttl)
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)
