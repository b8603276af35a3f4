"""Run a benchmark: ``python -m benchmarks join``, ``dns`` or ``ports``."""

from __future__ import annotations

import sys

from . import dns, join, ports

BENCHMARKS = {
    "dns": (dns.main, dns.child),
    "join": (join.main, join.child),
    "ports": (ports.main, ports.child),
}


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
