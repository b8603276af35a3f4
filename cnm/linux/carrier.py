"""Seeing to it that a new link carries packets."""

from __future__ import annotations

import logging
import time

from .links import get_link, parse_link
from .netlink import Message, NetlinkSocket
from .wire import LINK, attributes, number

# include/uapi/linux/if_link.h, if.h
_IFLA_OPERSTATE, _IFLA_LINK_NETNSID = 16, 37
_IF_OPER_UP = 6
#: Looks, and seconds between two of them: at most so long is waited.
_LOOKS, _PAUSE = 20, 0.001
_logger = logging.getLogger(__name__)


def wait_for_carrier(route: NetlinkSocket, index: int) -> None:
    """Wait until an end of a veth pair that was up before the other one sends packets.

    The kernel notices in the background that the other end is up (net/core
    /link_watch.c), and drops what is sent until then: whoever asked for a neighbour
    would ask again after a second. Since Linux 6.3 a look makes it notice.

    :param index: index of the end that was up first
    :raises NetlinkError: if it is gone
    """
    for _ in range(_LOOKS):
        (message,) = route.call(get_link(index))
        found = attributes(message.body, LINK.size)
        if number(found.get(_IFLA_OPERSTATE)) == _IF_OPER_UP:
            return
        time.sleep(_PAUSE)
    _logger.warning("link %d has no carrier after %g s", index, _LOOKS * _PAUSE)


def other_end(message: Message) -> int:
    """Return the index of a veth's other end; 0 if it is elsewhere, or no veth."""
    link = parse_link(message)
    elsewhere = _IFLA_LINK_NETNSID in attributes(message.body, LINK.size)
    return 0 if elsewhere or link.kind != "veth" else link.link_index
