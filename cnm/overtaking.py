"""Noticing that somebody else was faster to take a subnet that had been chosen.

Subnets are chosen that the host has no routes to. Between that and the network's own
route another controller may have chosen the same one.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence

from .errors import NetlinkError, PoolOverlap
from .linux import Sockets, get_route, parse_route
from .types import IPAddress, IPAMData, IPNetwork

# what the kernel says where there is no route, and where one refuses packets
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)


class Overtaken(PoolOverlap):
    """The host reaches a subnet by a link that is not its network's.

    :ivar subnet: the subnet
    """

    def __init__(self, subnet: IPNetwork) -> None:
        super().__init__(
            f"subnet {subnet}, which nobody has asked for, is in use on another link "
            "of the host; name a subnet that is free"
        )
        self.subnet = subnet


def check_routes(
    sockets: Sockets, links: Sequence[int], chosen: Iterable[IPAMData]
) -> None:
    """Plan: check that the host reaches subnets by links of their network, if at all.

    Of several links with the same subnet, the host uses the one that has had it first.

    :param links: the network's links
    :param chosen: those of its subnets that nobody has asked for
    :raises Overtaken: if one is reached by another link
    """
    for data in chosen:
        address = _someone(data)
        if address is None:
            continue
        try:
            route = parse_route(sockets.route.call(get_route(address))[0])
        except NetlinkError as exc:
            if exc.errno not in _NO_ROUTE:
                raise
            continue
        used, subnet = route.destination, data.subnet
        if used.prefixlen >= subnet.prefixlen and route.index not in links:
            raise Overtaken(subnet)


def _someone(data: IPAMData) -> IPAddress | None:
    """Return an address of a subnet that is not the gateway's; None if it has none."""
    first, last = data.subnet.network_address, data.subnet.broadcast_address
    middle = (last - 1, first + 1) if int(last) - int(first) > 1 else (last, first)
    return next((address for address in middle if address != data.gateway), None)
