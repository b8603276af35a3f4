"""Links: bridges, veth pairs, and what can be set on links of any kind.

Every function returns a request; nothing happens before a socket sends it. Constants:
include/uapi/linux/if_link.h, if.h, rtnetlink.h.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING

from ..errors import InvalidError
from .netlink import Request
from .wire import (
    LINK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    attribute,
    attributes,
    nested,
    number,
    pack_mac,
    string,
    text,
    u8,
    u32,
    unpack_mac,
)

if TYPE_CHECKING:
    from .netlink import Message

#: Device group of the links that wait to be deleted ("cnmR"). Deleting a link takes
#: 20 ms, nearly all of them spent waiting; deleting a group takes as long as one link.
REAP_GROUP = 0x636E6D52
#: The same for bridges ("cnmS"): each takes 16 ms under the lock that all network
#: configuration shares (rcu_barrier in br_multicast_dev_del), in a group as well: so
#: they go one by one, or a few at a time.
REAP_SINGLY_GROUP = 0x636E6D53
#: Device group of bridges that a controller has made ("cnmB"), whichever it is.
BRIDGE_GROUP = 0x636E6D42

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
#: multicast group of links
RTNLGRP_LINK = 1

IFF_UP = 1
_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINK = 5
_IFLA_MASTER = 10
IFLA_LINKINFO = 18
_IFLA_IFALIAS = 20
_IFLA_AF_SPEC = 26
IFLA_GROUP = 27
_IFLA_NET_NS_FD = 28
_IFLA_EXT_MASK = 29
_RTEXT_FILTER_SKIP_STATS = 8
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_VETH_INFO_PEER = 1
_IFLA_INET_CONF = 1
_IFLA_INET6_ADDR_GEN_MODE = 8

_ADDRESS_GENERATION = {"eui64": 0, "none": 1}

# IPV4_DEVCONF_..., include/uapi/linux/ip.h, by the name in /proc/sys/net/ipv4/conf
_IPV4_SETTINGS = {
    "forwarding": 1,
    "proxy_arp": 3,
    "accept_redirects": 4,
    "send_redirects": 6,
    "rp_filter": 8,
    "arp_announce": 18,
    "arp_ignore": 19,
    "arp_accept": 21,
    "arp_notify": 22,
    "accept_local": 23,
    "proxy_arp_pvlan": 25,
    "route_localnet": 26,
}

_FEATURES = {
    "bridge": "CONFIG_BRIDGE",
    "veth": "CONFIG_VETH",
    "macvlan": "CONFIG_MACVLAN",
    "ipvlan": "CONFIG_IPVLAN",
    "vlan": "CONFIG_VLAN_8021Q",
    "dummy": "CONFIG_DUMMY",
    "ifb": "CONFIG_IFB",
}

# Statistics are most of what the kernel says about a link.
_WITHOUT_STATISTICS = u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)

# Chosen indexes spare a look-up after a link has been made. Small ones are the
# kernel's.
_indexes = itertools.count(random.randrange(1 << 20, 1 << 24))


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A link, as the kernel describes it.

    :ivar kind: ``"bridge"``, ``"veth"`` ...; ``""`` for hardware and loopback
    :ivar master: index of the bridge it is a port of, 0 if it is none
    :ivar link_index: index of the parent, or of a veth's other end; 0 if it has none
    :ivar up: whether it has been switched on
    """

    index: int
    name: str
    kind: str = ""
    mac: str = ""
    mtu: int = 0
    master: int = 0
    alias: str = ""
    group: int = 0
    link_index: int = 0
    up: bool = False


def choose_index() -> int:
    """Return an index for a new link, never the same twice in this process.

    Somebody else may have it: the kernel then answers EEXIST, or EBUSY for the other
    end of a veth pair, and leaves nothing behind. Safe to call from any thread.
    """
    return next(_indexes)


