"""A link of the host that leads to a local network, and a machine on that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_interface

import pytest

from cnm.errors import NetlinkError
from cnm.linux import (
    NetlinkSocket,
    add_address,
    add_veth,
    choose_index,
    delete_link,
    set_link,
)
from cnm.linux.carrier import wait_for_carrier

from ..lab import Namespace, Servers

#: The host's link, and the subnets on it; a machine is .9 there, and the host .1.
PARENT = "lan0"
SUBNETS = ["192.0.2.0/24", "2001:db8:2::/64"]
MACHINE = "192.0.2.9", "2001:db8:2::9"
HOST = "192.0.2.1"


@pytest.fixture
def lan() -> Iterator[Namespace]:
    """The machine on the local network, which serves TCP port 80."""
    index, peer = choose_index(), choose_index()
    with Namespace("machine") as there, NetlinkSocket() as here:
        here.call(
            add_veth(
                PARENT, "eth0", index=index, peer_index=peer, peer_netns=there.netns
            ),
            add_address(index, ip_interface(f"{HOST}/24")),
            set_link(index, up=True),
        )
        there.add_addresses(
            peer, *(f"{it}/{n}" for it, n in zip(MACHINE, (24, 64), strict=True))
        )
        wait_for_carrier(here, index)
        servers = Servers()
        servers.add(there, 80)
        yield there
        servers.close()
        with suppress(NetlinkError):  # a test may have done it
            here.call(delete_link(index))
