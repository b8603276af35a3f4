"""Waiting for what a thread does, whatever happens to the one who waits."""

from __future__ import annotations

import logging
import math
import signal
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TypeAlias, cast

import anyio

#: Calls a function in the thread of the event loop, from any thread.
Notify: TypeAlias = Callable[[Callable[[], object]], object]
_logger = logging.getLogger(__name__)


def loop_notifier() -> Notify:
    """Return what makes the running event loop call a function, from any thread."""
    if trio := sys.modules.get("trio"):
        try:
            return cast("Notify", trio.lowlevel.current_trio_token().run_sync_soon)
        except RuntimeError:
            _logger.debug("trio is imported, and does not run this task")
    loop = asyncio_module().get_running_loop()
    return cast("Notify", loop.call_soon_threadsafe)


def asyncio_module() -> ModuleType:
    """Import asyncio, which takes a while, and is used with asyncio only."""
    import asyncio

    return asyncio


def _interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def _interrupt_again() -> None:
    """Have Ctrl-C be seen at the next checkpoint; outside of trio, at once."""
    if trio := sys.modules.get("trio"):
        trio.lowlevel.enable_ki_protection(_interrupt)()
    else:
        _interrupt()


async def wait_regardless(done: anyio.Event, timeout: float = math.inf) -> bool:
    """Wait for an event; cancellation and Ctrl-C are put off until afterwards.

    :param timeout: seconds after which it is not waited for any longer
    :return: whether asyncio's own cancellation has been put off
    """
    put_off = interrupted = False
    with anyio.move_on_after(timeout, shield=True) as scope:
        while not done.is_set():
            try:
                await done.wait()
            except anyio.get_cancelled_exc_class():
                if scope.cancel_called:
                    raise  # its own: the time is over
                # Task.cancel(), asyncio.timeout() and Ctrl-C go through a shield
                put_off = True
            except KeyboardInterrupt:
                # trio hands Ctrl-C to its main task, which may be in a shield
                interrupted = True
    if interrupted:
        _interrupt_again()
    if put_off and (task := asyncio_module().current_task()):
        task.uncancel()
        task.cancel()
    return put_off
