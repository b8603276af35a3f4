"""Where the user-space proxy sends what comes in by which port."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from socket import SHUT_RDWR, socket
from typing import TypeAlias

from ..types import IPAddress
from .places import HostPort

#: an address of a sandbox, and a port
Target: TypeAlias = tuple[IPAddress, int]


class Routes:
    """The targets of ports, and the sockets that are in use on the way there.

    Safe to use from any thread: plans change it, while the event loop serves.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._targets: dict[HostPort, Target] = {}
        self._sockets: dict[HostPort, set[socket]] = {}

    def add(self, targets: Mapping[HostPort, Target]) -> None:
        """Have ports lead to targets from now on."""
        with self._lock:
            for place, target in targets.items():
                if self._targets.get(place, target) != target:
                    self._end(place)
                self._targets[place] = target

    def remove(self, targets: Mapping[HostPort, Target]) -> None:
        """Undo :meth:`add`, and end what is under way.

        A port that leads somewhere else meanwhile is left alone.
        """
        with self._lock:
            for place, target in targets.items():
                if self._targets.get(place) == target:
                    del self._targets[place]
                    self._end(place)

    def target(self, place: HostPort) -> Target | None:
        """Return where a port leads."""
        return self._targets.get(place)

    @contextmanager
    def using(
        self, place: HostPort, target: Target, *sockets: socket
    ) -> Iterator[bool]:
        """Have sockets shut down when a port does not lead to a target any more.

        :return: whether it does
        """
        with self._lock:
            valid = self._targets.get(place) == target
            if valid:
                self._sockets.setdefault(place, set()).update(sockets)
        try:
            yield valid
        finally:
            with self._lock:
                remaining = self._sockets.get(place, set())
                remaining.difference_update(sockets)
                if not remaining:
                    self._sockets.pop(place, None)

    def _end(self, place: HostPort) -> None:
        # whoever waits for one of them is woken, and closes it
        for used in self._sockets.pop(place, set()):
            with suppress(OSError):  # not connected any more
                used.shutdown(SHUT_RDWR)
