"""The options of bridge networks."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Literal

from cnm import options as parse
from cnm.driver import (
    InvalidError,
    IPAddress,
    NetworkInfo,
    option,
    parse_options,
)

Mode = Literal["nat", "nat-unprotected", "routed", "isolated"]

_MODE = parse.choice("nat", "nat-unprotected", "routed", "isolated")
_MODES = (
    "nat: endpoints are behind the host's address; nat-unprotected: all their ports "
    "can be reached; routed: published ports are opened at their own addresses; "
    "isolated: the host is not on the network"
)
_PREFIX = "com.docker.network."

#: Auxiliary addresses that stand for the endpoints' gateway, where that is not the
#: bridge (libnetwork, bridge_linux.go).
DEFAULT_GATEWAYS = {4: "DefaultGatewayIPv4", 6: "DefaultGatewayIPv6"}

#: How many times an address is announced (libnetwork, osl/interface_linux.go).
ANNOUNCEMENTS = 3

_LINK_LOCAL = IPv6Network("fe80::/64")


@dataclass(frozen=True, kw_only=True, slots=True)
class BridgeOptions:
    """How a bridge network was asked for; the defaults are libnetwork's."""

    name: str = option(
        "",
        parse.interface,
        label=f"{_PREFIX}bridge.name",
        help="name of the bridge; made from the network's id if empty",
    )
    enable_ip_masquerade: bool = option(
        True,
        parse.boolean,
        label=f"{_PREFIX}bridge.enable_ip_masquerade",
        help="hide endpoints behind the host's address",
    )
    enable_icc: bool = option(
        True,
        parse.boolean,
        label=f"{_PREFIX}bridge.enable_icc",
        help="let endpoints reach each other",
    )
    gateway_mode_ipv4: Mode = option(
        "nat", _MODE, label=f"{_PREFIX}bridge.gateway_mode_ipv4", help=_MODES
    )
    gateway_mode_ipv6: Mode = option(
        "nat", _MODE, label=f"{_PREFIX}bridge.gateway_mode_ipv6", help=_MODES
    )
    inhibit_ipv4: bool = option(
        False,
        parse.boolean,
        label=f"{_PREFIX}bridge.inhibit_ipv4",
        help="give the bridge no IPv4 address",
    )
    mtu: int = option(
        0,
        parse.integer(parse.MTU_LOW, parse.MTU_HIGH),
        label=f"{_PREFIX}driver.mtu",
        help="MTU in bytes, or 0 for the kernel's default",
    )
    container_iface_prefix: str = option(
        "eth",
        parse.interface,
        label=f"{_PREFIX}container_iface_prefix",
        help="what the names of interfaces begin with",
    )
    host_binding_ipv4: IPAddress | None = option(
        None,
        parse.host_address,
        label=f"{_PREFIX}bridge.host_binding_ipv4",
        help="address of the host at which ports are published; an IPv6 address stands "
        "for IPv6 alone",
    )
    host_binding_ipv6: IPv6Address | None = option(
        None,
        parse.ip_address(6),
        label=f"{_PREFIX}bridge.host_binding_ipv6",
        help="the same for IPv6",
    )
    trusted_host_interfaces: tuple[str, ...] = option(
        (),
        parse.interfaces,
        label=f"{_PREFIX}bridge.trusted_host_interfaces",
        help="links by which published ports can be reached at the sandboxes' own "
        "addresses, as well",
    )
    host_ipv4: IPv4Address | None = option(
        None,
        parse.ip_address(4),
        label=f"{_PREFIX}host_ipv4",
        help="source address of outgoing connections, instead of masquerading",
    )
    host_ipv6: IPv6Address | None = option(
        None,
        parse.ip_address(6),
        label=f"{_PREFIX}host_ipv6",
        help="the same for IPv6",
    )
    advertise_addr_nmsgs: int | None = option(
        None,
        parse.integer(0, 3),
        label=f"{_PREFIX}advertise_addr_nmsgs",
        help="how many times addresses are announced; if not given, 3 times, but once "
        "those that nobody has had before",
    )
    advertise_addr_ms: int = option(
        1000,
        parse.integer(100, 2000),
        label=f"{_PREFIX}advertise_addr_ms",
        help="milliseconds between two announcements",
    )
    mac: str = option("", parse.mac, help="the bridge's MAC address; random if empty")

    def mode(self, version: int) -> Mode:
        """Return the gateway mode of a family."""
        return self.gateway_mode_ipv4 if version == 4 else self.gateway_mode_ipv6

    def bridge(self, network: NetworkInfo) -> str:
        """Return the name of the bridge."""
        return self.name or f"br-{network.id[:12]}"


def bridge_options(network: NetworkInfo) -> BridgeOptions:
    """Parse and check the options of a network.

    :raises InvalidError: with everything that is wrong with them
    """
    problems: list[str] = []
    try:
        options = parse_options(BridgeOptions, network.options)
    except InvalidError as exc:
        problems.extend(exc.problems)
        options = BridgeOptions()
    for version, enabled in ((4, network.ipv4), (6, network.ipv6)):
        if options.mode(version) == "isolated" and not network.internal:
            problems.append(
                f"options: gateway_mode_ipv{version}: gateway mode 'isolated' can only "
                "be used for an internal network"
            )
        if not enabled and f"host_ipv{version}" in network.options:
            problems.append(
                f"options: host_ipv{version} is given, but the network has no "
                f"IPv{version}"
            )
    problems += parse.interface_problems(
        network, options.mtu, options.container_iface_prefix
    )
    problems += _subnet_problems(network)
    if problems:
        raise InvalidError(*problems)
    return options


def _subnet_problems(network: NetworkInfo) -> list[str]:
    problems = []
    if network.ipam == "null":
        problems.append("ipam: bridge networks need addresses; 'null' has none")
    for version in (4, 6):
        subnets = [net for net in network.subnets if net.version == version]
        if len(subnets) > 1:
            problems.append(
                "subnets: bridge driver doesn't support multiple subnets: "
                + ", ".join(map(str, subnets))
            )
        problems += [
            f"subnets: '{subnet}' clashes with the Link-Local prefix '{_LINK_LOCAL}'"
            for subnet in subnets
            if isinstance(subnet, IPv6Network)
            and subnet.overlaps(_LINK_LOCAL)
            and subnet != _LINK_LOCAL
        ]
    for version, key in DEFAULT_GATEWAYS.items():
        given = _auxiliary(network, version)
        if given and network.internal:
            problems.append(f"aux_addresses: {key} is not for internal networks")
        if given and given.version != version:
            problems.append(
                f"aux_addresses: {key}: expected an IPv{version} address, not {given}"
            )
    return problems


def _auxiliary(network: NetworkInfo, version: int) -> IPAddress | None:
    key = DEFAULT_GATEWAYS[version]
    found = (data.aux_addresses.get(key) for data in network.ipam_data)
    return next((address for address in found if address), None)


def gateway(
    network: NetworkInfo, options: BridgeOptions, version: int
) -> IPAddress | None:
    """Return the gateway of a network's endpoints, or None if they have none."""
    if network.internal or options.mode(version) == "isolated":
        return None
    own = (data.gateway for data in network.ipam_data if data.subnet.version == version)
    return _auxiliary(network, version) or next(own, None)
