"""A thread for work that may hang, with somebody who does not wait for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from ..workers import Overdue, Workers

T = TypeVar("T")


class GaveUp(Exception):
    """The work has not been done in time."""


class Attempt:
    """Work that either is done in time, or has been given up; it is never both.

    :ivar ended: whether the worker has done with it
    """

    def __init__(self) -> None:
        self.ended: bool = False
        self._decided = threading.Lock()

    def decide(self) -> bool:
        """Decide for one of both.

        The worker calls it when the work is done, and undoes the work if it is told
        so; who waits calls it when the time is over.

        :return: whether the other one has not decided before
        """
        return self._decided.acquire(blocking=False)

    def make(self, work: Callable[[Attempt], T]) -> T:
        """Do the work, unless it has been given up before it began."""
        try:
            if self._decided.locked():
                raise GaveUp
            return work(self)
        finally:
            self.ended = True


class PatientThread:
    """Does one job at a time, each of which has to be done within some seconds.

    :param name: name of the thread
    :param seconds: how long a job is waited for
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._seconds = seconds
        self._late: Attempt | None = None
        self._workers = Workers(name, 1, lambda: None, lambda context: None)

    async def do(self, work: Callable[[Attempt], T]) -> T:
        """Have something done, and return what it returns.

        :raises GaveUp: if it takes too long, or if something that took too long has
            not come to an end yet
        """
        attempt = self._attempt()
        try:
            return await self._workers.run(
                lambda context: attempt.make(work), self._seconds, attempt.decide
            )
        except Overdue:
            self._late = attempt
            raise GaveUp from None

    def wait(self, work: Callable[[Attempt], T]) -> T:
        """Do as :meth:`do` does, for another thread. Blocks."""
        attempt = self._attempt()
        try:
            return self._workers.call(
                lambda context: attempt.make(work), self._seconds, attempt.decide
            )
        except Overdue:
            self._late = attempt
            raise GaveUp from None

    def _attempt(self) -> Attempt:
        if self._late is not None and not self._late.ended:
            raise GaveUp
        return Attempt()

    async def end(self, work: Callable[[], object]) -> None:
        """Have something done after all that has been begun, and end the thread.

        :raises GaveUp: if it takes too long; it will be done nevertheless
        """
        try:
            await self._workers.run(
                lambda context: work(), self._seconds, Attempt().decide
            )
        except Overdue:
            self._workers.end()
            raise GaveUp from None
        await self._workers.close()
