"""Run a benchmark: ``python -m benchmarks join``, ``python -m benchmarks ports``."""

from __future__ import annotations

import sys

from . import join, ports

BENCHMARKS = {"join": (join.main, join.child), "ports": (ports.main, ports.child)}


def main() -> None:
    """Run what the command line names; with a second word, only one way of it."""
    name, *ways = sys.argv[1:] or [""]
    if name not in BENCHMARKS or len(ways) > 1:
        sys.exit(f"usage: python -m benchmarks {'|'.join(BENCHMARKS)}")
    whole, one = BENCHMARKS[name]
    if ways:
        one(ways[0])
    else:
        whole()


main()
