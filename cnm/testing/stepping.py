"""Doing something at a chosen await of an operation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any


class Stepped:
    """Drives an awaitable, and does something when it is suspended for the n-th time.

    :param work: what is awaited
    :param at: at which suspension, from 1 on; 0 for none
    :param then: what is done there, before anybody else runs
    :ivar number: how many times it has been suspended
    """

    def __init__(
        self,
        work: Awaitable[Any],
        at: int = 0,
        then: Callable[[], object] = lambda: None,
    ) -> None:
        self.number: int = 0
        self._work = work
        self._at = at
        self._then = then

    def __await__(self) -> Generator[Any, Any, Any]:
        work = self._work.__await__()
        step = _sending(work, None)
        while True:
            try:
                yielded = step()
            except StopIteration as stop:
                return stop.value
            self.number += 1
            if self.number == self._at:
                self._then()
            try:
                sent = yield yielded
            except BaseException as exc:
                step = _throwing(work, exc)
            else:
                step = _sending(work, sent)


def _sending(work: Any, value: Any) -> Callable[[], Any]:
    # an iterator of C code has no send()
    return lambda: next(work) if value is None else work.send(value)


def _throwing(work: Any, exc: BaseException) -> Callable[[], Any]:
    return lambda: work.throw(exc)
