"""The life of a sandbox, made one way or another, over and over."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Protocol

import anyio

from .figures import Figures
from .meters import processor

#: Ports of the host that are published.
FIRST_PORT = 20_000
COUNT = 60
JOIN = "sandbox + join"
PUBLISH = "sandbox + join + port"


class Life(Protocol):
    """A sandbox with an interface in a network, and a published port perhaps."""

    def begin(self) -> None:
        """Make all of it; what can be prepared has been prepared."""

    def end(self) -> None:
        """Remove all of it."""


def repeat(
    figures: Figures, count: int, what: str, prepare: Callable[[int], Life]
) -> None:
    """Make sandboxes and remove them, one after the other.

    :param what: what beginning is called
    :param prepare: makes the life of a number
    """
    lives = [prepare(number) for number in range(count)]
    with processor(figures, f"{what}, and its end", count):
        for life in lives:
            with figures.timing(what):
                life.begin()
            with figures.timing(f"end of {what}"):
                life.end()


def measure(figures: Figures, count: int, prepare: Callable[[int, int], Life]) -> None:
    """Measure sandboxes without and with a published port.

    :param prepare: makes the life of a number, with a port of the host, or 0
    """
    first = prepare(0, FIRST_PORT)
    with figures.timing(f"{PUBLISH}, the first of a process"):
        first.begin()
    first.end()
    repeat(figures, count, JOIN, lambda number: prepare(number, 0))
    repeat(figures, count, PUBLISH, lambda number: prepare(number, FIRST_PORT + number))


async def together(
    job: Callable[[int], Coroutine[object, object, object]], count: int
) -> None:
    """Do something many times at once."""
    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(job, number)
