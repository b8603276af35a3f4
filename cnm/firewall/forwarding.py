"""Switching forwarding on in the host, without making it a router for others.

If forwarding was off, traffic that neither enters nor leaves one of the controller's
bridges was not forwarded; the set ``closed`` keeps it like that (libnetwork sets the
policy of FORWARD to DROP in that case). That the controller has switched it on is
remembered in the table, which is gone after a reboot, as is the setting.
"""

from __future__ import annotations

from ..linux import Sockets, sysctl
from ..linux.nftables import Element, list_elements
from .ruleset import CLOSED
from .table import Firewall, tables

_SETTINGS = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
_CLOSED = {4: Element(CLOSED, ("ipv4",)), 6: Element(CLOSED, ("ipv6",))}


def open_forwarding(sockets: Sockets, firewall: Firewall, version: int) -> None:
    """Plan: have the host forward packets of a family to and from the bridges."""
    element = _CLOSED[version]
    if element in firewall:
        return
    if sysctl.read(_SETTINGS[version]) != "0":
        # on already: by the administrator, or by another controller
        if any(_is_closed(sockets, table, element) for table in _tables(sockets)):
            firewall.update(sockets, add=[element])
        return
    firewall.update(sockets, add=[element])
    try:
        sysctl.write(_SETTINGS[version], "1")
    except BaseException:
        firewall.update(sockets, remove=[element])
        raise


def adopt_forwarding(sockets: Sockets, firewall: Firewall) -> None:
    """Plan: find out what an earlier controller of the name has switched on."""
    if not firewall.exists(sockets):
        return
    for element in _CLOSED.values():
        if _is_closed(sockets, firewall.table, element):
            firewall.update(sockets, add=[element])


def close_forwarding(sockets: Sockets, firewall: Firewall) -> None:
    """Plan: switch off what was switched on, unless another controller needs it."""
    others = [table for table in _tables(sockets) if table != firewall.table]
    for version, element in _CLOSED.items():
        if element in firewall and not others:
            sysctl.write(_SETTINGS[version], "0")


def _tables(sockets: Sockets) -> list[str]:
    names = tables(sockets)
    return [name for name in names if name == "cnm" or name.startswith("cnm-")]


def _is_closed(sockets: Sockets, table: str, element: Element) -> bool:
    return any(
        element.same_key(listed)
        for listed in list_elements(sockets.nft, table, CLOSED.name)
    )
