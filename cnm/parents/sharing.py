"""Which networks of a driver are on which parent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ConflictError


@dataclass(frozen=True, slots=True)
class Use:
    """A network that is on a parent.

    :ivar mode: how it uses it
    """

    network_id: str
    network_name: str
    parent: str
    mode: str


class Sharing:
    """The networks of a driver, by parent.

    :param conflict: says why one network cannot be on the parent of another; returns
        ``""`` if it can
    """

    def __init__(self, conflict: Callable[[Use, Use], str]) -> None:
        self._conflict = conflict
        self._uses: dict[str, Use] = {}

    def check(self, use: Use) -> None:
        """Check whether a network may be on a parent.

        :raises ConflictError: if another network does not allow it
        """
        others = [it for it in self._uses.values() if it.parent == use.parent]
        for other in others:
            same = other.network_id == use.network_id
            if not same and (problem := self._conflict(use, other)):
                raise ConflictError(problem)

    def add(self, use: Use) -> None:
        """Note that a network is on a parent; it may be there already.

        :raises ConflictError: if another network does not allow it
        """
        self.check(use)
        self._uses[use.network_id] = use

    def remove(self, network_id: str) -> None:
        """Note that a network is gone. No error if it has not been there."""
        self._uses.pop(network_id, None)

    def on(self, parent: str) -> list[str]:
        """Return the ids of the networks on a parent."""
        return [it.network_id for it in self._uses.values() if it.parent == parent]

    def heir(self, network_id: str, parent: str) -> str:
        """Return the id of another network on a parent, or ``""``."""
        return next((it for it in self.on(parent) if it != network_id), "")
