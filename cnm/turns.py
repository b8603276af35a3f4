"""Fairness among operations that begin at the same moment."""

from __future__ import annotations

import anyio.lowlevel

#: Operations that begin before the event loop has others run. Each keeps it for some
#: 100 us before it waits for the first time.
AT_ONCE = 16


class Turns:
    """Has operations begin a few at a time.

    Hundreds that begin at once would keep the event loop from all else meanwhile.
    """

    def __init__(self) -> None:
        self._begun = 0
        self._round = 0

    async def take(self) -> None:
        """Wait for one's turn; at once, unless many have begun in this round."""
        while self._begun >= AT_ONCE:
            mine = self._round
            await anyio.lowlevel.checkpoint()
            if mine == self._round:  # the first of those who wait begins another one
                self._round += 1
                self._begun = 0
        self._begun += 1
