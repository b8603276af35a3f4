"""Bars for what was found. matplotlib is imported here, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot

from .ways import BACKENDS, Benchmark, Outcome

#: From which relation of the longest bar to the shortest a logarithm is drawn.
_LOGARITHMIC = 20
_OURS, _FLOOR, _PEER = "tab:blue", "tab:gray", "tab:orange"

mpl.use("Agg")


def draw(benchmark: Benchmark, outcome: Outcome, directory: Path) -> None:
    """Draw what a benchmark shows into ``NAME.png``, unless it shows nothing."""
    shown = [what for what in benchmark.shown if what in outcome.measures]
    if not shown:
        return
    most = max(len(outcome.measures[what]) for what in shown)
    figure, axes = pyplot.subplots(
        len(shown), squeeze=False, figsize=(7, (0.3 * most + 0.8) * len(shown))
    )
    for axis, what in zip(axes[:, 0], shown, strict=True):
        found = outcome.measures[what]
        medians = [it["median"] for it in found.values()]
        spread = [
            [max(it["median"] - it["p10"], 0) for it in found.values()],
            [max(it["p90"] - it["median"], 0) for it in found.values()],
        ]
        colours = [_colour(benchmark, name) for name in found]
        axis.barh(list(found), medians, xerr=spread, color=colours, capsize=2)
        axis.invert_yaxis()
        if 0 < _LOGARITHMIC * min(medians) < max(medians):
            axis.set_xscale("log")
        axis.set_title(f"{what} [{outcome.units[what]}]", fontsize=10, loc="left")
    figure.tight_layout()
    figure.savefig(directory / f"{benchmark.name}.png", dpi=80)
    pyplot.close(figure)


def _colour(benchmark: Benchmark, way: str) -> str:
    if way in BACKENDS:
        return _OURS
    return _PEER if benchmark.way(way).peer else _FLOOR
