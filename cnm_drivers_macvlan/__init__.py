"""The macvlan driver: endpoints have a MAC address of their own on the host's link."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cnm import options as parse
from cnm.driver import (
    JSON,
    ConflictError,
    EndpointInfo,
    NetlinkError,
    NetworkInfo,
    option,
)
from cnm.linux import Request, add_macvlan, choose_mac
from cnm.parents import (
    NewLink,
    ParentDriver,
    ParentOptions,
    Use,
)

__all__ = ["MacvlanDriver"]

Mode = Literal["bridge", "private", "vepa", "passthru", "source"]


def _macs(value: JSON) -> tuple[str, ...]:
    """Parse MAC addresses: a list, or separated by commas."""
    macs = value.split(",") if isinstance(value, str) else value
    if not isinstance(macs, (list, tuple)) or not macs:
        raise ValueError("expected MAC addresses, separated by commas")
    return tuple(parse.mac(it) for it in macs)


@dataclass(frozen=True, kw_only=True, slots=True)
class MacvlanOptions(ParentOptions):
    """How a macvlan network was asked for."""

    macvlan_mode: Mode = option(
        "bridge",
        parse.choice("bridge", "private", "vepa", "passthru", "source"),
        help="whom the endpoints reach: each other (bridge), nobody on the same parent "
        "(private), each other by way of a switch that reflects (vepa); the only "
        "endpoint has the parent for itself (passthru); they hear some MAC addresses "
        "only (source)",
    )
    source_macs: tuple[str, ...] = option(
        (), _macs, help="the MAC addresses that are heard in mode source"
    )


class MacvlanDriver(ParentDriver[MacvlanOptions]):
    """Handles the events of networks with ``driver="macvlan"``."""

    dummy = "dm-"
    network_options = MacvlanOptions

    def problems(self, network: NetworkInfo, options: MacvlanOptions) -> Iterator[str]:
        """Refuse options that do not go together."""
        if (options.macvlan_mode == "source") != bool(options.source_macs):
            yield "options: macvlan_mode 'source' and source_macs need each other"
        mode = options.macvlan_mode
        if options.host_shim and mode not in ("bridge", "vepa"):
            yield f"options: host_shim is not possible with macvlan_mode {mode!r}"

    def mode(self, options: MacvlanOptions) -> str:
        """Return the macvlan's mode."""
        return options.macvlan_mode

    def conflict(self, use: Use, other: Use) -> str:
        """Refuse to share a parent with a network of mode passthru."""
        name, parent = other.network_name, use.parent
        if use.mode == "passthru":
            return (
                f"cannot use mode passthru, macvlan network {name} is already using "
                f"parent interface {parent}"
            )
        if other.mode == "passthru":
            return (
                f"macvlan network {name} is already using parent interface {parent} "
                "in mode passthru"
            )
        return ""

    def add(self, options: MacvlanOptions, link: NewLink) -> Request:
        """Make a macvlan."""
        return add_macvlan(
            link.name,
            parent=link.parent,
            mode=options.macvlan_mode,
            index=link.index,
            netns=link.netns,
            mac=link.mac,
            mtu=options.mtu,
            sources=options.source_macs,
        )

    def choose_mac(self, endpoint: EndpointInfo) -> str:
        """Return the MAC address that was asked for, or a random one."""
        return endpoint.mac or choose_mac()

    def explain(
        self, exc: NetlinkError, network: NetworkInfo, options: MacvlanOptions
    ) -> Exception | None:
        """Say that there can be one endpoint only, if that is the reason."""
        if exc.errno == errno.EINVAL and options.macvlan_mode == "passthru":
            return ConflictError(
                f"network {network.name!r} is of mode passthru: it has room for one "
                "endpoint at a time"
            )
        return super().explain(exc, network, options)
