"""A store in an SQLite file."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, TypeVar

from ..errors import InvalidError, StoreError
from ..validation import shown
from .base import Delete, Put, Record, Store
from .journal import Journal
from .patience import Attempt, GaveUp, PatientThread

T = TypeVar("T")

#: Seconds that the disk has for each thing that it is asked for.
TIMEOUT = 30.0


class SQLiteStore(Store):
    """Keeps records in an SQLite file, which one controller has open at a time.

    A transaction survives the death of the process, and a durable one survives power
    loss. The file is made, readable by its owner alone, if it is missing. A file of an
    earlier version of cnm is brought up to date.

    If something goes wrong, nothing is half done, and the store can be used again when
    the cause is gone. A file that is damaged is moved aside, with an error that says
    where it is.

    :param path: path of the file; others beside it begin with its name
    :param timeout: seconds that a reading, a transaction, opening and closing may take
        each; what takes longer fails, and is undone when the disk answers again
    :raises InvalidError: if the time-out is no positive number
    """

    persistent: ClassVar[bool] = True
    prompt: ClassVar[bool] = True
    writes: ClassVar[bool] = True

    def __init__(
        self, path: str | os.PathLike[str], *, timeout: float = TIMEOUT
    ) -> None:
        known = isinstance(timeout, int | float)
        if not known or not 0 < timeout <= threading.TIMEOUT_MAX:
            raise InvalidError(
                f"timeout: expected seconds, more than 0, not {shown(timeout)}"
            )
        self._path = Path(path)
        self._timeout = timeout
        self._journal = Journal(self._path)
        self._thread: PatientThread | None = None

    async def open(self) -> None:
        """Open the file.

        :raises StoreError: if it cannot be made or read, is damaged, is somebody
            else's, was written by a later version, or is open already
        """
        if self._thread is not None:
            raise StoreError(f"store {self._path} is already open")
        self._journal = Journal(self._path)
        self._thread = PatientThread("cnm-store", self._timeout)
        try:
            await self._run(lambda attempt: self._journal.open())
        except BaseException:
            with suppress(GaveUp):
                await self._end_thread()
            raise

    async def close(self) -> None:
        """Close the file.

        :raises StoreError: if the disk does not answer; the file is closed when it does
        """
        try:
            await self._end_thread()
        except GaveUp:
            raise StoreError(
                f"store {self._path}: the disk has not answered within"
                f" {self._timeout:g} seconds; the file is closed when it does"
            ) from None

    async def get(self, key: str) -> Record | None:
        """Return the record of a key, or None."""
        return await self._run(lambda attempt: self._journal.get(key))

    async def scan(self, prefix: str) -> tuple[Record, ...]:
        """Return all records whose keys start with a prefix, in the order of keys."""
        return await self._run(lambda attempt: self._journal.scan(prefix))

    async def transaction(self, *changes: Put | Delete) -> None:
        """Make all of the changes, or none of them."""
        await self._run(lambda attempt: self._journal.write(changes, attempt))

    def write(self, *changes: Put | Delete) -> None:
        """Make all of the changes, or none of them, while another thread waits."""
        with self._patiently() as thread:
            thread.wait(lambda attempt: self._journal.write(changes, attempt))

    async def _end_thread(self) -> None:
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await thread.end(self._journal.close)

    async def _run(self, work: Callable[[Attempt], T]) -> T:
        with self._patiently() as thread:
            return await thread.do(work)

    @contextmanager
    def _patiently(self) -> Iterator[PatientThread]:
        """Say so if the thread takes too long."""
        if self._thread is None:
            raise StoreError(f"store {self._path} is not open")
        try:
            yield self._thread
        except GaveUp:
            raise StoreError(
                f"store {self._path}: the disk has not answered within"
                f" {self._timeout:g} seconds; what was asked for is not done"
            ) from None
