"""Subscriptions: how everybody but the drivers hears of events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, Self, TypeVar, cast

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from .errors import SubscriberTooSlow
from .events import Event

E_co = TypeVar("E_co", bound=Event, covariant=True)


class Subscription(Generic[E_co]):
    """An ordered stream of events; iterate over it with ``async for``.

    The iteration ends when the controller stops, or the block of the subscription.

    :raises SubscriberTooSlow: from the iteration, after the events that were buffered,
        if the buffer has run full
    """

    def __init__(self, types: tuple[type[Event], ...], buffer: int) -> None:
        self.types = types
        self._send: MemoryObjectSendStream[Event]
        self._receive: MemoryObjectReceiveStream[Event]
        self._send, self._receive = anyio.create_memory_object_stream(buffer)
        self._buffer = buffer
        self.too_slow: bool = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E_co:
        try:
            return cast("E_co", await self._receive.receive())
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            if self.too_slow:
                raise SubscriberTooSlow(
                    f"the subscription ended: {self._buffer} events were waiting"
                ) from None
            raise StopAsyncIteration from None

    def wants(self, event: Event) -> bool:
        """Tell whether the subscriber has asked for an event."""
        if event.explicit:
            return type(event) in self.types
        return isinstance(event, self.types)

    def deliver(self, event: Event) -> None:
        """Put an event into the buffer; end the subscription if that is full."""
        try:
            self._send.send_nowait(event)
        except anyio.WouldBlock:
            self.too_slow = True
            self.end()

    def end(self) -> None:
        """Let the subscriber have what is buffered, and no more."""
        self._send.close()

    def close(self) -> None:
        """Drop what is buffered, too."""
        self._send.close()
        self._receive.close()


class Bus:
    """Hands every event to the subscriptions that asked for its type or a base of it.

    Publishing is synchronous: it cannot wait, and cannot fail.
    """

    def __init__(self) -> None:
        self._subscriptions: list[Subscription[Event]] = []
        self._watchers: list[Callable[[], None]] = []

    def publish(self, event: Event) -> None:
        """Hand out an event."""
        for subscription in list(self._subscriptions):
            if subscription.wants(event):
                subscription.deliver(event)
                if subscription.too_slow:
                    self._remove(subscription)

    def watch(self, changed: Callable[[], None]) -> None:
        """Have a function called whenever subscriptions begin or end."""
        self._watchers.append(changed)

    def has_asked_for(self, kind: type[Event]) -> bool:
        """Tell whether anybody has asked for this very class of events."""
        return any(kind in subscription.types for subscription in self._subscriptions)

    def _add(self, subscription: Subscription[Event]) -> None:
        self._subscriptions.append(subscription)
        for changed in self._watchers:
            changed()

    def _remove(self, subscription: Subscription[Event]) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            for changed in self._watchers:
                changed()

    @asynccontextmanager
    async def subscribe(
        self, types: tuple[type[E_co], ...], buffer: int
    ) -> AsyncIterator[Subscription[E_co]]:
        """Hear of events from now on, until the block ends."""
        subscription = Subscription[E_co](types, buffer)
        self._add(subscription)
        try:
            yield subscription
        finally:
            self._remove(subscription)
            subscription.close()

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in self._subscriptions:
            subscription.end()
        self._subscriptions.clear()
