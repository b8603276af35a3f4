"""The bridge of a network: blocking plans that make it and remove it."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from cnm.driver import (
    ConflictError,
    InvalidError,
    IPAddress,
    IPInterface,
    NetlinkError,
    NetworkInfo,
)
from cnm.firewall import Firewall, NetworkRules, open_forwarding
from cnm.linux import (
    BRIDGE_GROUP,
    REAP_SINGLY_GROUP,
    Link,
    Request,
    Sockets,
    add_address,
    add_bridge,
    choose_index,
    delete_address,
    delete_link,
    dump_addresses,
    get_link,
    link_local_address,
    parse_address,
    parse_link,
    set_ipv4_configuration,
    set_link,
    sysctl,
)

from .options import BridgeOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class Bridge:
    """The bridge of a network, as it is or is to be.

    :ivar mark: alias by which the link is known to be ours
    :ivar index: index of the link, 0 while it is to be made
    :ivar made: whether it was made for the network, rather than found
    :ivar added: addresses that it was given for the network
    """

    name: str
    mark: str
    index: int = 0
    made: bool = True
    added: tuple[IPInterface, ...] = ()


def addresses(network: NetworkInfo, options: BridgeOptions) -> list[IPInterface]:
    """Return the addresses that the bridge of a network has."""
    result: list[IPInterface] = []
    for data in network.ipam_data:
        version = data.subnet.version
        if data.gateway is None or options.mode(version) == "isolated":
            continue
        if version == 4 and options.inhibit_ipv4:
            continue
        result.append(_interface(data.gateway, data.subnet.prefixlen))
    return result


def _interface(address: IPAddress, prefix: int) -> IPInterface:
    return ipaddress.ip_interface((address, prefix))


def rules(
    network: NetworkInfo, options: BridgeOptions, *, direct: bool
) -> NetworkRules:
    """Return what the firewall has to know of a network.

    :param direct: whether all links may be used to reach the sandboxes' own addresses
    """
    subnets = network.subnets
    return NetworkRules(
        interface=options.bridge(network),
        subnets4=tuple(s for s in subnets if isinstance(s, ipaddress.IPv4Network)),
        subnets6=tuple(s for s in subnets if isinstance(s, ipaddress.IPv6Network)),
        internal=network.internal,
        icc=options.enable_icc,
        mode4=options.gateway_mode_ipv4 if network.ipv4 else None,
        mode6=options.gateway_mode_ipv6 if network.ipv6 else None,
        masquerade=options.enable_ip_masquerade,
        snat4=options.host_ipv4,
        snat6=options.host_ipv6,
        trusted=options.trusted_host_interfaces,
        direct=direct,
    )


def build(
    sockets: Sockets,
    firewall: Firewall,
    network: NetworkInfo,
    wanted: NetworkRules,
    options: BridgeOptions,
    mark: str,
) -> Bridge:
    """Plan: make the bridge of a network, or use the one that is there.

    Nothing is left behind if it fails.
    """
    name = options.bridge(network)
    link = find(sockets, name)
    if link is None:
        bridge = make(sockets, network, options, Bridge(name=name, mark=mark))
    else:
        bridge = _use(sockets, network, options, link, mark)
    try:
        forward(sockets, firewall, network, options)
        firewall.update(sockets, add=wanted.elements())
    except BaseException:
        _drop(sockets, bridge)
        raise
    return bridge


def find(sockets: Sockets, name: str) -> Link | None:
    """Return the link of a name, or None."""
    try:
        return parse_link(sockets.route.call(get_link(name=name))[0])
    except NetlinkError as exc:
        if exc.errno == errno.ENODEV:
            return None
        raise


def make(
    sockets: Sockets, network: NetworkInfo, options: BridgeOptions, bridge: Bridge
) -> Bridge:
    """Make a bridge; nothing is left behind if it fails."""
    # With an address of its own, a bridge keeps it when ports come and go. One that is
    # made again has the same: the sandboxes remember where their gateway is.
    mac = options.mac or "02:" + bytes.fromhex(network.id[-10:]).hex(":")
    index = _add(sockets, bridge, mac, options.mtu)
    try:
        _settle_ipv6(sockets, bridge.name, network, options)
        wanted = addresses(network, options)
        # The kernel's own link-local address would be on trial for a second or two,
        # and nothing of IPv6 be forwarded to the bridge meanwhile.
        has_ipv6 = any(address.version == 6 for address in wanted)
        own = [link_local_address(mac)] if has_ipv6 else []
        sockets.route.call(
            set_link(index, address_generation="none" if has_ipv6 else None),
            *_only_from_here(index, network),
            set_link(index, up=True),
            *(add_address(index, address) for address in wanted + own),
        )
    except BaseException:
        sockets.route.call(delete_link(index))
        raise
    return Bridge(name=bridge.name, mark=bridge.mark, index=index, added=tuple(wanted))


def _only_from_here(index: int, network: NetworkInfo) -> list[Request]:
    """Have the host take from internal networks only what comes from their subnets.

    Of an isolated network the host knows no subnet, and takes nothing. From other
    networks sandboxes may send what is from another one that they are in.
    """
    return [set_ipv4_configuration(index, rp_filter=1)] if network.internal else []


def _add(sockets: Sockets, bridge: Bridge, mac: str, mtu: int) -> int:
    """Make a link, with the index that it had before if that is free."""
    index = bridge.index
    if not index or _is_taken(sockets, index):
        index = choose_index()
    # in one system call: it is never there without its mark
    sockets.route.call(
        add_bridge(bridge.name, index=index, mac=mac, mtu=mtu, group=BRIDGE_GROUP),
        set_link(index, alias=bridge.mark),
    )
    return index


def _is_taken(sockets: Sockets, index: int) -> bool:
    try:
        sockets.route.call(get_link(index))
    except NetlinkError as exc:
        if exc.errno != errno.ENODEV:
            raise
        return False
    return True


def _settle_ipv6(
    sockets: Sockets, name: str, network: NetworkInfo, options: BridgeOptions
) -> None:
    """Keep endpoints from configuring the host (CVE-2020-13401)."""
    proc = sockets.procfs.path()
    if network.ipv6 and options.gateway_mode_ipv6 != "isolated":
        sysctl.ignore_router_advertisements(name, proc)
    else:
        sysctl.disable_ipv6(name, proc)


def _use(
    sockets: Sockets,
    network: NetworkInfo,
    options: BridgeOptions,
    link: Link,
    mark: str,
) -> Bridge:
    """Use a bridge that somebody else has made, and that stays."""
    if link.kind != "bridge":
        raise InvalidError(f"options: existing interface {link.name!r} is not a bridge")
    if link.alias.startswith("cnm:"):
        raise ConflictError(f"bridge {link.name!r} belongs to {link.alias!r}")
    present = present_addresses(sockets, link.index)
    added = tuple(lacking(addresses(network, options), present))
    bridge = Bridge(
        name=link.name, mark=mark, index=link.index, made=False, added=added
    )
    try:
        # a batch goes on after an error: its MTU is changed when the rest has succeeded
        sockets.route.call(
            set_link(link.index, up=True),
            *(add_address(link.index, address) for address in added),
        )
        if options.mtu:
            sockets.route.call(set_link(link.index, mtu=options.mtu))
    except BaseException:
        _drop(sockets, bridge)
        raise
    return bridge


def forward(
    sockets: Sockets, firewall: Firewall, network: NetworkInfo, options: BridgeOptions
) -> None:
    """Have the host forward what comes from the network and goes to it."""
    if network.internal:
        return
    for version, enabled in ((4, network.ipv4), (6, network.ipv6)):
        if enabled and options.mode(version) != "isolated":
            open_forwarding(sockets, firewall, version)


def foreign(sockets: Sockets, name: str) -> list[str] | None:
    """Plan: return the addresses of a bridge that is there; None if it is not."""
    link = find(sockets, name)
    if link is None:
        return None
    return sorted(map(str, present_addresses(sockets, link.index)))


def unfinished(
    sockets: Sockets,
    network: NetworkInfo,
    options: BridgeOptions,
    before: list[str] | None,
    mark: str,
) -> Bridge:
    """Plan: return what there may be of a bridge whose making was interrupted.

    :param before: the addresses of a bridge that was there already, or None
    """
    name = options.bridge(network)
    link = find(sockets, name)
    if link is None or (before is None and link.alias != mark):
        return Bridge(name=name, mark=mark, made=False)
    if before is None:
        return Bridge(name=name, mark=mark, index=link.index)
    present = frozenset(map(ipaddress.ip_interface, before))
    added = tuple(lacking(addresses(network, options), present))
    return Bridge(name=name, mark=mark, index=link.index, made=False, added=added)


def present_addresses(sockets: Sockets, index: int) -> frozenset[IPInterface]:
    """Return the addresses that a link has."""
    return frozenset(
        address.interface
        for message in sockets.route.dump(dump_addresses(index))
        if (address := parse_address(message)).index == index
    )


def lacking(
    wanted: Iterable[IPInterface], present: Collection[IPInterface]
) -> list[IPInterface]:
    """Return the addresses that a link has not.

    It can have an IPv6 address once only, whatever the prefix.
    """
    own6 = {it.ip for it in present if it.version == 6}
    return [it for it in wanted if it not in present and it.ip not in own6]


def remove(
    sockets: Sockets, firewall: Firewall, bridge: Bridge, wanted: NetworkRules
) -> None:
    """Plan: remove the bridge, if it was made for the network, and its rules.

    No error if they are gone.
    """
    firewall.update(sockets, remove=wanted.elements())
    _drop(sockets, bridge)


def _drop(sockets: Sockets, bridge: Bridge) -> None:
    if bridge.made:
        # The reaper deletes it; until then its name must be free for another.
        requests = [
            set_link(bridge.index, up=False, group=REAP_SINGLY_GROUP),
            set_link(bridge.index, rename=f"cnm{bridge.index}"),
        ]
    else:
        requests = [delete_address(bridge.index, a) for a in bridge.added]
    try:
        if requests:
            sockets.route.call(*requests)
    except NetlinkError as exc:
        gone = (errno.ENODEV, errno.EADDRNOTAVAIL)
        if any(error.errno not in gone for error in (exc, *exc.others)):
            raise
