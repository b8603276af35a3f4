"""A thread for work that may hang, with somebody who does not wait for ever."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class GaveUp(Exception):
    """The work has not been done in time."""


class Attempt:
    """Work that either is done in time, or has been given up; it is never both."""

    def __init__(self) -> None:
        self._decided = threading.Lock()

    def decide(self) -> bool:
        """Decide for one of both.

        The worker calls it when the work is done, and undoes the work if it is told
        so; who waits calls it when the time is over.

        :return: whether the other one has not decided before
        """
        return self._decided.acquire(blocking=False)


class _Job(Generic[T]):
    def __init__(self, work: Callable[[Attempt], T]) -> None:
        self.attempt = Attempt()
        self._busy = threading.Lock()  # cheaper than an event
        self._busy.acquire()
        self._work = work
        self._result: T
        self._error: BaseException | None = None

    def do(self) -> None:
        try:
            self._result = self._work(self.attempt)
        except BaseException as exc:
            self._error = exc
        self._busy.release()

    @property
    def done(self) -> bool:
        return not self._busy.locked()

    def wait(self, seconds: float) -> bool:
        """Tell whether it is done within some seconds; not to be called again then."""
        return self._busy.acquire(timeout=seconds)

    def result(self) -> T:
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self._error  # breaks the cycle error -> traceback -> job -> error
        return self._result


class PatientThread:
    """Does one job at a time, each of which has to be done within some seconds.

    Its methods block; another thread calls them.

    :param name: name of the thread
    :param seconds: how long a job is waited for
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._seconds = seconds
        self._jobs: queue.SimpleQueue[_Job[object] | None] = queue.SimpleQueue()
        self._late: _Job[object] | None = None
        # a daemon: what hangs must not keep the process from ending
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def do(self, work: Callable[[Attempt], T]) -> T:
        """Have something done, and return what it returns.

        :raises GaveUp: if it takes too long, or if something that took too long has
            not come to an end yet
        """
        if self._late is not None and not self._late.done:
            raise GaveUp
        return self._wait(self._put(work))

    def end(self, work: Callable[[], T]) -> T:
        """Have something done after all that has been begun, and end the thread.

        :raises GaveUp: if it takes too long; it will be done nevertheless
        """
        job = self._put(lambda attempt: work())
        self._jobs.put(None)
        return self._wait(job)

    def _put(self, work: Callable[[Attempt], T]) -> _Job[T]:
        job = _Job(work)
        self._jobs.put(cast("_Job[object]", job))
        return job

    def _wait(self, job: _Job[T]) -> T:
        if not job.wait(self._seconds):
            if job.attempt.decide():
                self._late = cast("_Job[object]", job)
                raise GaveUp
            # it is about to return
            job.wait(-1)
        return job.result()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.do()
            del job
