"""The command line: ``python -m cnm drivers``."""

from __future__ import annotations

import argparse
import sys

from . import __version__
from .hookspecs import IPAMDriver, NetworkDriver, Observer
from .plugins import DriverRegistry

_KINDS = {"network": NetworkDriver, "ipam": IPAMDriver, "observer": Observer}


def list_drivers() -> str:
    """Return a table of the drivers that are installed."""
    rows = [("KIND", "NAME", "PACKAGE", "ORIGIN", "STATE")]
    for kind, spec in _KINDS.items():
        registry = DriverRegistry(spec)
        registry.discover()
        rows += [
            (kind, it.name, it.distribution, it.origin, it.refused or "available")
            for it in registry.available
        ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join([*map(str.ljust, row[:4], widths), row[4]]) for row in rows
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="cnm", description="The Container Network Model for async Python."
    )
    parser.add_argument("--version", action="version", version=f"cnm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("drivers", help="list the drivers that are installed")
    parser.parse_args()
    print(list_drivers())
    sys.exit(0)


if __name__ == "__main__":
    main()
