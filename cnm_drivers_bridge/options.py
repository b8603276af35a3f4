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
    Option,
    parse_options,
)

Mode = Literal["nat", "nat-unprotected", "routed", "isolated"]

_MODE = parse.choice("nat", "nat-unprotected", "routed", "isolated")
_PREFIX = "com.docker.network."

#: The kernel's bounds for Ethernet (ETH_MIN_MTU, ETH_MAX_MTU), and IPv6's own
#: (RFC 8200, section 5).
MTU_LOW, MTU_LOW_IPV6, MTU_HIGH = 68, 1280, 65535

OPTIONS = (
    Option("name", parse.interface, f"{_PREFIX}bridge.name"),
    Option(
        "enable_ip_masquerade",
        parse.boolean,
        f"{_PREFIX}bridge.enable_ip_masquerade",
    ),
    Option("enable_icc", parse.boolean, f"{_PREFIX}bridge.enable_icc"),
    Option("gateway_mode_ipv4", _MODE, f"{_PREFIX}bridge.gateway_mode_ipv4"),
    Option("gateway_mode_ipv6", _MODE, f"{_PREFIX}bridge.gateway_mode_ipv6"),
    Option("inhibit_ipv4", parse.boolean, f"{_PREFIX}bridge.inhibit_ipv4"),
    Option("mtu", parse.integer(MTU_LOW, MTU_HIGH), f"{_PREFIX}driver.mtu"),
    Option(
        "container_iface_prefix", parse.interface, f"{_PREFIX}container_iface_prefix"
    ),
    Option(
        "host_binding_ipv4", parse.host_address, f"{_PREFIX}bridge.host_binding_ipv4"
    ),
    Option(
        "host_binding_ipv6", parse.ip_address(6), f"{_PREFIX}bridge.host_binding_ipv6"
    ),
    Option(
        "trusted_host_interfaces",
        parse.interfaces,
        f"{_PREFIX}bridge.trusted_host_interfaces",
    ),
    Option("host_ipv4", parse.ip_address(4), f"{_PREFIX}host_ipv4"),
    Option("host_ipv6", parse.ip_address(6), f"{_PREFIX}host_ipv6"),
    Option(
        "advertise_addr_nmsgs",
        parse.integer(0, 3),
        f"{_PREFIX}advertise_addr_nmsgs",
    ),
    Option(
        "advertise_addr_ms", parse.integer(100, 2000), f"{_PREFIX}advertise_addr_ms"
    ),
    Option("mac", parse.mac),
)

#: Auxiliary addresses that stand for the endpoints' gateway, where that is not the
#: bridge (libnetwork, bridge_linux.go).
DEFAULT_GATEWAYS = {4: "DefaultGatewayIPv4", 6: "DefaultGatewayIPv6"}

_LINK_LOCAL = IPv6Network("fe80::/64")


@dataclass(frozen=True, kw_only=True, slots=True)
class BridgeOptions:
    """How a bridge network was asked for; the defaults are libnetwork's.

    :ivar name: name of the bridge; made from the network's id if empty
    :ivar enable_ip_masquerade: hide endpoints behind the host's address
    :ivar enable_icc: let endpoints reach each other
    :ivar inhibit_ipv4: give the bridge no IPv4 address
    :ivar mtu: MTU in bytes, or 0 for the kernel's default
    :ivar host_binding_ipv4: address of the host at which ports are published; an IPv6
        address stands for IPv6 alone
    :ivar trusted_host_interfaces: links by which published ports can be reached at the
        sandboxes' own addresses, as well
    :ivar host_ipv4: source address of outgoing connections, instead of masquerading
    :ivar advertise_addr_nmsgs: how many times addresses are announced
    :ivar advertise_addr_ms: milliseconds between two announcements
    :ivar mac: the bridge's MAC address; random if empty
    """

    name: str = ""
    enable_ip_masquerade: bool = True
    enable_icc: bool = True
    gateway_mode_ipv4: Mode = "nat"
    gateway_mode_ipv6: Mode = "nat"
    inhibit_ipv4: bool = False
    mtu: int = 0
    container_iface_prefix: str = "eth"
    host_binding_ipv4: IPAddress | None = None
    host_binding_ipv6: IPv6Address | None = None
    trusted_host_interfaces: tuple[str, ...] = ()
    host_ipv4: IPv4Address | None = None
    host_ipv6: IPv6Address | None = None
    advertise_addr_nmsgs: int = 3
    advertise_addr_ms: int = 1000
    mac: str = ""

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
        options = BridgeOptions(**parse_options(OPTIONS, network.options))
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
    if network.ipv6 and 0 < options.mtu < MTU_LOW_IPV6:
        problems.append(
            f"options: mtu {options.mtu} is too small: IPv6 needs {MTU_LOW_IPV6}"
        )
    if len(options.container_iface_prefix) > 11:
        problems.append(
            f"options: container_iface_prefix {options.container_iface_prefix!r} "
            "leaves no room for a number: expected at most 11 characters"
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
        if network.internal and _auxiliary(network, version):
            problems.append(f"aux_addresses: {key} is not for internal networks")
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
