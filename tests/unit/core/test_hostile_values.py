"""Values that nobody expects, for all that can be asked for."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cnm
from cnm import CNMError
from cnm.requests import (
    endpoint_request,
    network_request,
    port_requests,
    sandbox_request,
    service_record,
)
from cnm.settings import check_settings


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("it has no name")


class Lying(dict[str, object]):
    def items(self) -> Any:
        return [1, 2]


class Text(str):
    __slots__ = ()


CYCLE: list[object] = []
CYCLE.append(CYCLE)
HUGE = 10**5000
VALUES: dict[str, Any] = {
    "huge": HUGE,
    "-huge": -HUGE,
    "2**70": 2**70,
    "-1": -1,
    "true": True,
    "bytes": b"a",
    "nan": math.nan,
    "inf": math.inf,
    "surrogate": "\ud800",
    "/surrogate": "/\ud800",
    "nul": "/a\0b",
    "newline": "a\nb",
    "traversal": "../../etc",
    "long": "x" * 100_000,
    "text": Text("abc"),
    "unspeakable": Unspeakable(),
    "unspeakables": [Unspeakable()],
    "lying": Lying(a=1),
    "cycle": CYCLE,
    "mapping of a cycle": {"a": CYCLE},
    "none": None,
    "object": object(),
    "huge in a list": [HUGE],
    "huge in a mapping": {"a": HUGE},
    "nan in a mapping": {"a": math.nan},
    "no text for a key": {b"a": "b"},
    "empty": "",
}
#: What is asked for, if one parameter is something else.
USUAL: dict[Callable[..., object], dict[str, Any]] = {
    network_request: {
        **inspect.signature(cnm.Controller.create_network).parameters,
        "name": "net",
    },
    sandbox_request: {
        **inspect.signature(cnm.Controller.create_sandbox).parameters,
        "name": "box",
    },
    endpoint_request: {
        **inspect.signature(cnm.Network.create_endpoint).parameters,
        "name": "box",
        "driver": "bridge",
        "publishes": True,
    },
    check_settings: {**inspect.signature(cnm.Controller).parameters},
    service_record: {
        "name": "_a._tcp",
        "target": "b",
        "port": 1,
        "priority": 0,
        "weight": 0,
        "texts": (),
    },
}
INTERNAL = ("self", "driver", "publishes")


def usual(asked: Callable[..., object]) -> dict[str, Any]:
    return {
        key: it.default if isinstance(it, inspect.Parameter) else it
        for key, it in USUAL[asked].items()
        if key != "self"
    }


def cases() -> Iterator[Any]:
    for asked in USUAL:
        for parameter in usual(asked):
            if asked is not endpoint_request or parameter not in INTERNAL:
                name = f"{asked.__name__}-{parameter}"
                yield pytest.param(asked, parameter, id=name)


@pytest.mark.parametrize(("asked", "parameter"), list(cases()))
def test_parameters(asked: Callable[..., Any], parameter: str) -> None:
    for value in VALUES.values():
        problems: tuple[str, ...] = ()
        given = {**usual(asked), parameter: value}
        name = () if asked is check_settings else (given.pop("name"),)
        try:
            made = asked(*name, **given)
        except CNMError as exc:
            problems = (str(exc),)
        else:
            problems = made.problems if asked is network_request else ()
            if not problems and asked is not check_settings:
                json.dumps(getattr(made, parameter, None), default=str)
        for problem in problems:
            assert len(problem) < 1000


@pytest.mark.parametrize("value", list(VALUES.values()), ids=list(VALUES))
def test_ports(value: Any) -> None:
    with pytest.raises(cnm.InvalidError):
        port_requests([value])


def test_a_directory_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    given = usual(check_settings)
    assert check_settings(**{**given, "run_dir": "lib"}).run_dir == "/usr/lib"


@pytest.mark.parametrize("value", ["all", "default"])
def test_names_that_the_kernel_has_no_interface_of(value: str) -> None:
    given = {**usual(endpoint_request), "interface_name": value}
    with pytest.raises(cnm.InvalidError, match=f"'{value}' stands for"):
        endpoint_request(given.pop("name"), **given)


@pytest.mark.parametrize("value", ["1\n2", "", "1\0", "x" * 5000])
def test_values_of_sysctls_in_labels(value: str) -> None:
    label = "com.docker.network.endpoint.sysctls"
    options = {label: f"net.ipv4.conf.IFNAME.log_martians={value}"}
    given = {**usual(endpoint_request), "options": options}
    with pytest.raises(cnm.InvalidError, match=r"sysctls'\]: expected 1 to 255"):
        endpoint_request(given.pop("name"), **given)
