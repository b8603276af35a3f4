"""Neighbour tables and forwarding databases of bridges.

Constants: include/uapi/linux/neighbour.h, rtnetlink.h.
"""

from __future__ import annotations

from errno import ENODEV, ENOENT
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING

from ..errors import InvalidError
from .netlink import Request
from .wire import (
    NEIGHBOUR,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    attribute,
    pack_mac,
)

if TYPE_CHECKING:
    from ..types import IPAddress

RTM_NEWNEIGH = 28
RTM_DELNEIGH = 29

_AF_BRIDGE = 7
_NDA_DST = 1
_NDA_LLADDR = 2
_NTF_SELF = 0x02
_NTF_MASTER = 0x04
_NUD_NOARP = 0x40
_NUD_PERMANENT = 0x80
_STATES = {"reachable": 0x02, "stale": 0x04, "permanent": _NUD_PERMANENT}


def set_neighbour(
    index: int, address: IPAddress, mac: str, *, state: str = "stale"
) -> Request:
    """Tell a link its neighbour's MAC address, whether or not it knew one.

    :param state: ``"stale"`` (used at once, verified later), ``"reachable"`` (verified
        when it is old) or ``"permanent"`` (never verified)
    :raises InvalidError: if it is another state, or the MAC address is none
    """
    if state not in _STATES:
        raise InvalidError(
            f"neighbour state {state!r} is not one of {', '.join(_STATES)}"
        )
    body = (
        NEIGHBOUR.pack(_family(address), index, _STATES[state], 0, 0)
        + attribute(_NDA_DST, address.packed)
        + attribute(_NDA_LLADDR, pack_mac(mac))
    )
    flags = NLM_F_CREATE | NLM_F_REPLACE
    what = f"set neighbour {address} of link {index} to {mac}"
    return Request(RTM_NEWNEIGH, flags, body, what)


def delete_neighbour(index: int, address: IPAddress) -> Request:
    """Make a link forget a neighbour. No error if it knows nothing of it."""
    body = NEIGHBOUR.pack(_family(address), index, 0, 0, 0)
    body += attribute(_NDA_DST, address.packed)
    words = ("delete neighbour", address, "of link", index)
    return Request(RTM_DELNEIGH, 0, body, words, ignores=(ENOENT, ENODEV))


def set_fdb(index: int, mac: str, *, destination: IPAddress | None = None) -> Request:
    """Have frames for a MAC address leave by a link, for good.

    :param index: index of a bridge's port, or of a tunnel
    :param destination: the tunnel's remote end; None for a bridge's port
    """
    state, flags = _NUD_PERMANENT | _NUD_NOARP, _NTF_SELF
    if destination is None:
        # an entry of the bridge, not of the port itself; NOARP: no local address of it
        state, flags = _NUD_NOARP, _NTF_MASTER
    body = NEIGHBOUR.pack(_AF_BRIDGE, index, state, flags, 0)
    body += attribute(_NDA_LLADDR, pack_mac(mac))
    if destination is not None:
        body += attribute(_NDA_DST, destination.packed)
    what = f"set forwarding of {mac} to link {index}"
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, what)


def _family(address: IPAddress) -> int:
    return AF_INET if address.version == 4 else AF_INET6
