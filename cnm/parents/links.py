"""The links that a network on a parent needs in the host's namespace: plans."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ..errors import ConflictError, InvalidError, NetlinkError
from ..linux import (
    Link,
    Request,
    Sockets,
    add_address,
    add_dummy,
    add_route,
    add_vlan,
    choose_index,
    delete_link,
    get_link,
    parse_link,
    set_link,
    sysctl,
)
from ..types import IPAddress, IPInterface
from .options import vlan_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a network needs in the host's namespace.

    A link whose alias is a mark has been made by a driver of this controller, and goes
    with the network that the mark names.

    :ivar parent: name of the parent
    :ivar dummy: whether the parent is one that leads nowhere
    :ivar owner: what the marks of the controller's networks begin with
    :ivar mark: the network's mark
    :ivar marks: marks of the driver's networks that are on the parent, if one that is
        there for others is not to be used
    :ivar mtu: MTU of the endpoints, 0 for the parent's
    :ivar shim: name of the host's own link on the parent, or ``""``
    :ivar make_shim: returns the request that makes it on a parent of that index
    :ivar addresses: the host's addresses on it
    """

    parent: str
    dummy: bool
    owner: str
    mark: str
    marks: frozenset[str] | None = None
    mtu: int = 0
    shim: str = ""
    make_shim: Callable[[str, int, int], Request]
    addresses: tuple[IPAddress, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Present:
    """What a network has in the host's namespace.

    :ivar made: indexes of the links that are there because of the network
    :ivar shim: index of the host's own link, or 0
    """

    parent: int
    made: tuple[int, ...]
    shim: int = 0


def find(sockets: Sockets, name: str) -> Link | None:
    """Plan: return the link of a name, or None."""
    try:
        return parse_link(sockets.route.call(get_link(name=name))[0])
    except NetlinkError as exc:
        if exc.errno != errno.ENODEV:
            raise
        return None


def take_up(
    sockets: Sockets, wanted: Wanted, endpoints: Iterable[IPInterface] = ()
) -> Present:
    """Plan: find what a network needs, and make what is not there.

    :param endpoints: addresses that the host is to reach by its own link
    """
    parent = _parent(sockets, wanted)
    if wanted.mtu > parent.mtu:
        raise InvalidError(
            f"options: mtu {wanted.mtu} is more than that of the parent "
            f"{parent.name}: expected at most {parent.mtu}"
        )
    made = (parent.index,) if _is_made(parent, wanted.owner) else ()
    if not wanted.shim:
        return Present(parent.index, made)
    shim = _shim(sockets, wanted, parent, endpoints)
    return Present(parent.index, (*made, shim), shim)


def _parent(sockets: Sockets, wanted: Wanted) -> Link:
    link = find(sockets, wanted.parent)
    if link is None:
        index = choose_index()
        sockets.route.call(
            _new_parent(sockets, wanted, index), set_link(index, alias=wanted.mark)
        )
        link = find(sockets, wanted.parent)
        assert link is not None
    ours = _is_made(link, wanted.owner)
    if wanted.dummy and not ours:
        raise ConflictError(f"link {wanted.parent} belongs to somebody else")
    if wanted.marks is not None and _is_made(link) and link.alias not in wanted.marks:
        raise ConflictError(
            f"parent {link.name} belongs to {link.alias!r}: it goes with a network of "
            "another driver or controller"
        )
    if ours and not link.up:
        sysctl.ignore_router_advertisements(link.name, sockets.procfs.path())
        sockets.route.call(set_link(link.index, up=True))
    return link


def _is_made(link: Link, owner: str = "cnm:") -> bool:
    """Tell whether a link has been made for networks to be on it; bridges have not."""
    return link.alias.startswith(owner) and link.kind != "bridge"


def _new_parent(sockets: Sockets, wanted: Wanted, index: int) -> Request:
    if wanted.dummy:
        return add_dummy(wanted.parent, index=index)
    vlan = vlan_of(wanted.parent)
    if vlan is None:
        raise InvalidError(
            f"options: parent: there is no link {wanted.parent!r} on the host; a name "
            "like eth0.50 stands for VLAN 50 on eth0"
        )
    if not 1 <= vlan[1] <= 4094:
        raise InvalidError(
            f"options: parent: there is no link {wanted.parent!r} on the host, and no "
            f"VLAN: vlan id must be between 1-4094, received: {vlan[1]}"
        )
    master = find(sockets, vlan[0])
    if master is None:
        raise InvalidError(
            f"options: parent: there is no link {vlan[0]!r} on the host that could "
            f"carry {wanted.parent!r}"
        )
    return add_vlan(wanted.parent, parent=master.index, identity=vlan[1], index=index)


def _shim(
    sockets: Sockets, wanted: Wanted, parent: Link, endpoints: Iterable[IPInterface]
) -> int:
    link = find(sockets, wanted.shim)
    if link is not None and link.alias != wanted.mark:
        raise ConflictError(f"link {wanted.shim} belongs to somebody else")
    index = link.index if link else choose_index()
    if link is None:
        sockets.route.call(
            wanted.make_shim(wanted.shim, index, parent.index),
            set_link(index, alias=wanted.mark),
        )
    sysctl.ignore_router_advertisements(wanted.shim, sockets.procfs.path())
    requests = [set_link(index, up=True)]
    requests += [add_address(index, alone(address)) for address in wanted.addresses]
    requests += [route_to(endpoint, index) for endpoint in endpoints]
    try:
        sockets.route.call(*requests)
    except NetlinkError as exc:
        if any(each.errno != errno.EEXIST for each in (exc, *exc.others)):
            raise
    return index


def alone(address: IPAddress) -> IPInterface:
    """Return an address without the subnet that it is in."""
    return ipaddress.ip_interface(address)


def route_to(endpoint: IPInterface, shim: int) -> Request:
    """Return what leads the host to an endpoint, by its own link."""
    destination = ipaddress.ip_network(endpoint.ip)
    return add_route(destination, index=shim, replace=True)


def remove(sockets: Sockets, wanted: Wanted, heir: str) -> None:
    """Plan: remove what is there because of a network. No error if it is gone.

    :param heir: mark of another network that needs the parent, or ``""``
    """
    for name, successor in ((wanted.shim, ""), (wanted.parent, heir)):
        link = find(sockets, name) if name else None
        if link is None or link.alias != wanted.mark:
            continue
        try:
            sockets.route.call(
                set_link(link.index, alias=successor)
                if successor
                else delete_link(link.index)
            )
        except NetlinkError as exc:
            if exc.errno != errno.ENODEV:
                raise


def problems(sockets: Sockets, wanted: Wanted, present: Present) -> Iterator[str]:
    """Plan: tell what a network lacks in the host's namespace."""
    for name, index in ((wanted.parent, present.parent), (wanted.shim, present.shim)):
        link = find(sockets, name) if name else None
        if not name:
            continue
        if link is None:
            yield f"link {name} is gone"
        elif link.index != index:
            yield f"link {name} is another one"
        elif link.alias.startswith(wanted.owner) and not link.up:
            yield f"link {name} is down"
