"""The command line: ``python -m cnm drivers``."""

from __future__ import annotations

import argparse
import signal
import sys
import textwrap
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

from . import __version__
from .errors import CNMError, DriverLoadError, DriverNotFound, told
from .hookspecs import IPAMDriver, NetworkDriver, Observer
from .options import NoOptions, Option, declared
from .plugins import GROUPS, DriverRegistry

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


def describe_driver(name: str) -> str:
    """Return the options of a network driver's networks.

    :raises DriverNotFound: if there is none of the name
    :raises DriverLoadError: if it cannot be imported, or its options be told
    """
    installed = entry_points(group=GROUPS[NetworkDriver])
    if name not in installed.names:
        raise DriverNotFound(name, sorted(installed.names))
    try:
        driver = installed[name].load()
        described = _describe_options(getattr(driver, "network_options", NoOptions))
    except Exception as exc:
        raise DriverLoadError(f"driver {name!r}: {told(exc)}") from exc
    lines = [f"{name}: {installed[name].value}"]
    if doc := (driver.__doc__ or "").strip():
        lines.append(doc.splitlines()[0])
    return "\n".join([*lines, "", *(described or ["It has no options."])])


def _describe_options(kind: type[object]) -> list[str]:
    hints = get_type_hints(kind)
    return [line for it in declared(kind) for line in _describe(it, hints[it.name])]


def _describe(option: Option, hint: object) -> Iterator[str]:
    yield f"{option.name}: {_type(hint)} = {option.default!r}"
    yield from textwrap.wrap(
        option.help, 80, initial_indent="    ", subsequent_indent="    "
    )
    if option.label:
        yield f"    ({option.label})"


def _type(hint: object) -> str:
    if get_origin(hint) is Literal:
        return " | ".join(map(repr, get_args(hint)))
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cnm", description="The Container Network Model for async Python."
    )
    parser.add_argument("--version", action="version", version=f"cnm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("drivers", help="list the drivers that are installed")
    driver = commands.add_parser("driver", help="show the options of a network driver")
    driver.add_argument("name", metavar="NAME")
    new = commands.add_parser("new-driver", help="write the package of a new driver")
    new.add_argument("name", metavar="NAME")
    new.add_argument(
        "--directory", default=".", type=Path, help="where (default: here)"
    )
    return parser


def main() -> None:
    """Run the command line."""
    # who reads may have enough, as head(1) does: that is no error
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    arguments = _parser().parse_args()
    try:
        if arguments.command == "drivers":
            print(list_drivers())
        elif arguments.command == "driver":
            print(describe_driver(arguments.name))
        else:
            from .scaffold import new_driver

            target = new_driver(arguments.name, arguments.directory)
            print(f"{target} is there. Next: cd {target} && pip install -e '.[test]'")
            print("&& python -m pytest")
    except (CNMError, OSError) as exc:
        sys.exit(f"cnm: {exc}")
    sys.exit(0)


if __name__ == "__main__":
    main()
