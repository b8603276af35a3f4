"""What names say: the records of networks, and what a sandbox finds among them.

Nothing in here asks the kernel or another server anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from socket import socket
from typing import Protocol, TypeAlias

from ..types import IPAddress

#: Makes a non-blocking socket: inside the sandbox or not, of a family, of a type.
Opener: TypeAlias = Callable[[bool, int, int], Awaitable[socket]]


@dataclass(frozen=True, slots=True)
class NameServer:
    """A name server that knows the names of others.

    :ivar inside: whether it is asked from within the sandbox
    """

    address: IPAddress
    port: int = 53
    inside: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where a service is served: an SRV record (RFC 2782).

    :ivar addresses: the addresses of the host, for the additional section
    """

    host: str
    port: int
    priority: int = 0
    weight: int = 0
    addresses: tuple[IPAddress, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What our own names say about a question.

    If all of it is empty, the name is one of ours, and has no such data.

    :ivar addresses: for A and AAAA, of that family
    :ivar names: for PTR
    :ivar services: for SRV
    :ivar texts: for TXT
    """

    addresses: tuple[IPAddress, ...] = ()
    names: tuple[str, ...] = ()
    services: tuple[Target, ...] = ()
    texts: tuple[str, ...] = ()


class View(Protocol):
    """The names that a sandbox sees."""

    def find(self, name: str, kind: str) -> Found | None:
        """Look for a name.

        :param name: in lower case, without a dot at the end
        :param kind: the type of records, such as ``"AAAA"``
        :return: None if the name is none of ours
        """
        ...
