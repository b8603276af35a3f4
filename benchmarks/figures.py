"""What a way of doing something came to, by what was measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypedDict


@dataclass
class Series:
    """Values of one thing that was measured in one run."""

    unit: str
    values: list[float] = field(default_factory=list)


class Summary(TypedDict):
    """What a series came to, over all rounds.

    ``rounds`` has the median of each round. ``median`` is theirs; ``p10`` and ``p90``
    are of all values.
    """

    median: float
    p10: float
    p90: float
    rounds: list[float]


class Figures(dict[str, Series]):
    """What one run of a way found."""

    def add(self, what: str, value: float, unit: str) -> None:
        """Take down a value."""
        self.setdefault(what, Series(unit)).values.append(value)

    @contextmanager
    def timing(self, what: str, each: int = 1) -> Iterator[None]:
        """Take down how long the block takes, in ms.

        :param each: how many operations that is
        """
        started = time.perf_counter()
        yield
        self.add(what, (time.perf_counter() - started) / each * 1000, "ms")


def summary(rounds: list[list[float]]) -> Summary:
    """Summarise the values of all rounds."""
    medians = [statistics.median(values) for values in rounds]
    values = sorted(value for each in rounds for value in each)
    last = len(values) - 1
    return Summary(
        median=statistics.median(medians),
        p10=values[round(last * 0.1)],
        p90=values[round(last * 0.9)],
        rounds=medians,
    )


def ratio(one: Summary, other: Summary) -> float | None:
    """Return how many times the other one is: the median over the rounds.

    Rounds are compared with each other: the machine is not always equally quick.
    """
    pairs = list(zip(one["rounds"], other["rounds"], strict=False))
    quotients = [value / base for value, base in pairs if value > 0 < base]
    return statistics.median(quotients) if quotients else None
