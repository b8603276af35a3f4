"""Whether what drivers answer can be used."""

from __future__ import annotations

from functools import partial
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from . import validation as check
from .answers import JoinInfo
from .types import Address, EndpointState, NetworkState, Pool, Requirements, Route
from .validation import Faults, shown

_ADDRESSES = (IPv4Address, IPv6Address)
_INTERFACES = (IPv4Interface, IPv6Interface)
_NETWORKS = (IPv4Network, IPv6Network)
#: Highest index of a link: the kernel has an int for it.
_HIGHEST = 0x7FFFFFFF


def refusal(answer: object, kinds: tuple[type, ...], expected: str) -> str:
    """Return why an answer cannot be used, ``""`` if it can.

    :param kinds: what it may be
    :param expected: how that is called
    """
    if isinstance(answer, kinds):
        reason = "; ".join(_problems(answer))
    else:
        reason = f"not {expected}"
    return reason and f"returned {shown(answer)}, {reason}"


def _problems(answer: object) -> tuple[str, ...]:
    """Return what is wrong with the fields of an answer, one sentence each."""
    faults = Faults()
    plan = getattr(answer, "plan", None)
    if plan is not None and not callable(plan):
        faults.add(f"plan: expected a function, not {shown(plan)}")
    if isinstance(answer, JoinInfo):
        _check_join(faults, answer)
    elif isinstance(answer, NetworkState):
        faults.parse("interface_prefix", _prefix, answer.interface_prefix)
        faults.each("links", _index, answer.links)
        faults.each("parents", _index, answer.parents)
    elif isinstance(answer, EndpointState) and answer.mac != "":
        faults.parse("mac", _mac, answer.mac)
    elif isinstance(answer, Pool):
        _check_pool(faults, answer)
    elif isinstance(answer, Address) and answer.interface is not None:
        faults.parse("interface", partial(_a, _INTERFACES), answer.interface)
    if isinstance(answer, (Requirements, NetworkState, EndpointState)):
        faults.mapping("state", check.json, answer.state)
    return faults.problems


def check_indexes(answer: object) -> None:
    """Check what the plan of a JoinInfo returns.

    :raises TypeError: if these are no indexes of links
    """
    faults = Faults()
    if answer is not None:
        faults.each("", _index, answer)
    if faults.problems:
        raise TypeError(
            f"its plan returned {shown(answer)}: expected indexes of links, or None"
        )


def _check_join(faults: Faults, answer: JoinInfo) -> None:
    if answer.interface != "":
        faults.parse("interface", check.interface_name, answer.interface)
    elif answer.plan is None and not answer.no_interface:
        faults.add("interface, plan: expected one of them, or no_interface=True")
    if answer.gateway is not None:
        faults.parse("gateway", partial(_a, IPv4Address), answer.gateway)
    if answer.gateway6 is not None:
        faults.parse("gateway6", partial(_a, IPv6Address), answer.gateway6)
    faults.each("routes", partial(_a, Route), answer.routes)


def _check_pool(faults: Faults, answer: Pool) -> None:
    faults.parse("id", check.text, answer.id)
    faults.parse("subnet", partial(_a, _NETWORKS), answer.subnet)
    if answer.ip_range is not None:
        faults.parse("ip_range", partial(_a, _NETWORKS), answer.ip_range)
    if answer.gateway is not None:
        faults.parse("gateway", partial(_a, _ADDRESSES), answer.gateway)


def _a(kind: type | tuple[type, ...], value: object) -> object:
    """Check that a value is of a class; one with a prefix is no mere address."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    with_prefix = isinstance(value, _INTERFACES) and kinds != _INTERFACES
    if not isinstance(value, kinds) or with_prefix:
        names = " or ".join(it.__name__ for it in kinds)
        raise TypeError(f"expected {names}, not {shown(value)}")
    return value


def _prefix(value: object) -> str:
    return check.interface_name(f"{check.text(value)}0")


def _index(value: object) -> int:
    index = check.integer(value)
    if not 0 < index <= _HIGHEST:
        raise ValueError(f"expected an index of a link, not {shown(value)}")
    return index


def _mac(value: object) -> str:
    mac = check.mac_address(value)
    if mac != value:
        raise ValueError(f"expected {mac!r}, not {shown(value)}")
    return mac
