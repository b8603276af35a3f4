"""Threads for work that blocks.

Work that has begun is waited for, whatever happens to the one who waits, so that its
result is never lost: what has been done can be kept, or undone.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar, cast
from weakref import WeakSet

import anyio
import anyio.lowlevel
import anyio.to_thread

from .errors import UnavailableError

C = TypeVar("C")
T = TypeVar("T")
_Notify: TypeAlias = Callable[[Callable[[], object]], object]
_logger = logging.getLogger(__name__)


class _Job(Generic[C, T]):
    def __init__(self, work: Callable[[C], T]) -> None:
        self._work = work
        self.done = anyio.Event()
        self._result: T
        self._error: BaseException | None = None

    def do(self, context: C) -> None:
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


def _loop_notifier() -> _Notify:
    """Return what makes the running event loop call a function, from any thread."""
    if trio := sys.modules.get("trio"):
        try:
            return cast("_Notify", trio.lowlevel.current_trio_token().run_sync_soon)
        except RuntimeError:
            _logger.debug("trio is imported, and does not run this task")
    return asyncio.get_running_loop().call_soon_threadsafe


async def _wait_regardless(done: anyio.Event) -> bool:
    """Wait for an event; cancellation is put off until afterwards.

    :return: whether asyncio's own cancellation has been put off
    """
    put_off = False
    with anyio.CancelScope(shield=True):
        while not done.is_set():
            try:
                await done.wait()
            except asyncio.CancelledError:
                # Task.cancel(), asyncio.timeout() and Ctrl-C go through a shield
                put_off = True
    if put_off and (task := asyncio.current_task()):
        task.uncancel()
        task.cancel()
    return put_off


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
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job[C, object] | None] = queue.SimpleQueue()
        self._stopped: anyio.Event | None = None
        self._notify = _loop_notifier()

    async def run(self, work: Callable[[C], T]) -> T:
        """Have a thread do something, and return what it returns.

        Cancellation is seen before the work begins, and never afterwards: work that has
        begun is done to its end, and its result is returned.

        :raises UnavailableError: if the threads have been told to end
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        await self._see_put_off()
        if self._stopped is not None:
            raise UnavailableError("the controller has stopped")
        job = _Job(work)
        with self._lock:
            self._load += 1
        self._start_thread()
        self._jobs.put(cast("_Job[C, object]", job))
        if (await _wait_regardless(job.done)) and (task := asyncio.current_task()):
            self._put_off.add(task)
        return job.result()

    async def _see_put_off(self) -> None:
        """Let asyncio's own cancellation be seen that was put off during a job.

        Anyio's checkpoint does not see it, and the next job would put it off again.
        """
        if not self._put_off:
            return
        task = asyncio.current_task()
        if task is not None and task in self._put_off:
            self._put_off.discard(task)
            await asyncio.sleep(0)

    async def close(self) -> None:
        """End the threads, when all jobs are done."""
        with self._lock:
            threads = list(self._threads)
            self._stopped = anyio.Event()
        for _ in threads:
            self._jobs.put(None)
        if threads:
            await _wait_regardless(self._stopped)
        with anyio.CancelScope(shield=True):
            for thread in threads:
                # its context is closed: it is returning
                await anyio.to_thread.run_sync(thread.join)

    def _start_thread(self) -> None:
        with self._lock:
            if len(self._threads) >= min(self._load, self._limit):
                return
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._threads.add(thread)
        thread.start()

    def _done(self, job: _Job[C, object]) -> None:
        with self._lock:
            self._load -= 1
        self._notify(job.done.set)

    def _serve(self) -> None:
        replace = True
        try:
            replace = self._work()
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())
                stopped = self._stopped if not self._threads else None
            if stopped is not None:
                self._notify(stopped.set)
            elif replace:
                self._start_thread()

    def _work(self) -> bool:
        """Work until told to end; return whether another thread has to take over."""
        try:
            context = self._make()
        except BaseException as exc:
            if job := self._jobs.get():
                job.fail(exc)
                self._done(job)
            return False
        try:
            while self._usable(context):
                job = self._jobs.get()
                if job is None:
                    return False
                job.do(context)
                self._done(job)
                del job
            _logger.critical("a thread of %s is lost", self._name)
            return True
        finally:
            self._close_context(context)
