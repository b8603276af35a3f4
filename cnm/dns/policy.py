"""What others may have to say about the names that a sandbox asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..types import IPAddress


class NamePolicy(Protocol):
    """Decides which names a sandbox may ask for, and hears of what it is told.

    A policy that raises has the query answered with SERVFAIL.
    """

    def allows(self, sandbox_id: str, name: str, kind: str) -> bool:
        """Tell whether a name may be asked for; if not, the answer is REFUSED.

        It must not block.

        :param name: in lower case, without a dot at the end
        :param kind: the type of records, such as ``"AAAA"``
        """
        ...

    async def answered(
        self, sandbox_id: str, name: str, addresses: Sequence[IPAddress], ttl: int
    ) -> None:
        """Hear of the addresses of an answer, before the sandbox does.

        The answer is held back until this returns, for ten seconds at most.

        :param name: what was asked for, whatever the addresses' own names are
        :param ttl: seconds for which the answer may be kept
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """A query, and how it was answered.

    :ivar source: ``"own"``, ``"cache"``, ``"upstream"`` or ``"none"``
    """

    sandbox_id: str
    name: str
    kind: str
    code: str
    source: str
    addresses: tuple[IPAddress, ...]
    seconds: float
