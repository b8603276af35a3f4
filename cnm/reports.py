"""What a controller has found of what it knows, and what it has done about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .types import EndpointInfo, NetworkInfo, SandboxInfo

#: A network, sandbox or endpoint; or what belongs to none, by its name or path.
Subject: TypeAlias = NetworkInfo | SandboxInfo | EndpointInfo | str

#: What has become of something: ``kept`` as it was; ``remade``, since it was gone;
#: ``detached``: an endpoint that is in no sandbox any more; ``dropped``: forgotten;
#: ``failed``: it is known, but cannot be used; ``undone`` and ``completed``: an
#: operation that was interrupted; ``swept``: removed, because it belongs to nothing.
Outcome: TypeAlias = Literal[
    "kept",
    "remade",
    "detached",
    "dropped",
    "failed",
    "undone",
    "completed",
    "swept",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """What has become of one thing.

    :ivar detail: why, or what has been done; ``""`` for what was kept
    """

    subject: Subject
    outcome: Outcome
    detail: str = ""

    def __str__(self) -> str:
        return f"{describe(self.subject)}: {self.outcome}: {self.detail}".rstrip(": ")


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoreReport:
    """What a controller has found when it started, in the order of finding.

    :ivar seconds: how long it took
    """

    entries: tuple[Restored, ...] = ()
    seconds: float = 0.0

    def of(self, *outcomes: Outcome) -> tuple[Restored, ...]:
        """Return the entries with one of some outcomes."""
        return tuple(entry for entry in self.entries if entry.outcome in outcomes)

    @property
    def counts(self) -> Mapping[Outcome, int]:
        """How many entries there are of each outcome that occurs."""
        counts: dict[Outcome, int] = {}
        for entry in self.entries:
            counts[entry.outcome] = counts.get(entry.outcome, 0) + 1
        return counts


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Something that is not in the kernel as it should be.

    :ivar problem: what is wrong, in a sentence
    :ivar mended: whether it has been put right
    :ivar error: why it could not be put right, or ``""``
    """

    subject: Subject
    problem: str
    mended: bool = False
    error: str = ""

    def __str__(self) -> str:
        return f"{describe(self.subject)}: {self.problem}"


def describe(subject: Subject) -> str:
    """Return what a subject is called in messages."""
    if isinstance(subject, NetworkInfo):
        return f"network {subject.name!r}"
    if isinstance(subject, SandboxInfo):
        return f"sandbox {subject.name!r}"
    if isinstance(subject, EndpointInfo):
        return f"endpoint {subject.name!r} of network {subject.network.name!r}"
    return subject
