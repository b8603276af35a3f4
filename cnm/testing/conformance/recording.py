"""What a driver has been told, and how long it kept the event loop."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

from ...events import DriverEvent
from ...plugins import Driver
from ..faults import Point

E = TypeVar("E", bound=DriverEvent[Any])


class Recording:
    """The events that drivers have been told."""

    def __init__(self) -> None:
        self._events: list[DriverEvent[Any]] = []
        self._longest: dict[str, float] = {}

    def note(self, event: DriverEvent[Any]) -> None:
        """Note an event."""
        self._events.append(event)

    def note_step(self, name: str, seconds: float) -> None:
        """Note how long a handler has run without letting others run."""
        self._longest[name] = max(seconds, self._longest.get(name, 0.0))

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of a class."""
        return [event for event in self._events if isinstance(event, kind)]

    def slow(self, limit: float) -> list[tuple[str, float]]:
        """Return which handlers have kept others waiting for longer than that."""
        return [it for it in self._longest.items() if it[1] > limit]


class _Timed:
    """Awaits something, and measures the time between its suspensions."""

    def __init__(self, work: Any, name: str, recording: Recording) -> None:
        self._work = work
        self._name = name
        self._recording = recording

    def __await__(self) -> Generator[Any, Any, Any]:
        began = time.monotonic()
        work = self._work.__await__()
        step = work.__next__
        while True:
            try:
                yielded = step()
            except StopIteration as stop:
                self._recording.note_step(self._name, time.monotonic() - began)
                return stop.value
            self._recording.note_step(self._name, time.monotonic() - began)
            try:
                sent = yield yielded
            except BaseException as exc:
                began = time.monotonic()
                step = _bind(work.throw, exc)
            else:
                began = time.monotonic()
                step = _bind(work.send, sent)


def _bind(function: Any, value: Any) -> Any:
    return lambda: function(value)


@contextmanager
def recorded() -> Iterator[Recording]:
    """Record what drivers are told within the block."""
    recording = Recording()
    call = Driver.call

    async def noted(self: Driver, hook: str, event: Any) -> Any:
        recording.note(event)
        return await _Timed(call(self, hook, event), event.name, recording)

    with patch.object(Driver, "call", noted):
        yield recording


@contextmanager
def within(points: Sequence[Point]) -> Iterator[list[tuple[str, Point]]]:
    """Return the points that are passed within handlers, each with its event's name."""
    passed: list[tuple[str, Point]] = []
    call = Driver.call

    async def watched(self: Driver, hook: str, event: Any) -> Any:
        before = len(points)
        try:
            return await call(self, hook, event)
        finally:
            passed.extend((event.name, point) for point in points[before:])

    with patch.object(Driver, "call", watched):
        yield passed
