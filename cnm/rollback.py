"""Undoing the completed steps of an operation that fails."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import ParamSpec, Self

import anyio

P = ParamSpec("P")
_logger = logging.getLogger(__name__)


class Rollback:
    """Run the pushed undo steps, last first, if the block raises or is cancelled.

    Undo steps run shielded from cancellation, each with a deadline. One that fails is
    logged and noted on the exception that is on its way; the others run all the same.

    :param timeout: seconds that each undo step may take
    :ivar failed: whether an undo step has failed
    """

    def __init__(self, *, timeout: float = 30) -> None:
        self._timeout = timeout
        self.failed: bool = False
        self._steps: list[partial[Awaitable[object]]] = []

    def push(
        self, undo: Callable[P, Awaitable[object]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Add an undo step.

        It is synchronous, so that no cancellation falls between a step and its undo.
        """
        self._steps.append(partial(undo, *args, **kwargs))

    def push_sync(
        self, undo: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Add an undo step that does not wait."""
        self.push(_at_once, partial(undo, *args, **kwargs))

    def absorb(self, other: Rollback) -> None:
        """Take over the undo steps of another one, which comes before its own."""
        self._steps = [*other._steps, *self._steps]
        other._steps = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if exc is None:
            return
        while self._steps:
            undo = self._steps.pop()
            with anyio.move_on_after(self._timeout, shield=True) as scope:
                try:
                    await undo()
                except Exception as error:
                    self.failed = True
                    name = _name(undo)
                    _logger.exception("undo step %s failed", name)
                    exc.add_note(f"while rolling back, {name} failed: {error!r}")
            if scope.cancelled_caught:
                self.failed = True
                name = _name(undo)
                _logger.error("undo step %s timed out", name)
                exc.add_note(f"while rolling back, {name} timed out")


async def _at_once(undo: Callable[[], object]) -> None:
    undo()


def _name(undo: Callable[..., object]) -> str:
    """Return what a step is called, for those who look for its fault."""
    while isinstance(undo, partial):
        undo = undo.args[0] if undo.func is _at_once else undo.func
    return getattr(undo, "__qualname__", repr(undo))
