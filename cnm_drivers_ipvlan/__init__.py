"""The ipvlan driver: endpoints share the MAC address of the host's link."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cnm import options as parse
from cnm.driver import (
    EndpointInfo,
    InvalidError,
    IPAddress,
    IPInterface,
    NetworkInfo,
    option,
)
from cnm.linux import Request, add_ipvlan
from cnm.parents import (
    NewLink,
    ParentDriver,
    ParentOptions,
    Use,
)

__all__ = ["IPvlanDriver"]


@dataclass(frozen=True, kw_only=True, slots=True)
class IPvlanOptions(ParentOptions):
    """How an ipvlan network was asked for."""

    ipvlan_mode: Literal["l2", "l3", "l3s"] = option(
        "l2",
        parse.choice("l2", "l3", "l3s"),
        help="whether endpoints are neighbours on the parent's link (l2), or are "
        "routed to (l3; l3s if the host's firewall is to see it)",
    )
    ipvlan_flag: Literal["bridge", "private", "vepa"] = option(
        "bridge",
        parse.choice("bridge", "private", "vepa"),
        help="whom the endpoints reach: each other (bridge), nobody on the same parent "
        "(private), each other by way of a switch that reflects (vepa)",
    )


class IPvlanDriver(ParentDriver[IPvlanOptions]):
    """Handles the events of networks with ``driver="ipvlan"``."""

    dummy = "di-"
    network_options = IPvlanOptions

    def problems(self, network: NetworkInfo, options: IPvlanOptions) -> Iterator[str]:
        """Refuse what makes no sense."""
        if options.host_shim and options.ipvlan_flag == "private":
            yield "options: host_shim is not possible with ipvlan_flag 'private'"
        if options.ipvlan_mode == "l2":
            return
        if options.host_shim:
            yield "options: host_shim is possible with ipvlan_mode 'l2'"
        for gateway in network.gateways:
            yield (
                f"gateways: {gateway}: with ipvlan_mode '{options.ipvlan_mode}' the "
                "default route needs none"
            )

    def mode(self, options: IPvlanOptions) -> str:
        """Return the ipvlan's mode."""
        return options.ipvlan_mode

    def conflict(self, use: Use, other: Use) -> str:
        """Refuse to share a parent: the kernel has one mode for all of its links."""
        return (
            f"network {other.network_name} is already using parent interface "
            f"{use.parent}"
        )

    def add(self, options: IPvlanOptions, link: NewLink) -> Request:
        """Make an ipvlan."""
        return add_ipvlan(
            link.name,
            parent=link.parent,
            mode=options.ipvlan_mode,
            flag=options.ipvlan_flag,
            index=link.index,
            netns=link.netns,
            mtu=options.mtu,
        )

    def choose_mac(self, endpoint: EndpointInfo) -> str:
        """Return none: the interface has the parent's."""
        if endpoint.mac:
            raise InvalidError(
                "mac: ipvlan interfaces do not support custom mac address assignment"
            )
        return ""

    def default(
        self,
        options: IPvlanOptions,
        endpoint: EndpointInfo,
        address: IPInterface | None,
    ) -> tuple[IPAddress | None, bool]:
        """Return the gateway; without neighbours all is on the link."""
        if options.ipvlan_mode == "l2":
            return super().default(options, endpoint, address)
        return None, address is not None
