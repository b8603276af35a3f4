"""A machine outside, and what tests look at inside sandboxes."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_interface

import pytest

from cnm.linux import (
    NetlinkSocket,
    add_address,
    add_veth,
    choose_index,
    delete_link,
    set_link,
)
from cnm.linux.carrier import wait_for_carrier

from ..lab import Namespace

OUTSIDE4, OUTSIDE6 = "203.0.113.2", "2001:db8::2"
HOST4, HOST6 = "203.0.113.1", "2001:db8::1"


@pytest.fixture
def outside() -> Iterator[Namespace]:
    """A machine that the host reaches by an uplink, and that knows only the host."""
    index, peer = choose_index(), choose_index()
    with Namespace("outside") as there, NetlinkSocket() as here:
        here.call(
            add_veth(
                "uplink", "eth0", index=index, peer_index=peer, peer_netns=there.netns
            ),
            # nothing is forwarded to a link while its link-local address is on trial
            set_link(index, address_generation="none"),
            set_link(index, up=True),
            add_address(index, ip_interface(f"{HOST4}/24")),
            add_address(index, ip_interface(f"{HOST6}/64")),
            add_address(index, ip_interface("fe80::1/64")),
        )
        there.add_addresses(peer, f"{OUTSIDE4}/24", f"{OUTSIDE6}/64")
        wait_for_carrier(here, index)
        yield there
        here.call(delete_link(index))
