"""Writing the package of a new driver."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from .errors import ConflictError, InvalidError
from .hookspecs import NetworkDriver
from .plugins import GROUPS
from .validation import shown

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def new_driver(name: str, parent: Path) -> Path:
    """Write a package with a driver that works, and with its tests.

    :param name: the driver's name
    :param parent: directory in which ``cnm-driver-NAME`` is made
    :return: that directory
    :raises InvalidError: if the name is none
    :raises ConflictError: if the directory is there already, or such a driver is
        installed: with two of a name, neither can be used
    """
    if not _NAME.fullmatch(name) or len(name) > 30:
        raise InvalidError(
            f"{shown(name)} is no name of a driver: expected at most 30 lower-case "
            "letters, digits and hyphens, such as 'tunnel'"
        )
    for entry in entry_points(group=GROUPS[NetworkDriver], name=name):
        raise ConflictError(f"driver {name!r} is installed already: {entry.value}")
    target = parent / f"cnm-driver-{name}"
    if target.exists():
        raise ConflictError(f"{target} is there already")
    module = name.replace("-", "_")
    words = {
        "NAME": name,
        "MODULE": module,
        "CLASS": "".join(word.capitalize() for word in name.split("-")) + "Driver",
    }
    package = target / f"cnm_driver_{module}"
    template = files("cnm") / "template"
    for source, path in (
        ("pyproject.toml", target / "pyproject.toml"),
        ("README.md", target / "README.md"),
        ("__init__.py.txt", package / "__init__.py"),
        ("tests/conftest.py.txt", target / "tests" / "conftest.py"),
        ("tests/test_driver.py.txt", target / "tests" / "test_driver.py"),
    ):
        _write(template / source, path, words)
    (package / "py.typed").touch()
    return target


def _write(source: Traversable, path: Path, words: dict[str, str]) -> None:
    text = source.read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace(word, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
