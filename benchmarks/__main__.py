"""Run a benchmark: ``python -m benchmarks join``."""

from __future__ import annotations

import sys

from . import join


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] != ["join"] or len(arguments) > 2:
        sys.exit("usage: python -m benchmarks join")
    if len(arguments) == 2:
        join.child(arguments[1])
    else:
        join.main()


main()
