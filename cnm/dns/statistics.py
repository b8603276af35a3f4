"""Counting queries, and how they are answered."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True, slots=True)
class NameStatistics:
    """What has been asked, and how it has been answered.

    :ivar queries: all queries, malformed ones included
    :ivar tcp: those of them that came by TCP
    :ivar own: answers made of our own names
    :ivar cached: answers of other name servers that had been kept
    :ivar upstream: answers of other name servers that were asked for it
    :ivar noerror: answers with code NOERROR
    :ivar nxdomain: answers with code NXDOMAIN
    :ivar servfail: answers with code SERVFAIL: no other name server had one
    :ivar refused: answers with code REFUSED, by policy or because of a limit
    :ivar malformed: queries that could not be understood
    :ivar truncated: answers that were too long for UDP
    :ivar lost: answers that could not be sent
    :ivar limited: queries that were refused because there were too many at a time
    :ivar failures: name servers that gave no answer, or none that could be used
    :ivar latency_sum: seconds that the ``upstream`` answers took in all
    :ivar latency_max: seconds that the slowest of them took
    """

    queries: int = 0
    tcp: int = 0
    own: int = 0
    cached: int = 0
    upstream: int = 0
    noerror: int = 0
    nxdomain: int = 0
    servfail: int = 0
    refused: int = 0
    malformed: int = 0
    truncated: int = 0
    lost: int = 0
    limited: int = 0
    failures: int = 0
    latency_sum: float = 0.0
    latency_max: float = 0.0


_NAMES = tuple(field.name for field in fields(NameStatistics))
_CODES = {0: "noerror", 2: "servfail", 3: "nxdomain", 5: "refused"}


class Counters:
    """Counts what :class:`NameStatistics` has, for one resolver or for several."""

    __slots__ = _NAMES

    def __init__(self) -> None:
        self.queries: int = 0
        self.tcp: int = 0
        self.own: int = 0
        self.cached: int = 0
        self.upstream: int = 0
        self.noerror: int = 0
        self.nxdomain: int = 0
        self.servfail: int = 0
        self.refused: int = 0
        self.malformed: int = 0
        self.truncated: int = 0
        self.lost: int = 0
        self.limited: int = 0
        self.failures: int = 0
        self.latency_sum: float = 0.0
        self.latency_max: float = 0.0

    def code(self, code: int) -> None:
        """Count an answer's code."""
        if name := _CODES.get(code):
            setattr(self, name, getattr(self, name) + 1)

    def took(self, seconds: float) -> None:
        """Count an answer of another name server."""
        self.upstream += 1
        self.latency_sum += seconds
        self.latency_max = max(self.latency_max, seconds)

    def add(self, other: Counters) -> None:
        """Count what another one has counted."""
        slowest = max(self.latency_max, other.latency_max)
        for name in _NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.latency_max = slowest

    def snapshot(self) -> NameStatistics:
        """Return what has been counted so far."""
        return NameStatistics(**{name: getattr(self, name) for name in _NAMES})
