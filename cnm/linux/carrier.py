"""Seeing to it that a new link carries packets."""

from __future__ import annotations

import logging
import time

from .links import get_link, parse_link
from .netlink import Message, NetlinkSocket
from .wire import LINK, attributes, first, number

# include/uapi/linux/if_link.h, if.h
_IFLA_OPERSTATE, _IFLA_LINK_NETNSID = 16, 37
_IF_OPER_UP = 6
#: Looks, and seconds between two of them: at most so long is waited.
_LOOKS, _PAUSE = 20, 0.001
_logger = logging.getLogger(__name__)


def wait_for_carrier(route: NetlinkSocket, *indexes: int) -> None:
    """Wait until links send packets that are up and have just got a carrier.

    The kernel notices in the background that a veth's other end is up, or that a bridge
    has a port (net/core/link_watch.c), and drops what is sent until then: whoever asked
    for a neighbour would ask again after a second. Since Linux 6.3 a look makes it
    notice.

    :param indexes: those of the links, from the new one outwards
    :raises NetlinkError: if one is gone
    """
    for _ in range(_LOOKS):
        found = route.call(*map(get_link, indexes))
        if all(map(_is_up, found)):
            return
        time.sleep(_PAUSE)
    numbers = ", ".join(map(str, indexes))
    _logger.warning("no carrier at link %s after %g s", numbers, _LOOKS * _PAUSE)


def _is_up(message: Message) -> bool:
    return number(first(message.body, _IFLA_OPERSTATE, LINK.size)) == _IF_OPER_UP


def other_end(message: Message) -> int:
    """Return the index of a veth's other end; 0 if it is elsewhere, or no veth."""
    link = parse_link(message)
    elsewhere = _IFLA_LINK_NETNSID in attributes(message.body, LINK.size)
    return 0 if elsewhere or link.kind != "veth" else link.link_index
