"""A network that is asked for: checked, and normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .. import validation as check
from ..errors import ForbiddenError
from ..types import JSON, IPAddress, IPNetwork
from ..validation import Faults
from .reserved import unusable


@dataclass(frozen=True, kw_only=True, slots=True)
class SubnetRequest:
    """One subnet of a network that is asked for.

    :ivar subnet: None for any; with an address of zero, any of that size
    """

    version: int
    subnet: IPNetwork | None = None
    ip_range: IPNetwork | None = None
    gateway: IPAddress | None = None
    aux_addresses: Mapping[str, IPAddress]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkRequest:
    """A network that is asked for."""

    name: str
    driver: str
    subnets: tuple[SubnetRequest, ...]
    ipam: str
    ipam_options: Mapping[str, JSON]
    internal: bool
    attachable: bool
    ipv4: bool
    ipv6: bool
    labels: Mapping[str, str]
    options: Mapping[str, JSON]
    config_only: bool
    config_from: str
    problems: tuple[str, ...] = ()


def network_request(
    name: object,
    *,
    driver: object,
    subnets: object,
    gateways: object,
    ip_ranges: object,
    aux_addresses: object,
    ipam: object,
    ipam_options: object,
    internal: object,
    attachable: object,
    ipv4: object,
    ipv6: object,
    labels: object,
    options: object,
    config_only: object,
    config_from: object,
) -> NetworkRequest:
    """Check the parameters of a network.

    :return: what is asked for; if it has problems, as far as it is understood
    :raises ForbiddenError: if they do not go with config_only or config_from
    """
    faults = Faults()
    checked_name = faults.parse("name", check.name, name)
    blocks = faults.each("subnets", check.subnet, subnets)
    chosen_subnets = _subnets(faults, blocks, gateways, ip_ranges, aux_addresses)
    wants4 = faults.flag("ipv4", ipv4)
    has6 = any(block.version == 6 for block in blocks)
    wants6 = has6 if ipv6 is None else faults.flag("ipv6", ipv6)
    is_config = faults.flag("config_only", config_only)
    if not wants4 and not wants6:
        faults.add("ipv4, ipv6: IPv4 or IPv6 must be enabled")
    for version, wanted in ((4, wants4), (6, wants6)):
        given = [block for block in blocks if block.version == version]
        if given and not wanted:
            faults.add(f"subnets: {given[0]} is given, but ipv{version} is False")
        if not given and wanted:
            chosen_subnets.append(SubnetRequest(version=version, aux_addresses={}))
    request = NetworkRequest(
        name=checked_name or "",
        driver=faults.parse("driver", check.name, driver) or "",
        subnets=tuple(sorted(chosen_subnets, key=lambda s: s.version)),
        ipam=faults.parse("ipam", check.name, ipam) or "",
        ipam_options=faults.mapping("ipam_options", check.json, ipam_options),
        internal=faults.flag("internal", internal),
        attachable=faults.flag("attachable", attachable),
        ipv4=wants4,
        ipv6=wants6,
        labels=faults.mapping("labels", check.text, labels),
        options=faults.mapping("options", check.json, options),
        config_only=is_config,
        config_from=""
        if config_from == ""
        else faults.parse("config_from", check.name, config_from) or "",
    )
    if faults.problems:
        return replace(request, problems=faults.problems)
    if config_only or config_from:
        _check_config(request, bool(blocks))
    return request


def _check_config(request: NetworkRequest, has_subnets: bool) -> None:
    """Apply libnetwork's rules for configuration networks (Network.validate)."""
    if request.config_only:
        if request.internal or request.attachable:
            raise ForbiddenError(
                "configuration network can only contain network specific fields. "
                "Network operator fields like [ internal | attachable ] are not "
                "supported."
            )
        if request.config_from:
            raise ForbiddenError(
                "a configuration network cannot depend on another configuration network"
            )
    elif (
        has_subnets
        or request.ipam != "default"
        or request.ipam_options
        or request.labels
        or not request.ipv4
        or request.ipv6
    ):
        raise ForbiddenError(
            "user-specified configurations are not supported if the network depends "
            "on a configuration network"
        )
    elif request.options:
        raise ForbiddenError(
            "network driver options are not supported if the network depends on a "
            "configuration network"
        )


def _subnets(
    faults: Faults,
    blocks: tuple[IPNetwork, ...],
    gateways: object,
    ip_ranges: object,
    aux_addresses: object,
) -> list[SubnetRequest]:
    """Put together what belongs to one subnet."""
    for index, block in enumerate(blocks):
        if problem := unusable(block):
            faults.add(f"subnets: {problem}")
        for other in blocks[:index]:
            if block.version == other.version and block.overlaps(other):
                faults.add(f"subnets: {block} overlaps {other}")
    gateway_of: dict[IPNetwork, IPAddress] = {}
    range_of: dict[IPNetwork, IPNetwork] = {}
    aux_of: dict[IPNetwork, dict[str, IPAddress]] = {}
    fixed = [block for block in blocks if int(block.network_address)]
    for gateway in faults.each("gateways", check.address, gateways):
        parent = _parent(faults, f"invalid gateway {gateway}", gateway, fixed)
        if parent is None:
            continue
        if parent in gateway_of:
            faults.add(
                f"gateways: {gateway} and {gateway_of[parent]} are both of {parent}"
            )
        else:
            gateway_of[parent] = gateway
    for ip_range in faults.each("ip_ranges", check.ip_range, ip_ranges):
        parent = _range_parent(faults, ip_range, fixed)
        if parent is None:
            continue
        if parent in range_of:
            faults.add(
                f"ip_ranges: {ip_range} and {range_of[parent]} are both of {parent}"
            )
        else:
            range_of[parent] = ip_range
    for key, aux in faults.mapping(
        "aux_addresses", check.address, aux_addresses
    ).items():
        parent = _parent(faults, f"invalid auxiliary address {key}: {aux}", aux, fixed)
        if parent:
            aux_of.setdefault(parent, {})[key] = aux
    return [
        SubnetRequest(
            version=block.version,
            subnet=block,
            ip_range=range_of.get(block),
            gateway=gateway_of.get(block),
            aux_addresses=aux_of.get(block, {}),
        )
        for block in blocks
    ]


def _parent(
    faults: Faults, what: str, address: IPAddress, blocks: list[IPNetwork]
) -> IPNetwork | None:
    for block in blocks:
        if address in block:
            return block
    given = ", ".join(map(str, blocks))
    faults.add(
        f"{what}: parent subnet {given} doesn't contain this address"
        if blocks
        else f"{what}: it needs a subnet that contains it"
    )
    return None


def _range_parent(
    faults: Faults, ip_range: IPNetwork, blocks: list[IPNetwork]
) -> IPNetwork | None:
    what = f"invalid ip-range {ip_range}"
    for block in blocks:
        if block.version != ip_range.version or not block.overlaps(ip_range):
            continue
        if ip_range.prefixlen < block.prefixlen:
            faults.add(f"{what}: CIDR block is bigger than its parent subnet {block}")
            return None
        return block
    given = ", ".join(map(str, blocks))
    faults.add(
        f"{what}: parent subnet {given} doesn't contain ip-range"
        if blocks
        else f"{what}: it needs a subnet that contains it"
    )
    return None
