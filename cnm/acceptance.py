"""Whether what drivers answer can be used."""

from __future__ import annotations

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
from .types import (
    Address,
    EndpointState,
    NetworkState,
    Pool,
    PortBinding,
    Requirements,
    Route,
)
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
    if isinstance(answer, Address):
        _expect(faults, "interface", answer.interface, _INTERFACES)
    elif isinstance(answer, JoinInfo):
        _check_join(faults, answer)
    elif isinstance(answer, NetworkState):
        faults.parse("interface_prefix", _prefix, answer.interface_prefix)
        faults.each("links", _index, answer.links)
        faults.each("parents", _index, answer.parents)
    elif isinstance(answer, EndpointState) and answer.mac != "":
        faults.parse("mac", _mac, answer.mac)
    elif isinstance(answer, Pool):
        _check_pool(faults, answer)
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


def check_bindings(answer: object) -> None:
    """Check what a driver says is published.

    :raises TypeError: if these are no bindings
    """
    others = [answer]
    if isinstance(answer, tuple):
        others = [it for it in answer if not isinstance(it, PortBinding)]
    if others:
        raise TypeError(f"returned {shown(others[0])} among its bindings")


def _check_join(faults: Faults, answer: JoinInfo) -> None:
    if answer.interface != "":
        faults.parse("interface", check.interface_name, answer.interface)
    elif answer.plan is None and not answer.no_interface:
        faults.add("interface, plan: expected one of them, or no_interface=True")
    _expect(faults, "gateway", answer.gateway, (IPv4Address,))
    _expect(faults, "gateway6", answer.gateway6, (IPv6Address,))
    faults.each("routes", _route, answer.routes)


def _check_pool(faults: Faults, answer: Pool) -> None:
    faults.parse("id", check.text, answer.id)
    if answer.subnet is None:
        faults.add("subnet: expected IPv4Network or IPv6Network, not None")
    _expect(faults, "subnet", answer.subnet, _NETWORKS)
    _expect(faults, "ip_range", answer.ip_range, _NETWORKS)
    _expect(faults, "gateway", answer.gateway, _ADDRESSES)


def _expect(faults: Faults, what: str, value: object, kinds: tuple[type, ...]) -> None:
    """Check that a value is None, or of a class; with a prefix it is no address."""
    with_prefix = isinstance(value, _INTERFACES) and kinds is not _INTERFACES
    if value is not None and (with_prefix or not isinstance(value, kinds)):
        names = " or ".join(it.__name__ for it in kinds)
        faults.add(f"{what}: expected {names}, not {shown(value)}")


def _route(value: object) -> Route:
    if not isinstance(value, Route):
        raise TypeError(f"expected Route, not {shown(value)}")
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
