"""Fairness among operations that begin at the same moment."""

from __future__ import annotations

import anyio
import anyio.lowlevel

#: Operations that begin before the event loop has others run. Each keeps it for some
#: 100 us before it waits for the first time.
AT_ONCE = 8


class Turns:
    """Has operations begin a few at a time, in order.

    Hundreds that begin at once would keep the event loop from all else meanwhile.
    """

    def __init__(self) -> None:
        self._begun = 0
        self._lock = anyio.Lock(fast_acquire=True)

    async def take(self) -> None:
        """Wait for one's turn; at once, unless many have begun in this round.

        Those who have to wait begin one in a round: their lock passes from one to the
        next when the others have run.
        """
        if self._begun < AT_ONCE and not self._lock.locked():
            self._begun += 1
            return
        async with self._lock:
            if self._begun >= AT_ONCE:
                await anyio.lowlevel.checkpoint()
                self._begun = 0
            self._begun += 1
