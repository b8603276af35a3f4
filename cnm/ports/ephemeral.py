"""Choosing any port that is free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from ..types import Proto


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """The ports that the kernel gives to those who ask for any.

    :ivar first: the lowest
    :ivar last: the highest
    :ivar reserved: those that are only given to who asks for them
    """

    first: int
    last: int
    reserved: frozenset[int] = frozenset()


def read_pool(setting: Callable[[str], str]) -> Pool:
    """Plan: read the settings of the network namespace.

    :param setting: reads one
    :raises KernelError: if there are none
    """
    first, last = map(int, setting("net.ipv4.ip_local_port_range").split())
    reserved: set[int] = set()
    for part in setting("net.ipv4.ip_local_reserved_ports").split(","):
        if part:
            start, _, end = part.partition("-")
            reserved.update(range(int(start), int(end or start) + 1))
    return Pool(first=first, last=last, reserved=frozenset(reserved))


class Ephemeral:
    """Goes round the ports of a pool.

    A port that has just been given up is not given to somebody else at once, whose
    clients would be those of its last owner.
    """

    def __init__(self) -> None:
        self._last: dict[Proto, int] = {}

    def candidates(
        self, proto: Proto, pool: Pool, busy: Collection[tuple[Proto, int]] = ()
    ) -> Iterator[int]:
        """Yield every port that may be chosen, once, from the last one on.

        :param busy: ports that are not to be chosen at present
        """
        size = pool.last - pool.first + 1
        start = self._last.get(proto, pool.last) + 1 - pool.first
        for offset in range(size):
            port = pool.first + (start + offset) % size
            if port not in pool.reserved and (proto, port) not in busy:
                yield port

    def chosen(self, proto: Proto, port: int) -> None:
        """Go on behind a port, the next time."""
        self._last[proto] = port