def parse_link(message: Message) -> Link:
    """Return what a message of type RTM_NEWLINK or RTM_DELLINK describes."""
    _, _, index, flags, _ = LINK.unpack_from(message.body)
    found = attributes(message.body, LINK.size)
    return Link(
        index=index,
        name=text(found.get(_IFLA_IFNAME)),
        kind=text(attributes(found.get(IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND)),
        mac=unpack_mac(found.get(_IFLA_ADDRESS)),
        mtu=number(found.get(_IFLA_MTU)),
        master=number(found.get(_IFLA_MASTER)),
        alias=text(found.get(_IFLA_IFALIAS)),
        group=number(found.get(IFLA_GROUP)),
        link_index=number(found.get(_IFLA_LINK)),
        up=bool(flags & IFF_UP),
    )


def parse_alias(message: Message) -> str:
    """Return the alias of a link, in half the time that all of it takes."""
    return text(attributes(message.body, LINK.size).get(_IFLA_IFALIAS))


def add_bridge(
    name: str,
    *,
    index: int = 0,
    mac: str = "",
    mtu: int = 0,
    group: int = 0,
    up: bool = False,
) -> Request:
    """Make a bridge, without spanning tree.

    :param mac: its address; without one it changes as ports come and go
    """
    shared = common_attributes(mac=mac, mtu=mtu, group=group)
    return add_link("bridge", name, index, up, shared)


def add_veth(
    name: str,
    peer: str,
    *,
    index: int = 0,
    peer_index: int = 0,
    peer_netns: int | None = None,
    master: int = 0,
    mtu: int = 0,
    mac: str = "",
    peer_mac: str = "",
    group: int = 0,
    up: bool = True,
) -> Request:
    """Make a veth pair; its other end may be in another namespace from the start.

    The other end is down: the kernel refuses to make it up.

    :param peer_netns: file descriptor of the other end's network namespace
    :param master: index of the bridge that the first end becomes a port of
    :param mtu: MTU of both ends
    :param up: whether the first end is up
    """
    if peer_index and not index:
        # veth.c ignores the other end's index unless the first's is chosen, too
        index = choose_index()
    other = LINK.pack(0, 0, peer_index, 0, 0) + string(_IFLA_IFNAME, peer)
    other += common_attributes(mac=peer_mac, mtu=mtu, netns=peer_netns)
    shared = common_attributes(mac=mac, mtu=mtu, group=group, master=master)
    return add_link("veth", name, index, up, shared, nested(_VETH_INFO_PEER, other))


def common_attributes(
    *,
    mac: str = "",
    mtu: int = 0,
    group: int = 0,
    master: int = 0,
    netns: int | None = None,
    parent: int = 0,
) -> bytes:
    """Return the attributes that all kinds of links have, without those not given."""
    parts = b""
    if parent:
        parts += u32(_IFLA_LINK, parent)
    if mac:
        parts += attribute(_IFLA_ADDRESS, pack_mac(mac))
    if mtu:
        parts += u32(_IFLA_MTU, mtu)
    if group:
        parts += u32(IFLA_GROUP, group)
    if master:
        parts += u32(_IFLA_MASTER, master)
    if netns is not None:
        parts += u32(_IFLA_NET_NS_FD, netns)
    return parts


def add_link(
    kind: str, name: str, index: int, up: bool, common: bytes, data: bytes = b""
) -> Request:
    """Return the request for a link.

    :param common: what :func:`common_attributes` returns
    :param data: attributes of its kind
    """
    flags = IFF_UP if up else 0
    info = string(_IFLA_INFO_KIND, kind)
    if data:
        info += nested(_IFLA_INFO_DATA, data)
    body = (
        LINK.pack(0, 0, index, flags, flags)
        + string(_IFLA_IFNAME, name)
        + common
        + nested(IFLA_LINKINFO, info)
    )
    flags = NLM_F_CREATE | NLM_F_EXCL
    return Request(RTM_NEWLINK, flags, body, f"add {kind} {name}", _FEATURES[kind])


def set_link(
    index: int = 0,
    *,
    name: str = "",
    up: bool | None = None,
    rename: str = "",
    mac: str = "",
    mtu: int = 0,
    master: int | None = None,
    group: int | None = None,
    alias: str | None = None,
    netns: int | None = None,
    address_generation: str | None = None,
) -> Request:
    """Change a link.

    :param name: which link, if index is 0
    :param rename: its new name; needs the index
    :param master: index of the bridge it becomes a port of, 0 to take it off
    :param netns: file descriptor of the network namespace it moves to
    :param address_generation: ``"none"`` or ``"eui64"``: whether it gets an IPv6
        link-local address by itself when it is switched on
    """
    if rename and not index:
        # a message has room for one name, and that would be the new one
        raise InvalidError(f"link {name!r} can be renamed to {rename!r} by index only")
    parts = [_selector(index, name, up)]
    if rename:
        parts.append(string(_IFLA_IFNAME, rename))
    parts.append(common_attributes(mac=mac, mtu=mtu, netns=netns))
    if master is not None:
        parts.append(u32(_IFLA_MASTER, master))
    if group is not None:
        parts.append(u32(IFLA_GROUP, group))
    if alias is not None:
        parts.append(string(_IFLA_IFALIAS, alias))
    if address_generation is not None:
        parts.append(_address_generation(address_generation))
    return Request(RTM_NEWLINK, 0, b"".join(parts), f"set link {name or index}")


def set_ipv4_configuration(index: int, **settings: int) -> Request:
    """Change a link's IPv4 settings, without writing to /proc/sys.

    :param settings: by their names in /proc/sys/net/ipv4/conf/LINK, such as
        ``route_localnet=1``
    :raises InvalidError: if a name is not known
    """
    if unknown := settings.keys() - _IPV4_SETTINGS.keys():
        raise InvalidError(
            *(f"unknown IPv4 setting {name!r}" for name in sorted(unknown)),
            f"known are {', '.join(_IPV4_SETTINGS)}",
        )
    values = [u32(_IPV4_SETTINGS[name], value) for name, value in settings.items()]
    configuration = nested(AF_INET, nested(_IFLA_INET_CONF, *values))
    body = _selector(index, "", None) + nested(_IFLA_AF_SPEC, configuration)
    return Request(RTM_NEWLINK, 0, body, f"set IPv4 configuration of link {index}")


def delete_link(index: int = 0, *, name: str = "", group: int | None = None) -> Request:
    """Delete a link, or all links of a device group.

    It waits for an RCU grace period: 20 ms, for one link as for a whole group.
    """
    body = _selector(index, name, None)
    if group is not None:
        body += u32(IFLA_GROUP, group)
    what = f"link {name or index}" if group is None else f"links of group {group:#x}"
    return Request(RTM_DELLINK, 0, body, f"delete {what}")


def get_link(index: int = 0, *, name: str = "") -> Request:
    """Ask for one link; the answer is for :func:`parse_link`."""
    body = _selector(index, name, None) + _WITHOUT_STATISTICS
    return Request(RTM_GETLINK, 0, body, f"get link {name or index}")


def dump_links(*, master: int = 0) -> Request:
    """Ask for all links, or for the ports of a bridge; each is for parse_link()."""
    body = LINK.pack(0, 0, 0, 0, 0) + _WITHOUT_STATISTICS
    if master:
        body += u32(_IFLA_MASTER, master)
    return Request(RTM_GETLINK, 0, body, "list links")


def _selector(index: int, name: str, up: bool | None) -> bytes:
    """Return the header that says which link is meant, and whether it is to be up."""
    flags = IFF_UP if up else 0
    header = LINK.pack(0, 0, index, flags, 0 if up is None else IFF_UP)
    return header if index else header + (string(_IFLA_IFNAME, name) if name else b"")


def _address_generation(mode: str) -> bytes:
    if mode not in _ADDRESS_GENERATION:
        known = ", ".join(_ADDRESS_GENERATION)
        raise InvalidError(f"address generation {mode!r} is not one of {known}")
    value = u8(_IFLA_INET6_ADDR_GEN_MODE, _ADDRESS_GENERATION[mode])
    return nested(_IFLA_AF_SPEC, nested(AF_INET6, value))
