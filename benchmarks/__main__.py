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
    ports,
    restore,
    scale,
    tables,
    ways,
)

_MODULES = (
    *(join, leave, network, ports, dns),
    *(scale, restore, importing, memory, idle, data),
)
BENCHMARKS = {it.BENCHMARK.name: it.BENCHMARK for it in _MODULES}


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="+",
        choices=[*BENCHMARKS, "all"],
        metavar="name",
        help=", ".join(f"{it.name} ({it.title})" for it in BENCHMARKS.values())
        + ", or all",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures there")
    parser.add_argument(
        "--backend", choices=["asyncio", "trio", "both"], default="both"
    )
    parser.add_argument("--rounds", type=int, help="how often each way has its turn")
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    size = ways.Size(quick=options.quick)
    names = list(BENCHMARKS) if "all" in options.names else options.names
    if options.way:
        ways.be_child(BENCHMARKS[names[0]], options.way, size)
        return
    report = {"machine": machine.describe(), "quick": options.quick, "benchmarks": {}}
    for name in names:
        benchmark = BENCHMARKS[name]
        rounds = options.rounds or (1 if options.quick else benchmark.rounds)
        outcome = ways.run(benchmark, options.backend, rounds, size)
        report["benchmarks"][name] = vars(outcome)
        print(tables.show(benchmark, outcome))
        if options.json:
            options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
