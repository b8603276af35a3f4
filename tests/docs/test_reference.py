"""The reference has every public name, and the table of events every event."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import typing
from types import ModuleType, UnionType
from typing import get_type_hints

import pytest

from cnm import events, hookspecs
from cnm.events import DriverEvent, Event

from .pages import DOCS, directives

MODULES = ("cnm", "cnm.driver", "cnm.firewall", "cnm.linux")


def _is_documented(module: ModuleType, name: str, documented: dict[str, str]) -> bool:
    if f"{module.__name__}.{name}" in documented:
        return True
    value = getattr(module, name)
    if inspect.ismodule(value):
        return documented.get(value.__name__) == "module"
    whole = documented.get(module.__name__) == "module"
    return whole and callable(value) and bool(inspect.getdoc(value))


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    documented = directives()
    imported = importlib.import_module(module)
    elsewhere = {name.rpartition(".")[2] for name in documented}
    if module == "cnm.driver":
        # it has what applications see as well, which is documented once
        elsewhere |= {"Option", "parse_options"}
    missing = [
        name
        for name in imported.__all__
        if name != "__version__"
        and not _is_documented(imported, name, documented)
        and not (module == "cnm.driver" and name in elsewhere)
    ]
    assert missing == []


def test_what_the_reference_names_exists() -> None:
    for name, kind in directives().items():
        if kind == "module":
            importlib.import_module(name)
        else:
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name


def _all_events() -> list[type[Event]]:
    return [
        value
        for value in vars(events).values()
        if inspect.isclass(value) and issubclass(value, Event) and "name" in vars(value)
    ]


def _rows() -> dict[str, list[str]]:
    lines = (DOCS / "events.md").read_text(encoding="utf-8").splitlines()
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in lines]
    return {row[0].strip("`"): row[1:] for row in rows if row and row[0][:1] == "`"}


def _returned(event: type[Event]) -> str:
    """Return what the table ought to say of the hook's result."""
    hook = "cnm_" + event.name.replace(".", "_")
    for spec in (hookspecs.NetworkDriver, hookspecs.IPAMDriver):
        if hook in vars(spec):
            result = get_type_hints(vars(spec)[hook])["return"]
            break
    else:
        return ""
    names = []
    union = isinstance(result, UnionType)
    for option in typing.get_args(result) if union else (result,):
        origin = typing.get_origin(option) or option
        if origin is type(None):
            names.append("None")
        elif origin is tuple:
            names.append(f"`tuple` of `{typing.get_args(option)[0].__name__}`")
        else:
            names.append(f"`{origin.__name__}`")
    return " or ".join(names)


def test_the_table_has_every_event_and_no_other() -> None:
    assert _rows().keys() == {event.name for event in _all_events()}


@pytest.mark.parametrize("event", _all_events(), ids=lambda event: event.name)
def test_the_table_is_right_about(event: type[Event]) -> None:
    class_name, heard_by, returned = _rows()[event.name]
    assert class_name == f"`{event.__name__}`"
    assert heard_by
    assert returned == _returned(event)


def test_the_contract_is_about_every_driver_event() -> None:
    page = (DOCS / "drivers" / "reference.md").read_text(encoding="utf-8")
    part = page.partition("## Event by event")[2].partition("\n## ")[0]
    first = [line.split("|")[1] for line in part.splitlines() if line[:3] == "| `"]
    named = [name.strip().strip("`") for cell in first for name in cell.split(",")]
    assert sorted(named) == sorted(
        event.name for event in _all_events() if issubclass(event, DriverEvent)
    )
