"""Undoing the completed steps of an operation that fails."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
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
        self._steps: list[tuple[str, Callable[[], Awaitable[object]]]] = []

    def push(
        self, undo: Callable[P, Awaitable[object]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Add an undo step.

        It is synchronous, so that no cancellation falls between a step and its undo.
        """
        name = getattr(undo, "__qualname__", repr(undo))
        self._steps.append((name, lambda: undo(*args, **kwargs)))

    def push_sync(
        self, undo: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Add an undo step that does not wait."""

        async def step() -> None:
            undo(*args, **kwargs)

        step.__qualname__ = getattr(undo, "__qualname__", repr(undo))
        self.push(step)

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
            name, undo = self._steps.pop()
            with anyio.move_on_after(self._timeout, shield=True) as scope:
                try:
                    await undo()
                except Exception as error:
                    self.failed = True
                    _logger.exception("undo step %s failed", name)
                    exc.add_note(f"while rolling back, {name} failed: {error!r}")
            if scope.cancelled_caught:
                self.failed = True
                _logger.error("undo step %s timed out", name)
                exc.add_note(f"while rolling back, {name} timed out")
