"""Stores that fail when they are told to."""

from __future__ import annotations

from cnm import MemoryStore, StoreError
from cnm.store import Delete, Put
from cnm.testing.fakes import FakeDriver

__all__ = ["FailingStore", "FakeDriver", "LastingStore"]


class FailingStore(MemoryStore):
    """Refuses transactions while it is told to; or those only that are no intents."""

    def __init__(self) -> None:
        super().__init__()
        self.failing = False
        self.tolerates_intents = True
        self.transactions: list[tuple[Put | Delete, ...]] = []

    async def transaction(self, *changes: Put | Delete) -> None:
        key = changes[0].key
        if self.failing and not (self.tolerates_intents and key.startswith("intent/")):
            raise StoreError("disk full")
        await super().transaction(*changes)
        self.transactions.append(changes)


class LastingStore(FailingStore):
    """Says that it outlives the controller, so that there are intents in it."""

    persistent = True
