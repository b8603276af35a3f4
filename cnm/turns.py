"""Operations at the same time, and fairness among them."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio
import anyio.lowlevel

from .errors import UnavailableError

T = TypeVar("T")

#: Operations that begin before the event loop has others run. Each keeps it for some
#: 100 us before it waits for the first time.
AT_ONCE = 8


async def gather(
    jobs: Iterable[Callable[[], Awaitable[T]]], patience: float = 0
) -> list[T]:
    """Do jobs at the same time; return what they return, in the order of the jobs.

    One that takes long, or fails, keeps none of the others from being done.

    :param patience: seconds that each of them has before the next begins
    :raises Exception: what a job has raised, when all have ended; several together
    """
    results: dict[int, T] = {}
    failures: list[Exception] = []

    async def do(
        position: int, job: Callable[[], Awaitable[T]], done: anyio.Event
    ) -> None:
        try:
            results[position] = await job()
        except Exception as exc:
            failures.append(exc)
        done.set()

    async with anyio.create_task_group() as tasks:
        for position, job in enumerate(jobs):
            tasks.start_soon(do, position, job, done := anyio.Event())
            if patience:
                with anyio.move_on_after(patience):
                    await done.wait()
    if len(failures) > 1:
        raise ExceptionGroup("done at the same time", failures)
    if failures:
        raise failures[0]
    return [results[position] for position in sorted(results)]


class Turns:
    """Has operations begin a few at a time, in order.

    Hundreds that begin at once would keep the event loop from all else meanwhile.
    """

    def __init__(self) -> None:
        self._begun = 0
        self._waiting: deque[anyio.Event] = deque()
        self._made = 0
        self._last: anyio.Event | None = None

    @contextmanager
    def making(self) -> Iterator[None]:
        """Return a block in which something is made; :meth:`end` waits for it.

        :raises UnavailableError: after :meth:`end` has been called
        """
        if self._last is not None:
            raise UnavailableError("the controller has stopped")
        self._made += 1
        try:
            yield
        finally:
            self._made -= 1
            if self._last is not None and not self._made:
                self._last.set()

    async def end(self) -> None:
        """Have nothing be made any more; return when all is made that is under way."""
        self._last = anyio.Event()
        if self._made:
            await self._last.wait()

    async def take(self) -> None:
        """Wait for one's turn; at once, unless many have begun in this round."""
        if self._begun < AT_ONCE and not self._waiting:
            self._begun += 1
            return
        turn = anyio.Event()
        self._waiting.append(turn)
        try:
            if not self._is_first(turn):
                await turn.wait()
            if self._is_first(turn):
                await anyio.lowlevel.checkpoint()  # the others go on
                self._begin_round()
        except BaseException:
            self._leave(turn)
            raise

    def _is_first(self, turn: anyio.Event) -> bool:
        return bool(self._waiting) and self._waiting[0] is turn

    def _begin_round(self) -> None:
        self._begun = min(AT_ONCE, len(self._waiting))
        for _ in range(self._begun):
            self._waiting.popleft().set()
        self._wake_first()

    def _leave(self, turn: anyio.Event) -> None:
        if turn in self._waiting:
            self._waiting.remove(turn)
            self._wake_first()

    def _wake_first(self) -> None:
        """Have the first of those who wait begin the next round."""
        if self._waiting:
            self._waiting[0].set()
