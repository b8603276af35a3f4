"""Parsing the options of networks and endpoints, for drivers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .errors import InvalidError
from .types import JSON, NetworkInfo
from .validation import address, host_binding, interface_name, mac_address, shown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

O = TypeVar("O")  # noqa: E741 - options
T = TypeVar("T")
_DECLARED = "cnm.option"

#: The kernel's bounds for Ethernet (ETH_MIN_MTU, ETH_MAX_MTU), and IPv6's own
#: (RFC 8200, section 5).
MTU_LOW, MTU_LOW_IPV6, MTU_HIGH = 68, 1280, 65535

# strconv.ParseBool of Go, whose words libnetwork's users are used to
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


@dataclass(frozen=True, slots=True)
class Option:
    """An option that a driver knows.

    :ivar name: its short name
    :ivar type: what its values are in the driver's hands
    :ivar default: what it is if it is not given
    :ivar parse: turns a value into what the driver wants; raises ValueError or
        TypeError with a sentence on what would be accepted
    :ivar label: libnetwork's label for it, or ``""``
    :ivar help: what it means, for those who use the driver
    """

    name: str
    type: str
    default: object
    parse: Callable[[JSON], Any]
    label: str
    help: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NoOptions:
    """What a driver without options declares."""


def option(
    default: T, parse: Callable[[JSON], Any], *, help: str, label: str = ""
) -> T:
    """Declare an option, as a field of a dataclass.

    ::

        @dataclass(frozen=True, kw_only=True, slots=True)
        class LineOptions:
            mtu: int = option(0, integer(1280, 65535), help="MTU in bytes")

    :param default: what it is if it is not given
    :param parse: turns a value into what the driver wants, such as :func:`integer`
    :param help: what it means; ``python -m cnm driver NAME`` shows it
    :param label: libnetwork's label for it
    """
    metadata = {_DECLARED: (parse, label, help)}
    return field(default=default, metadata=metadata)


def declared(kind: type[object]) -> tuple[Option, ...]:
    """Return the options that a dataclass declares.

    :raises TypeError: if it is no dataclass, or has fields that are no options
    """
    all_fields = fields(cast("type[DataclassInstance]", kind))
    if others := [it.name for it in all_fields if _DECLARED not in it.metadata]:
        raise TypeError(
            f"{kind.__qualname__}.{others[0]} is no option: expected a field that is "
            "made with cnm.driver.option()"
        )
    return tuple(
        Option(it.name, str(it.type), it.default, *it.metadata[_DECLARED])
        for it in all_fields
    )


def parse_options(kind: type[O], given: Mapping[str, JSON], what: str = "options") -> O:
    """Parse options by short name or label.

    :param kind: a dataclass whose fields are made with :func:`option`
    :return: what was given, and the defaults of the rest
    :raises InvalidError: with every option that is unknown, wrong or given twice
    """
    by_name = {option.name: option for option in declared(kind)}
    by_label = {option.label: option for option in by_name.values() if option.label}
    problems: list[str] = []
    result: dict[str, Any] = {}
    for key, value in given.items():
        option = by_name.get(key) or by_label.get(key)
        if option is None:
            problems.append(f"{what}: {_unknown(key, [*by_name, *by_label])}")
            continue
        if option.name in result:
            problems.append(f"{what}: {option.name!r} is given twice")
            continue
        try:
            result[option.name] = option.parse(value)
        except (ValueError, TypeError) as exc:
            problems.append(
                f"{what}: failed to parse {key} value: {shown(value)} ({exc})"
            )
    if problems:
        raise InvalidError(*problems)
    return kind(**result)


def interface_problems(network: NetworkInfo, mtu: int, prefix: str) -> list[str]:
    """Return what is wrong with the MTU and the names of a network's interfaces.

    :param mtu: in bytes, or 0 if the driver chooses
    :param prefix: what the names begin with
    """
    problems = []
    if network.ipv6 and 0 < mtu < MTU_LOW_IPV6:
        problems.append(f"options: mtu {mtu} is too small: IPv6 needs {MTU_LOW_IPV6}")
    if len(prefix) > 11:
        problems.append(
            f"options: container_iface_prefix {prefix!r} leaves no room for a number: "
            "expected at most 11 characters"
        )
    return problems


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key[:100], known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    names = ", ".join(sorted(name for name in known if "." not in name)) or "none"
    return f"unknown option {shown(key)}{hint} (known: {names})"


def boolean(value: JSON) -> bool:
    """Parse a bool: True, False, or a word that Go's strconv.ParseBool takes."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in _TRUE | _FALSE:
        return value in _TRUE
    raise ValueError("expected true or false")


def integer(low: int, high: int) -> Callable[[JSON], int]:
    """Return a parser of integers, or decimal strings, within bounds."""

    def parse(value: JSON) -> int:
        number = None
        if isinstance(value, int) and not isinstance(value, bool):
            number = value
        elif isinstance(value, str) and value.isascii() and value.isdecimal():
            number = int(value[:20])
        if number is None or not low <= number <= high:
            raise ValueError(f"expected an integer from {low} to {high}")
        return number

    return parse


def choice(*words: str) -> Callable[[JSON], str]:
    """Return a parser of one of some words."""

    def parse(value: JSON) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"expected one of {', '.join(words)}")
        return value

    return parse


def ip_address(version: int) -> Callable[[JSON], Any]:
    """Return a parser of addresses of a family."""

    def parse(value: JSON) -> Any:
        parsed = address(value)
        if parsed.version != version:
            raise ValueError(f"expected an IPv{version} address")
        return parsed

    return parse


def host_address(value: JSON) -> Any:
    """Parse an address of the host at which ports are published."""
    return host_binding(value)


def interfaces(value: JSON) -> tuple[str, ...]:
    """Parse names of network interfaces: a list, or separated by colons."""
    names = value.split(":") if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not names:
        raise ValueError("expected names of interfaces, separated by colons")
    return tuple(dict.fromkeys(interface_name(name) for name in names))


def mac(value: JSON) -> str:
    """Parse a MAC address."""
    return mac_address(value)


def interface(value: JSON) -> str:
    """Parse the name of a network interface."""
    return interface_name(value)
