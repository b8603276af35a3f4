"""Annotations can be evaluated by those who go by them at run time."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from dataclasses import is_dataclass
from types import FunctionType

import cnm.driver

from .test_guards import in_new_process


def parts(name: str, value: object) -> Iterator[tuple[str, object]]:
    """Yield a function; of a class the fields if it is a dataclass, and the methods."""
    if isinstance(value, FunctionType):
        yield name, value
    if not isinstance(value, type):
        return
    if is_dataclass(value):
        yield name, value
    for word, member in inspect.getmembers_static(value):
        if word == "__init__" or not word.startswith("_"):
            inner = getattr(member, "fget", None) or getattr(member, "__func__", member)
            yield from parts(f"{name}.{word}", inner)


def evaluate() -> dict[str, str]:
    """Return what cannot be evaluated of all that is public, or ``""``, by name."""
    found = {}
    for module in (cnm, cnm.driver):
        for word in module.__all__:
            name = f"{module.__name__}.{word}"
            for part, value in parts(name, getattr(module, word)):
                overloads = typing.get_overloads(value) if callable(value) else ()
                try:
                    for each in (value, *overloads):
                        typing.get_type_hints(each)
                except Exception as exc:
                    found[part] = str(exc)
                else:
                    found[part] = ""
    return found


def test_hints_of_all_that_is_public_can_be_evaluated() -> None:
    program = f"from {__name__} import evaluate; print(evaluate())"
    found = in_new_process(program)
    assert isinstance(found, dict)
    assert {name: error for name, error in found.items() if error} == {}
    # all kinds, and what is inherited
    assert found.keys() >= {
        "cnm.Controller.__init__",
        "cnm.Controller.create_network",
        "cnm.Controller.gc",
        "cnm.Controller.networks",
        "cnm.Controller.subscribe",
        "cnm.NetworkInfo",
        "cnm.SQLiteStore.open",
        "cnm.driver.DriverLoaded",
        "cnm.driver.parse_options",
    }
