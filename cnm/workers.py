"""Threads for work that blocks.

Work that has begun is waited for, whatever happens to the one who waits, so that its
result is never lost: what has been done can be kept, or undone. Only what takes longer
than it was given is abandoned, and its thread with it.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Generic, TypeVar, cast
from weakref import WeakSet

import anyio
import anyio.lowlevel
import anyio.to_thread

from .errors import UnavailableError
from .waiting import asyncio_module, loop_notifier, wait_regardless

if TYPE_CHECKING:
    import asyncio

C = TypeVar("C")
T = TypeVar("T")
_logger = logging.getLogger(__name__)

#: Seconds after which others do not wait for work any more that may be given up: while
#: it goes on, another thread stands in for the one that does it.
STALL = 1.0
#: Threads that may be stood in for.
_MOST_STALLED = 32


def refuse_coroutine(result: object) -> None:
    """Check what work has returned.

    :raises TypeError: if it was an async function, which has not been run at all
    """
    if isinstance(result, CoroutineType):
        result.close()
        name = result.__qualname__
        raise TypeError(f"{name} is async def: expected a plan, which blocks")


class Overdue(TimeoutError):
    """Work that has taken longer than it may."""


#: What the thread does that asks: ``unhurried`` of its job, or nothing.
_current = threading.local()


def unhurried(*, to_the_end: bool = False) -> AbstractContextManager[None]:
    """Return a block in which the thread's job is not given up.

    Its time does not count as the job's.

    :param to_the_end: whether the job is not given up after a block that succeeds
    :raises Overdue: when it is entered, if the job has been given up already
    """
    block: Callable[[bool], AbstractContextManager[None]] | None
    block = getattr(_current, "unhurried", None)
    return nullcontext() if block is None else block(to_the_end)


class _Job(Generic[C, T]):
    """Something that a thread does.

    :param tell: is called when it is done, in the thread that has done it
    """

    def __init__(self, work: Callable[[C], T], tell: Callable[[], object]) -> None:
        self._work = work
        self.tell = tell
        self.began = math.inf
        self.thread: threading.Thread | None = None
        self.finished = False
        self.abandoned = False
        self.stalled = False
        self._result: T
        self._error: BaseException | None = None

    def do(self, context: C) -> None:
        self.thread = threading.current_thread()
        self.began = time.monotonic()
        try:
            self._result = self._work(context)
        except BaseException as exc:
            self._error = exc

    def fail(self, error: BaseException) -> None:
        self._error = error

    def result(self) -> T:
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self._error  # breaks the cycle error -> traceback -> job -> error
        return self._result


def _left(since: float, timeout: float) -> float:
    """Return how many seconds are left of a time-out."""
    return min(since + timeout - time.monotonic(), timeout)


class Workers(Generic[C]):
    """Threads that do jobs, each thread with a context of its own.

    The threads are started when they are needed.

    :param name: name of the threads
    :param limit: how many jobs may be done at a time
    :param make: makes a thread's context, in the thread
    :param close: closes a thread's context, in the thread
    :param usable: tells whether a context can be used for another job; if not, the
        thread ends, and another one takes its place
    """

    def __init__(
        self,
        name: str,
        limit: int,
        make: Callable[[], C],
        close: Callable[[C], object],
        usable: Callable[[C], bool] = lambda context: True,
    ) -> None:
        self._name = name
        self._limit = limit
        self._make = make
        self._close_context = close
        self._usable = usable
        self._threads: set[threading.Thread] = set()
        self._put_off: WeakSet[asyncio.Task[object]] = WeakSet()
        self._load = 0  # jobs that are not done
        self._stalled = 0  # those among them whose threads are stood in for
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job[C, object] | None] = queue.SimpleQueue()
        self._stopped: anyio.Event | None = None
        self._notify = loop_notifier()

    async def run(
        self,
        work: Callable[[C], T],
        timeout: float = math.inf,
        give_up: Callable[[], bool] | None = None,
    ) -> T:
        """Have a thread do something, and return what it returns.

        Cancellation is seen before the work begins, and never afterwards: work that has
        begun is done to its end, and its result is returned.

        :param timeout: seconds that the work may take once it has begun; after that
            another thread takes the place of the one that does it. One stands in for it
            before, so that others need not wait so long
        :param give_up: is asked when the time is over, counted from now on, whether
            nobody waits for the work any more. Its thread keeps its place then, and
            goes on when it can
        :raises Overdue: if it takes longer; what comes of it is not known
        :raises UnavailableError: if the threads have been told to end
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        await self._see_put_off()
        done = anyio.Event()
        job = _Job(work, partial(self._notify, done.set))
        asked = self._submit(job)
        can_stall = give_up is None and timeout < math.inf
        pause = STALL if can_stall else math.inf
        put_off = await wait_regardless(done, min(timeout, pause))
        while not done.is_set():
            # it may have had to wait for its turn
            left = _left(job.began if give_up is None else asked, timeout)
            if left <= 0 and self._abandon(job, give_up):
                break
            if can_stall:
                self._stand_in(job)
            put_off |= await wait_regardless(done, min(max(left, 0), pause))
        if put_off and (task := asyncio_module().current_task()):
            self._put_off.add(task)
        if not done.is_set():
            raise Overdue(f"it has not ended within {timeout:g} s")
        return job.result()

    def call(
        self, work: Callable[[C], T], timeout: float, give_up: Callable[[], bool]
    ) -> T:
        """Do as :meth:`run` does, for a thread that is none of these. Blocks."""
        done = threading.Event()
        job = _Job(work, done.set)
        asked = self._submit(job)
        while not done.wait(max(_left(asked, timeout), 0)):
            if self._abandon(job, give_up):
                raise Overdue(f"it has not ended within {timeout:g} s")
        return job.result()

    def _submit(self, job: _Job[C, T]) -> float:
        """Have a thread do something; return what time it is."""
        if self._stopped is not None:
            raise UnavailableError("the controller has stopped")
        with self._lock:
            self._load += 1
        self._start_thread()
        asked = time.monotonic()
        self._jobs.put(cast("_Job[C, object]", job))
        return asked

    async def _see_put_off(self) -> None:
        """Let asyncio's own cancellation be seen that was put off during a job.

        Anyio's checkpoint does not see it, and the next job would put it off again.
        """
        if not self._put_off:
            return
        task = asyncio_module().current_task()
        if task is not None and task in self._put_off:
            self._put_off.discard(task)
            await asyncio_module().sleep(0)

    def end(self) -> None:
        """Have the threads end when all jobs are done; nobody waits for that."""
        for _ in range(len(self._threads)):
            self._jobs.put(None)

    async def close(self) -> None:
        """End the threads, when all jobs are done."""
        with self._lock:
            threads = list(self._threads)
            self._stopped = anyio.Event()
        self.end()
        if threads:
            await wait_regardless(self._stopped)
        with anyio.CancelScope(shield=True):
            for thread in threads:
                # its context is closed: it is returning
                await anyio.to_thread.run_sync(thread.join)

    def _start_thread(self) -> None:
        with self._lock:
            needed = min(self._load - self._stalled, self._limit)
            if len(self._threads) - self._stalled >= needed:
                return
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._threads.add(thread)
        thread.start()

    def _stand_in(self, job: _Job[C, T]) -> None:
        """Have another thread stand in for one that has been at a job for long."""
        with self._lock:
            if job.stalled or job.finished or self._stalled >= _MOST_STALLED:
                return
            if time.monotonic() - job.began < STALL:
                return
            job.stalled = True
            self._stalled += 1
        self._start_thread()

    def _abandon(self, job: _Job[C, T], give_up: Callable[[], bool] | None) -> bool:
        """Do without a job, and without the thread that does it, unless it is done."""
        with self._lock:
            if give_up is not None:
                job.abandoned = not job.finished and give_up()
                return job.abandoned
            if job.thread not in self._threads or job.finished:
                return False
            if job.began == math.inf:  # it is not to be hurried
                return False
            self._threads.discard(job.thread)
            self._load -= 1
            self._stalled -= job.stalled
            stopped, last = self._stopped, not self._threads
        _logger.critical("a thread of %s does not return: it is replaced", self._name)
        if stopped is None:
            self._start_thread()
        elif last:
            stopped.set()
        return True

    @contextmanager
    def _unhurried(self, job: _Job[C, object], to_the_end: bool) -> Iterator[None]:
        with self._lock:
            if job.thread not in self._threads:
                raise Overdue("it has been given up")
            began, job.began = job.began, math.inf
        entered = time.monotonic()
        try:
            yield
        except BaseException:
            to_the_end = False
            raise
        finally:
            if not to_the_end:
                job.began = began + time.monotonic() - entered

    def _done(self, job: _Job[C, object]) -> bool:
        """Hand back a job; return whether its thread still has its place."""
        with self._lock:
            if job.thread and job.thread not in self._threads:
                return False
            job.finished = True
            self._load -= 1
            self._stalled -= job.stalled
            keeps = len(self._threads) - self._stalled <= self._limit
            if not keeps:
                self._threads.discard(threading.current_thread())
            awaited = not job.abandoned
        if awaited:
            job.tell()
        return keeps

    def _serve(self) -> None:
        replace = True
        try:
            replace = self._work()
        finally:
            with self._lock:
                mine = threading.current_thread() in self._threads
                self._threads.discard(threading.current_thread())
                stopped = self._stopped if mine and not self._threads else None
            if stopped is not None:
                self._notify(stopped.set)
            elif replace:
                self._start_thread()

    def _leaves_others(self) -> bool:
        """Give up the thread's place, if there are others to do all jobs."""
        with self._lock:
            if len(self._threads) - self._stalled < 2:
                return False
            self._threads.discard(threading.current_thread())
            return True

    def _work(self) -> bool:
        """Work until told to end; return whether another thread has to take over."""
        try:
            context = self._make()
        except BaseException as exc:
            if self._leaves_others():
                _logger.warning("there is no further thread of %s: %s", self._name, exc)
            elif job := self._jobs.get():
                job.fail(exc)
                self._done(job)
            return False
        try:
            while self._usable(context):
                job = self._jobs.get()
                if job is None:
                    return False
                _current.unhurried = partial(self._unhurried, job)
                job.do(context)
                _current.unhurried = None  # nor is it kept until the next one
                if not self._done(job):
                    return False  # another one has its place
                del job
            _logger.critical("a thread of %s is lost", self._name)
            return True
        finally:
            self._close_context(context)
