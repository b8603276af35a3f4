"""Whether something of a controller's may be damaged."""

from __future__ import annotations

import anyio


class Suspicion:
    """A suspicion of damage, which somebody looks into sooner or later."""

    def __init__(self) -> None:
        self._suspected = anyio.Event()

    def suspect(self) -> None:
        """Have everything be looked at."""
        self._suspected.set()

    async def wait(self) -> None:
        """Return when there is a suspicion."""
        await self._suspected.wait()

    def clear(self) -> None:
        """Begin to look: what is suspected from now on is another suspicion."""
        self._suspected = anyio.Event()
