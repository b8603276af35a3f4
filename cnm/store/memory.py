"""A store in memory."""

from __future__ import annotations

from typing import ClassVar

import anyio.lowlevel

from ..errors import StoreConflict
from .base import Delete, Put, Record, Store


class MemoryStore(Store):
    """Keeps records for as long as the object lives.

    It makes a controller ephemeral: what such a controller has made is removed when
    it stops.
    """

    persistent: ClassVar[bool] = False
    prompt: ClassVar[bool] = True

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}

    async def open(self) -> None:
        """Do nothing: the store is always ready."""
        await anyio.lowlevel.checkpoint()

    async def close(self) -> None:
        """Do nothing: the records stay."""
        await anyio.lowlevel.checkpoint()

    async def get(self, key: str) -> Record | None:
        """Return the record of a key, or None."""
        await anyio.lowlevel.checkpoint()
        return self._records.get(key)

    async def scan(self, prefix: str) -> tuple[Record, ...]:
        """Return all records whose keys start with a prefix, in the order of keys."""
        await anyio.lowlevel.checkpoint()
        keys = sorted(key for key in self._records if key.startswith(prefix))
        return tuple(self._records[key] for key in keys)

    async def transaction(self, *changes: Put | Delete) -> None:
        """Make all of the changes, or none of them."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        for change in changes:
            if change.version is None:
                continue
            found = self._version(change.key)
            if found != change.version:
                raise StoreConflict(
                    f"{change.key} has version {found}, not {change.version}"
                )
        for change in changes:
            if isinstance(change, Put):
                version = self._version(change.key) + 1
                self._records[change.key] = Record(change.key, change.value, version)
            else:
                self._records.pop(change.key, None)

    def _version(self, key: str) -> int:
        record = self._records.get(key)
        return record.version if record else 0
