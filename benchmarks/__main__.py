"""Measure cnm against the kernel's floor, and against peers in the same run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from . import (
    data,
    dns,
    idle,
    importing,
    join,
    leave,
    machine,
    memory,
    network,
    page,
    ports,
    profiles,
    restore,
    scale,
    tables,
    ways,
)
from .ways import Outcome

_MODULES = (
    *(join, leave, network, ports, dns),
    *(scale, restore, importing, memory, idle, data, profiles),
)
BENCHMARKS = {it.BENCHMARK.name: it.BENCHMARK for it in _MODULES}


def _options() -> argparse.Namespace:
    """Return what the command line says."""
    known = "\n".join(f"  {it.name:10}{it.title}" for it in BENCHMARKS.values())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"benchmarks:\n{known}",
    )
    add = parser.add_argument
    add(
        "names",
        nargs="*",
        choices=[*BENCHMARKS, "all", []],
        metavar="BENCHMARK",
        help="what to measure, or all",
    )
    backends = [*ways.BACKENDS, "both"]
    add("--backend", choices=backends, default="both", help="both if not given")
    add("--rounds", type=int, metavar="N", help="how often each way has its turn")
    add("--quick", action="store_true", help="only see that it works; no peers")
    add("--json", type=Path, metavar="FILE", help="write the figures there")
    add(
        "--figures",
        type=Path,
        metavar="FILE",
        help="measure nothing: show former figures",
    )
    add("--plots", type=Path, metavar="DIR", help="draw PNGs there (needs matplotlib)")
    add("--page", type=Path, metavar="FILE", help="write the tables of a page anew")
    add("--way", metavar="WAY", help="measure one way, in this process: for profilers")
    options = parser.parse_args()
    if not options.names and not options.figures:
        parser.error("name a benchmark, or all, or --figures")
    return options


def main() -> None:
    """Measure, or take former figures; show them, and draw them."""
    options = _options()
    names = list(BENCHMARKS) if "all" in options.names else options.names
    if options.way:
        size = ways.Size(quick=options.quick)
        ways.be_child(BENCHMARKS[names[0]], options.way, size)
        return
    if options.figures:
        report = json.loads(options.figures.read_text())
        found = {name: Outcome(**it) for name, it in report["benchmarks"].items()}
        described = report["machine"]
        for name, outcome in found.items():
            print(tables.show(BENCHMARKS[name], outcome))
    else:
        described = machine.describe()
        found = _measure(names, options, described)
    if options.plots:
        from . import plots

        options.plots.mkdir(parents=True, exist_ok=True)
        for name, outcome in found.items():
            plots.draw(BENCHMARKS[name], outcome, options.plots)
    if options.page:
        parts = {
            name: tables.markdown(BENCHMARKS[name], outcome)
            for name, outcome in found.items()
        }
        both = ((BENCHMARKS[name], outcome) for name, outcome in found.items())
        parts |= {"summary": tables.summary(both), "machine": tables.machine(described)}
        page.write(options.page, parts)


def _measure(
    names: list[str], options: argparse.Namespace, described: dict[str, object]
) -> dict[str, Outcome]:
    """Measure, and show and write down what is found as it comes."""
    size = ways.Size(quick=options.quick)
    found: dict[str, Outcome] = {}
    for name in names:
        benchmark = BENCHMARKS[name]
        rounds = options.rounds or (1 if size.quick else benchmark.rounds)
        found[name] = ways.run(benchmark, options.backend, rounds, size)
        print(tables.show(benchmark, found[name]))
        if options.json:
            report = {"machine": described, "quick": size.quick, "benchmarks": found}
            options.json.write_text(json.dumps(report, indent=1, default=vars) + "\n")
    return found


if __name__ == "__main__":
    main()
