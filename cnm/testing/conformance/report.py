"""What a driver does wrong, and what its author is to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """A rule of the contract that a driver breaks.

    :ivar rule: the rule's name, e.g. ``"undo twice"``
    :ivar problem: what has been seen
    :ivar advice: what the driver's author is to do
    """

    rule: str
    problem: str
    advice: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.problem}\n    -> {self.advice}"


def violation(rule: str, problem: str, advice: str) -> Violation:
    """Return a violation; what takes too long breaks the same rule everywhere."""
    if "no answer after" in problem or "has not ended within" in problem:
        advice = (
            "handlers and plans have a deadline: give what you wait for a shorter one"
        )
        rule = "deadline"
    return Violation(rule=rule, problem=problem, advice=advice)


class ConformanceError(AssertionError):
    """A driver does not keep to the contract.

    :ivar violations: all that has been found
    """

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations: tuple[Violation, ...] = tuple(violations)
        super().__init__("\n".join(["", *map(str, self.violations)]))
