"""Tables of what was found: for terminals, and for pages in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from .figures import Summary, ratio
from .ways import Benchmark, Outcome

Row: TypeAlias = tuple[str, str, str, str, str]


def rows(benchmark: Benchmark, outcome: Outcome) -> Iterator[tuple[str, list[Row]]]:
    """Yield what was measured, with a row for each way of doing it."""
    for what, by_way in outcome.measures.items():
        compared = outcome.measures.get(benchmark.against.get(what, what), {})
        unit = outcome.units[what]
        found = [
            (
                name,
                _number(it["median"]),
                f"{_number(it['p10'])}..{_number(it['p90'])}",
                _times(it, compared.get("floor")),
                _times(it, compared.get("floor with names")),
            )
            for name, it in by_way.items()
        ]
        yield f"{what} [{unit}]", found


def _number(value: float) -> str:
    """Return a number with three digits that say something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _times(one: Summary, other: Summary | None) -> str:
    times = ratio(one, other) if other else None
    return "" if times is None else f"{_number(times)}x"


def show(benchmark: Benchmark, outcome: Outcome) -> str:
    """Return all of it as text."""
    head = f"{'median':>10}{'p10..p90':>18}{'x floor':>10}{'x names':>10}"
    lines = [f"== {benchmark.name}: {benchmark.title}", f"{'':30}{head}"]
    for what, found in rows(benchmark, outcome):
        lines += ["", what]
        for name, median, spread, floor, names in found:
            lines.append(f"  {name:28}{median:>10}{spread:>18}{floor:>10}{names:>10}")
    lines += [f"note: {note}" for note in (*benchmark.notes, *outcome.absent)]
    return "\n".join(lines)


def markdown(benchmark: Benchmark, outcome: Outcome) -> str:
    """Return all of it as a table for a page."""
    lines = [
        "| | | median | p10..p90 | to the floor | to the floor with names |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for what, found in rows(benchmark, outcome):
        for position, row in enumerate(found):
            lines.append("| " + " | ".join([what * (position == 0), *row]) + " |")
    notes = [f"- {note}" for note in (*benchmark.notes, *outcome.absent)]
    return "\n".join([*lines, "", *notes])


def machine(found: dict[str, object]) -> str:
    """Return a description of the machine for a page."""
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{part} {version}" for part, version in value.items())
        lines.append(f"- {name}: {value}")
    return "\n".join(lines)
