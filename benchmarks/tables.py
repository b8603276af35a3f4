"""Tables of what was found: for terminals, and for pages in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .figures import Summary, ratio
from .ways import BACKENDS, Benchmark, Outcome

_FLOORS = {"floor": "to the floor", "floor with names": "to that with names"}
_BASES = {**_FLOORS, "floor awaited": "to that awaited"}


def _bases(benchmark: Benchmark) -> list[str]:
    """Return the ways that the others are compared with."""
    return [way.name for way in benchmark.ways if way.name in _BASES]


def _rows(benchmark: Benchmark, outcome: Outcome) -> Iterator[tuple[str, list[str]]]:
    """Yield what was measured, with a row for each way of doing it."""
    for what, by_way in outcome.measures.items():
        compared = outcome.measures.get(benchmark.against.get(what, what), {})
        unit = outcome.units[what]
        for name, it in by_way.items():
            yield (
                f"{what} [{unit}]" if unit else what,
                [
                    name,
                    _number(it["median"]),
                    f"{_number(it['p10'])}..{_number(it['p90'])}",
                    *(_times(it, compared.get(base)) for base in _bases(benchmark)),
                ],
            )


def _number(value: float) -> str:
    """Return a number with three digits that say something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _times(one: Summary | None, other: Summary | None) -> str:
    times = ratio(one, other) if one and other else None
    return "" if times is None else f"{_number(times)}x"


def show(benchmark: Benchmark, outcome: Outcome) -> str:
    """Return all of it as text."""
    titles = ["", "median", "p10..p90", *(_BASES[it] for it in _bases(benchmark))]
    lines = [f"== {benchmark.name}: {benchmark.title}", _line(titles)]
    shown = ""
    for what, row in _rows(benchmark, outcome):
        if what != shown:
            lines += ["", what]
            shown = what
        lines.append(_line(row))
    lines += [f"note: {note}" for note in (*benchmark.notes, *outcome.absent)]
    return "\n".join(lines) + "\n"


def _line(row: list[str]) -> str:
    name, *numbers = row
    return f"  {name:18}" + "".join(f"{number:>20}" for number in numbers)


def markdown(benchmark: Benchmark, outcome: Outcome) -> str:
    """Return all of it as a table for a page."""
    bases = [_BASES[it] for it in _bases(benchmark)]
    titles = ["", "", "median", "p10..p90", *bases]
    lines = [_cells(titles), _cells(["---", "---", *["---:"] * (2 + len(bases))])]
    shown = ""
    for what, row in _rows(benchmark, outcome):
        lines.append(_cells(["" if what == shown else _escaped(what), *row]))
        shown = what
    notes = [f"- {note}" for note in (*benchmark.notes, *outcome.absent)]
    return "\n".join([*lines, "", *notes]).rstrip()


def summary(found: Iterable[tuple[Benchmark, Outcome]]) -> str:
    """Return what counts as a table for a page: ours, the floor's, and the peers'."""
    titles = ["", "asyncio", "trio", "to the floor", "peers, to asyncio"]
    lines = [_cells(titles), _cells(["---", *["---:"] * 3, "---"])]
    for benchmark, outcome in found:
        told = [*benchmark.shown, *benchmark.told]
        told = [what for what in told if what in outcome.measures]
        lines += [_cells(_in_short(benchmark, outcome, what)) for what in told]
    return "\n".join(lines)


def _in_short(benchmark: Benchmark, outcome: Outcome, what: str) -> list[str]:
    by_way = outcome.measures[what]
    ours, unit = [by_way.get(name) for name in BACKENDS], outcome.units[what]
    if not any(ours):  # there is only one way, whatever the backend
        ours = [*by_way.values(), None]
    compared = outcome.measures.get(benchmark.against.get(what, what), {})
    floors = [
        compared[it] for it in _bases(benchmark) if it in compared.keys() & _FLOORS
    ]
    peers = [name for name in by_way if benchmark.way(name).peer]
    return [
        _escaped(what),
        *(f"{_number(it['median'])} {unit}" if it else "" for it in ours),
        _times(ours[0], floors[-1]) if floors else "",
        ", ".join(f"{name} {_times(by_way[name], ours[0])}" for name in peers),
    ]


def _escaped(text: str) -> str:
    """Return a text in which no character means anything to Markdown."""
    return "".join(f"\\{it}" if it in "\\`*_<>[]|" else it for it in text)


def _cells(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def machine(found: dict[str, object]) -> str:
    """Return a description of the machine for a page."""
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{part} {version}" for part, version in value.items())
        lines.append(f"- {name}: {value}")
    return "\n".join(lines)
