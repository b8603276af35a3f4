"""Switching forwarding on in the host, without making it a router for others.

If forwarding was off, traffic that neither enters nor leaves one of the controller's
bridges was not forwarded; the set ``closed`` keeps it like that (libnetwork sets the
policy of FORWARD to DROP in that case). That the controller has switched it on is
remembered in the table, which is gone after a reboot, as is the setting; and in a file
that goes with a reboot, for those who find that somebody has deleted the table.

``net.ipv6.conf.all.forwarding`` does more than its name says: the host ignores router
advertisements from then on, and loses the default route that it has from them. Kernels
from 6.17 on have ``force_forwarding``, which has packets forwarded and does no more
(Documentation/networking/ip-sysctl.rst).
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from ..errors import KernelError
from ..linux import sysctl
from ..linux.nftables import Element, list_elements
from .ruleset import CLOSED
from .table import tables

if TYPE_CHECKING:
    from .table import Firewall, NftSockets

_logger = logging.getLogger(__name__)

_IPV4 = ("net.ipv4.ip_forward",)
_IPV6 = ("net.ipv6.conf.all.forwarding",)
# It counts for the link that a packet comes in by. To write it for "all" is to write it
# for every link that is there; new links have what "default" has.
_IPV6_FORCED = (
    "net.ipv6.conf.all.force_forwarding",
    "net.ipv6.conf.default.force_forwarding",
)
# The settings that have packets forwarded, in one way or another. This is the order in
# which they are preferred.
_WAYS = {4: (_IPV4,), 6: (_IPV6_FORCED, _IPV6)}
_CLOSED = {4: Element(CLOSED, ("ipv4",)), 6: Element(CLOSED, ("ipv6",))}


def open_forwarding(sockets: NftSockets, firewall: Firewall, version: int) -> None:
    """Plan: have the host forward packets of a family to and from the bridges.

    Without a firewall nothing is done: whoever has one of their own decides.
    """
    element = _CLOSED[version]
    if not firewall.enabled or element in firewall:
        return
    ways = _ways(version)
    if any(_is_on(way) for way in ways):
        # by the administrator, or by another controller
        if any(_is_closed(sockets, table, element) for table in _tables(sockets)):
            firewall.update(sockets, add=[element])
        return
    with ExitStack() as undo:
        firewall.update(sockets, add=[element])
        undo.callback(_remember, firewall)
        undo.callback(firewall.update, sockets, remove=[element])
        _remember(firewall)
        for setting in ways[0]:
            sysctl.write(setting, "1")
            undo.callback(sysctl.write, setting, "0")
        undo.pop_all()


def adopt_forwarding(sockets: NftSockets, firewall: Firewall) -> None:
    """Plan: find out what an earlier controller of the name has switched on."""
    if firewall.exists(sockets):
        closed = {
            version
            for version, element in _CLOSED.items()
            if _is_closed(sockets, firewall.table, element)
        }
    else:
        closed = {it for it in _remembered(firewall) if any(map(_is_on, _ways(it)))}
    firewall.update(sockets, add=[_CLOSED[version] for version in closed])


def close_forwarding(sockets: NftSockets, firewall: Firewall) -> None:
    """Plan: switch off what was switched on, unless another controller needs it."""
    opened = [version for version, it in _CLOSED.items() if it in firewall]
    if not firewall.enabled or not opened:
        return
    if all(table == firewall.table for table in _tables(sockets)):
        for version in opened:
            for setting in _ways(version)[0]:
                sysctl.write(setting, "0")
    _forget(firewall)


def _remember(firewall: Firewall) -> None:
    """Note what has been switched on; the table says so, too, while it is there."""
    versions = [str(version) for version, it in _CLOSED.items() if it in firewall]
    if not firewall.memory:
        return
    if not versions:
        _forget(firewall)
        return
    try:
        with open(firewall.memory, "w", encoding="ascii") as file:
            file.write(" ".join(versions))
    except OSError as exc:
        _logger.warning("only the table knows what is switched on: %s", exc)


def _remembered(firewall: Firewall) -> list[int]:
    """Return what had been switched on when the table was there."""
    if not firewall.enabled or not firewall.memory:
        return []
    try:
        with open(firewall.memory, encoding="ascii") as file:
            noted = file.read().split()
    except FileNotFoundError:
        return []
    return [version for version in _CLOSED if str(version) in noted]


def _forget(firewall: Firewall) -> None:
    with suppress(FileNotFoundError):
        if firewall.memory:
            os.unlink(firewall.memory)


def _ways(version: int) -> list[tuple[str, ...]]:
    """Return the settings that this kernel has, the best first."""
    *better, last = _WAYS[version]
    return [*(way for way in better if all(map(_exists, way))), last]


def _exists(setting: str) -> bool:
    try:
        sysctl.read(setting)
    except KernelError as exc:
        if exc.errno != errno.ENOENT:
            raise
        return False
    return True


def _is_on(way: tuple[str, ...]) -> bool:
    return all(sysctl.read(setting) != "0" for setting in way)


def _tables(sockets: NftSockets) -> list[str]:
    names = tables(sockets)
    return [name for name in names if name == "cnm" or name.startswith("cnm-")]


def _is_closed(sockets: NftSockets, table: str, element: Element) -> bool:
    return any(
        element.same_key(listed)
        for listed in list_elements(sockets.nft, table, CLOSED.name)
    )
