"""How a controller is asked for: checked, and normalised."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from .requests.reserved import unusable
from .store import MemoryStore, Store
from .types import AddressPool, IPAddress
from .validation import Faults, absolute_path, address_pool, host_binding, path, shown

T = TypeVar("T")

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_FIREWALLS = ("nftables", "none")
_POLICIES = ("repair", "report")
#: Highest packet mark.
_MARK_HIGH = 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How a controller was asked for."""

    name: str
    store: Store
    netns: str | None
    address_pools: tuple[AddressPool, ...] | None
    drivers: Mapping[str, object]
    ipam_drivers: Mapping[str, object]
    run_dir: str | None
    firewall: str
    manage_forward: bool
    userland_proxy: bool
    host_binding_ipv4: IPAddress | None
    host_binding_ipv6: IPAddress | None
    allow_direct_routing: bool
    accept_fwmark: tuple[int, int] | None
    dns_cache_size: int
    ready_namespaces: int
    on_damage: str
    driver_timeout: float


def check_settings(
    name: object,
    *,
    store: object,
    netns: object,
    address_pools: object,
    drivers: object,
    ipam_drivers: object,
    run_dir: object,
    firewall: object,
    manage_forward: object,
    userland_proxy: object,
    host_binding_ipv4: object,
    host_binding_ipv6: object,
    allow_direct_routing: object,
    accept_fwmark: object,
    dns_cache_size: object,
    ready_namespaces: object,
    on_damage: object,
    driver_timeout: object,
) -> Settings:
    """Check the parameters of a controller.

    :raises InvalidError: with everything that is wrong with them
    """
    faults = Faults()
    pools = None
    if address_pools is not None:
        pools = faults.each("address_pools", address_pool, address_pools)
        for problem in filter(None, (unusable(pool.base) for pool in pools)):
            faults.add(f"address_pools: {problem}")
    settings = Settings(
        name=faults.parse("name", _name, name) or "",
        store=_given(faults, "store", _store, store) or MemoryStore(),
        netns=_given(faults, "netns", absolute_path, netns),
        address_pools=pools,
        drivers=_given(faults, "drivers", _plugins, drivers) or {},
        ipam_drivers=_given(faults, "ipam_drivers", _plugins, ipam_drivers) or {},
        run_dir=_given(faults, "run_dir", path, run_dir),
        firewall=faults.parse("firewall", _firewall, firewall) or "",
        manage_forward=faults.flag("manage_forward", manage_forward),
        userland_proxy=faults.flag("userland_proxy", userland_proxy),
        host_binding_ipv4=_given(
            faults, "host_binding_ipv4", host_binding, host_binding_ipv4
        ),
        host_binding_ipv6=_given(
            faults, "host_binding_ipv6", host_binding, host_binding_ipv6
        ),
        allow_direct_routing=faults.flag("allow_direct_routing", allow_direct_routing),
        accept_fwmark=_given(faults, "accept_fwmark", _fwmark, accept_fwmark),
        dns_cache_size=faults.parse("dns_cache_size", _size, dns_cache_size) or 0,
        ready_namespaces=faults.parse("ready_namespaces", _size, ready_namespaces) or 0,
        on_damage=faults.parse("on_damage", _policy, on_damage) or "",
        driver_timeout=faults.parse("driver_timeout", _seconds, driver_timeout) or 0.0,
    )
    binding6 = settings.host_binding_ipv6
    if binding6 is not None and binding6.version != 6:
        faults.add(f"host_binding_ipv6: expected an IPv6 address, not {binding6}")
    if settings.firewall == "none":
        for what in ("manage_forward", "allow_direct_routing", "accept_fwmark"):
            if getattr(settings, what):
                faults.add(f"{what}: there is no firewall to do it")
    faults.check()
    return settings


def _given(
    faults: Faults, what: str, parser: Callable[[object], T], value: object
) -> T | None:
    """Parse a parameter that may be None."""
    return None if value is None else faults.parse(what, parser, value)


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(
            "expected 1 to 32 lower-case letters, digits and hyphens, not "
            f"{shown(value)}"
        )
    return value


def _store(value: object) -> Store:
    if not isinstance(value, Store):
        raise TypeError(f"expected a Store, not {shown(value)}")
    return value


def _plugins(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected a mapping, not {shown(value)}")
    return value


def _firewall(value: object) -> str:
    if not isinstance(value, str) or value not in _FIREWALLS:
        raise ValueError(f"expected 'nftables' or 'none', not {shown(value)}")
    return value


def _policy(value: object) -> str:
    if not isinstance(value, str) or value not in _POLICIES:
        raise ValueError(f"expected 'repair' or 'report', not {shown(value)}")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"expected seconds, not {shown(value)}")
    if not 0 < value <= sys.float_info.max:
        raise ValueError(f"expected seconds, more than 0, not {shown(value)}")
    return float(value)


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"expected a number from 0 on, not {shown(value)}")
    return value


def _fwmark(value: object) -> tuple[int, int]:
    """Parse a packet mark: ``"0x1"``, ``"0x1/0x3"``, 1."""
    string = f"{value:#x}" if isinstance(value, int) else value
    mark, slash, mask = string.partition("/") if isinstance(string, str) else [""] * 3
    try:
        result = int(mark[:20], 0), int(mask[:20], 0) if slash else _MARK_HIGH
    except ValueError:
        result = -1, -1
    if isinstance(value, bool) or not all(0 <= it <= _MARK_HIGH for it in result):
        raise ValueError(
            f"expected a mark such as '0x1', or with a mask '0x1/0x3', not "
            f"{shown(value)}"
        )
    return result
