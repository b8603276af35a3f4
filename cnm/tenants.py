"""Sandboxes in the host's own network namespace, which has one path for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

import anyio

from .types import SandboxInfo


class Tenants:
    """Keeps account of them; the path is there as long as there is one.

    :param key: the path
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._ids: set[str] = set()
        self._lock = anyio.Lock(fast_acquire=True)

    def add(self, sandbox: SandboxInfo) -> None:
        """Take a sandbox up that has been there before."""
        if sandbox.key == self._key:
            self._ids.add(sandbox.id)

    def coming(self, sandbox: SandboxInfo) -> AbstractAsyncContextManager[None]:
        """Return the block in which a sandbox is made, and no other comes or goes."""
        return self._coming(sandbox) if sandbox.key == self._key else nullcontext()

    def going(self, sandbox: SandboxInfo) -> AbstractAsyncContextManager[str]:
        """Return the block in which a sandbox is removed, and no other comes or goes.

        :return: with the path that goes with it, ``""`` if others have it
        """
        if sandbox.key != self._key:
            return nullcontext(sandbox.key)
        return self._going(sandbox)

    @asynccontextmanager
    async def _coming(self, sandbox: SandboxInfo) -> AsyncIterator[None]:
        async with self._lock:
            yield
            self._ids.add(sandbox.id)

    @asynccontextmanager
    async def _going(self, sandbox: SandboxInfo) -> AsyncIterator[str]:
        async with self._lock:
            self._ids.discard(sandbox.id)
            yield "" if self._ids else sandbox.key
