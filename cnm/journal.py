"""What a controller writes into its store.

An operation that changes the kernel records its intent first, and its outcome last. The
next start undoes what was being made, and completes what was being removed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal, Self, TypeAlias

import anyio

from .errors import StoreError
from .rollback import Rollback
from .store import Delete, Put, Store
from .types import JSON
from .workers import unhurried

INTENT = "intent/"
#: Seconds that a store may keep an operation waiting; SQLiteStore has its own limit.
STORE_TIMEOUT = 60.0

#: What may be under way with an object.
Deed: TypeAlias = Literal[
    "network.create",
    "network.delete",
    "sandbox.create",
    "sandbox.delete",
    "endpoint.create",
    "endpoint.connect",
    "endpoint.delete",
    "endpoint.join",
    "endpoint.leave",
    "ports.change",
]
_logger = logging.getLogger(__name__)


class Journal:
    """Writes records and intents.

    :param store: where they go
    :param timeout: seconds that it may keep one waiting
    :ivar lasts: whether another process will read it
    """

    def __init__(self, store: Store, timeout: float = STORE_TIMEOUT) -> None:
        self.lasts: bool = store.persistent
        self._store = store
        self._timeout = timeout
        self._due: dict[str, Put | Delete] = {}
        self._catching_up = anyio.Lock()

    async def write(self, *changes: Put | Delete) -> None:
        """Make all of the changes, or none of them.

        :raises StoreError: if they cannot be written
        """
        if not self._due:
            await self._transaction(changes)
            return
        async with self._catching_up:  # what is due is older than what others write
            await self._write_due(changes)

    async def _write_due(self, changes: Sequence[Put | Delete]) -> None:
        changed = {change.key for change in changes}
        due = [it for key, it in self._due.items() if key not in changed]
        await self._transaction((*due, *changes))
        for key in (*(it.key for it in due), *changed):
            self._due.pop(key, None)

    @property
    def in_plans(self) -> bool:
        """Whether plans may write: :meth:`note` can be called."""
        return self._store.writes and not self._due

    def note(self, *changes: Put | Delete) -> None:
        """Make all of the changes, or none of them, from within a plan. Blocks.

        :raises StoreError: if they cannot be written
        """
        self._store.write(*changes)

    async def _transaction(self, changes: Sequence[Put | Delete]) -> None:
        if self._store.prompt:
            await self._store.transaction(*changes)
            return
        try:
            # stores do not let themselves be interrupted once they have begun
            with anyio.fail_after(self._timeout):
                await self._store.transaction(*changes)
        except TimeoutError as exc:
            raise StoreError(
                f"{type(self._store).__name__} has not answered within "
                f"{self._timeout:g} s"
            ) from exc

    async def write_or_postpone(self, *changes: Put | Delete) -> None:
        """Write the outcome of what cannot be undone any more.

        If that fails, it is written with the next change, before which nothing else is.
        Until then an intent says the same to the next start.
        """
        try:
            await self.write(*changes)
        except StoreError as exc:
            _logger.error("recorded later: %s: %s", [it.key for it in changes], exc)
            self._due.update((change.key, change) for change in changes)

    async def has_ended(self, key: str) -> bool:
        """Tell whether an intent is gone from a store that persists.

        It is said to be gone if nobody can tell: the next start will see.
        """
        if not self.lasts:
            return False
        try:
            return await self._store.get(key) is None
        except StoreError as exc:
            _logger.error("the next start sees what has become of %s: %s", key, exc)
            return True

    def operation(
        self,
        deed: Deed,
        identity: str,
        value: Mapping[str, JSON] | None = None,
        *,
        planned: bool = False,
    ) -> Operation:
        """Return an operation that is to be recorded.

        :param identity: id of the object
        :param value: what is needed to undo or to complete it
        :param planned: whether nothing is changed before :meth:`Operation.begin_now`
        """
        return Operation(self, deed, identity, value or {}, planned=planned)


class Operation(Rollback):
    """An operation that is recorded from its first step to its outcome.

    Its intent is written when the block is entered, or in the plan that is its first
    step, if there is to be a next start. If the block raises, the pushed undo steps
    run, and the intent is withdrawn; it stays, for the next start, if one of them
    fails. What has been recorded is not undone any more.

    :ivar committed: whether a plan has recorded the outcome
    """

    def __init__(
        self,
        journal: Journal,
        deed: Deed,
        identity: str,
        value: Mapping[str, JSON],
        *,
        planned: bool = False,
    ) -> None:
        super().__init__()
        self._journal = journal
        self._key = f"{INTENT}{identity}/{deed}"
        self._value = {"deed": deed, "object": identity, **value}
        #: whether an intent is still to be written
        self._due = journal.lasts
        self._planned = planned and journal.in_plans
        self.committed: bool = False
        self._committing = False

    async def __aenter__(self) -> Self:
        if not self._planned:
            await self.begin()
        return await super().__aenter__()

    async def begin(self) -> None:
        """Write the intent, unless that has been done: something is to be changed."""
        if self._due:
            await self._journal.write(self._intent)
            self._due = False

    def begin_now(self) -> None:
        """Do as :meth:`begin` does, in a plan of a planned operation. Blocks."""
        if self._due:
            with unhurried():
                self._journal.note(self._intent)
            self._due = False

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if await self._stands(exc):
            return
        await super().__aexit__(exc_type, exc, tb)
        written = self._journal.lasts and not self._due
        if exc is not None and not self.failed and written:
            with anyio.CancelScope(shield=True):
                await self._journal.write_or_postpone(Delete(self._key))

    async def _stands(self, exc: BaseException | None) -> bool:
        """Tell whether the outcome is recorded, though the block has raised.

        Ctrl-C may come after the commit.
        """
        stands = self.committed
        if self._committing and not stands and exc and not isinstance(exc, Exception):
            with anyio.CancelScope(shield=True):
                stands = await self._journal.has_ended(self._key)
        return stands

    async def commit(self, *changes: Put | Delete) -> None:
        """Record the outcome, unless a plan has; nothing that may fail comes after it.

        :raises StoreError: if that is not possible
        """
        self._committing = True
        if not self.committed:
            await self._journal.write(*changes, *self._withdrawal)

    def commit_now(self, *changes: Put | Delete) -> None:
        """Do as :meth:`commit` does, as the last step of a plan, if plans may write.

        It blocks. To be committed nevertheless when the plan has returned.
        """
        if self._journal.in_plans:
            self._committing = True
            with unhurried(to_the_end=True):
                self._journal.note(*changes, *self._withdrawal)
            self.committed = True

    async def finish(self, *changes: Put | Delete) -> None:
        """Record the outcome of a removal, which stands even if the store fails."""
        await self._journal.write_or_postpone(*changes, *self._withdrawal)

    @property
    def _intent(self) -> Put:
        return Put(self._key, self._value)

    @property
    def _withdrawal(self) -> tuple[Delete, ...]:
        return (Delete(self._key),) if self._journal.lasts else ()
