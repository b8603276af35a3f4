"""Links that are made on top of others, and links that stand for others.

Every function returns a request, as in :mod:`cnm.linux.links`. Constants:
include/uapi/linux/if_link.h.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import InvalidError
from .links import add_link, common_attributes
from .netlink import Request
from .wire import attribute, nested, pack_mac, u16, u32

_IFLA_MACVLAN_MODE = 1
_IFLA_MACVLAN_MACADDR_MODE = 3
_IFLA_MACVLAN_MACADDR = 4
_IFLA_MACVLAN_MACADDR_DATA = 5
_MACVLAN_MACADDR_SET = 3
_IFLA_IPVLAN_MODE = 1
_IFLA_IPVLAN_FLAGS = 2
_IFLA_VLAN_ID = 1

_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8, "source": 16}
_IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
_IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}


def add_macvlan(
    name: str,
    *,
    parent: int,
    mode: str = "bridge",
    index: int = 0,
    netns: int | None = None,
    mac: str = "",
    mtu: int = 0,
    group: int = 0,
    up: bool = False,
    sources: Iterable[str] = (),
) -> Request:
    """Make a macvlan; send it to the namespace of its parent.

    :param parent: index of the parent link
    :param mode: ``"bridge"``, ``"private"``, ``"vepa"``, ``"passthru"``, ``"source"``
    :param netns: file descriptor of the network namespace it is made in
    :param sources: MAC addresses whose frames it gets, in mode ``"source"``
    """
    _check("macvlan mode", mode, _MACVLAN_MODES)
    common = common_attributes(
        mac=mac, mtu=mtu, group=group, netns=netns, parent=parent
    )
    data = u32(_IFLA_MACVLAN_MODE, _MACVLAN_MODES[mode])
    if macs := [attribute(_IFLA_MACVLAN_MACADDR, pack_mac(it)) for it in sources]:
        data += u32(_IFLA_MACVLAN_MACADDR_MODE, _MACVLAN_MACADDR_SET)
        data += nested(_IFLA_MACVLAN_MACADDR_DATA, *macs)
    return add_link("macvlan", name, index, up, common, data)


def add_ipvlan(
    name: str,
    *,
    parent: int,
    mode: str = "l2",
    flag: str = "bridge",
    index: int = 0,
    netns: int | None = None,
    mtu: int = 0,
    up: bool = False,
) -> Request:
    """Make an ipvlan; send it to the namespace of its parent, whose MAC it has.

    :param parent: index of the parent link
    :param mode: ``"l2"``, ``"l3"``, ``"l3s"``; all of a parent have the same
    :param flag: ``"bridge"``, ``"private"``, ``"vepa"``; all of a parent have the same
    :param netns: file descriptor of the network namespace it is made in
    """
    _check("ipvlan mode", mode, _IPVLAN_MODES)
    _check("ipvlan flag", flag, _IPVLAN_FLAGS)
    common = common_attributes(mtu=mtu, netns=netns, parent=parent)
    data = u16(_IFLA_IPVLAN_MODE, _IPVLAN_MODES[mode])
    data += u16(_IFLA_IPVLAN_FLAGS, _IPVLAN_FLAGS[flag])
    return add_link("ipvlan", name, index, up, common, data)


def add_vlan(
    name: str, *, parent: int, identity: int, index: int = 0, up: bool = False
) -> Request:
    """Make a sub-interface for the frames of a VLAN (IEEE 802.1Q).

    :param parent: index of the link that carries the tagged frames
    :param identity: id of the VLAN, 1 to 4094
    """
    if not 1 <= identity <= 4094:
        raise InvalidError(f"vlan id must be between 1-4094, received: {identity}")
    data = u16(_IFLA_VLAN_ID, identity)
    return add_link("vlan", name, index, up, common_attributes(parent=parent), data)


def add_dummy(name: str, *, index: int = 0, up: bool = False) -> Request:
    """Make a link that leads nowhere."""
    return add_link("dummy", name, index, up, b"")


def add_ifb(name: str, *, index: int = 0, up: bool = False) -> Request:
    """Make an intermediate functional block, to which ingress traffic is diverted."""
    return add_link("ifb", name, index, up, b"")


def _check(what: str, word: str, known: dict[str, int]) -> None:
    if word not in known:
        raise InvalidError(f"{what} {word!r} is not one of {', '.join(known)}")
