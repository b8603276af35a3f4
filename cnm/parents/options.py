"""Options of all networks on a parent link."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .. import options as parse
from ..options import option
from ..types import JSON, IPAddress, NetworkInfo

#: Names of the auxiliary addresses that the host has on a network with a host shim.
SHIM_ADDRESSES = {4: "HostShimIPv4", 6: "HostShimIPv6"}
_SUBINTERFACE = re.compile(r"(?P<master>.+)\.(?P<vlan>[0-9]+)")


def _parent(value: JSON) -> str:
    name = parse.interface(value)
    if name == "lo":
        raise ValueError("the loopback leads nowhere: expected another link")
    return name


def vlan_of(name: str) -> tuple[str, int] | None:
    """Return what ``eth0.50`` stands for: a link, and the id of a VLAN on it.

    It does so if there is no link of that name; ids begin with 1, and end with 4094.
    """
    found = _SUBINTERFACE.fullmatch(name)
    return (found["master"], int(found["vlan"])) if found else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ParentOptions:
    """What can be asked for of a network on a parent link."""

    parent: str = option(
        "",
        _parent,
        help="name of the parent, eth0.50 standing for VLAN 50 on eth0; a link that "
        "leads nowhere is made if it is empty",
    )
    mtu: int = option(
        0,
        parse.integer(parse.MTU_LOW, parse.MTU_HIGH),
        label="com.docker.network.driver.mtu",
        help="MTU in bytes, or 0 for the parent's",
    )
    container_iface_prefix: str = option(
        "eth",
        parse.interface,
        label="com.docker.network.container_iface_prefix",
        help="what the names of interfaces begin with",
    )
    host_shim: bool = option(
        False,
        parse.boolean,
        help="let the host itself take part in the network, with the auxiliary "
        "addresses HostShimIPv4 and HostShimIPv6",
    )


def common_problems(network: NetworkInfo, options: ParentOptions) -> list[str]:
    """Return what is wrong with a network that has been asked for."""
    problems = []
    if network.ipam == "null":
        problems.append(
            f"ipam: {network.driver} networks need addresses; 'null' has none"
        )
    problems += parse.interface_problems(
        network, options.mtu, options.container_iface_prefix
    )
    if network.internal and "parent" in network.options:
        problems.append(
            "internal: a network with a parent is not internal: leave one of them out"
        )
    if options.host_shim and network.subnets and not shim_addresses(network):
        names = " or ".join(SHIM_ADDRESSES.values())
        problems.append(
            f"options: host_shim needs an address of the host: aux_addresses {names}"
        )
    return problems


def shim_addresses(network: NetworkInfo) -> tuple[IPAddress, ...]:
    """Return the addresses that the host is to have on a network."""
    return tuple(
        address
        for data in network.ipam_data
        for name, address in data.aux_addresses.items()
        if name == SHIM_ADDRESSES[address.version]
    )
