"""What is sent as soon as a sandbox has joined arrives."""

from __future__ import annotations

import ipaddress
import socket
import time
from contextlib import suppress
from functools import partial

import anyio.to_thread
import pytest

import cnm
from cnm.driver import (
    DriverLoaded,
    EndpointJoined,
    EndpointLeft,
    JoinInfo,
    LeaveInfo,
    NetlinkError,
    NetworkDriver,
    hookimpl,
)
from cnm.linux import (
    Sockets,
    add_address,
    add_route,
    add_veth,
    choose_index,
    delete_link,
    set_link,
)

from ..lab import busy_kernel

#: Without waiting for the carrier, one in thirty or more gets nothing: who has lost a
#: packet asks for the neighbour again after a second.
SANDBOXES, AT_ONCE = 15, 0.5


class Moving(NetworkDriver):
    """Makes a veth pair and has the core move one end, as libnetwork does."""

    @hookimpl
    async def cnm_driver_loaded(self, event: DriverLoaded) -> None:
        self._kernel = event.kernel

    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> JoinInfo:
        identity = event.endpoint.id[:8]
        address = event.endpoint.address
        assert address is not None
        await self._kernel.run(_make, identity, address.ip)
        return JoinInfo(interface=f"in{identity}")

    @hookimpl
    async def cnm_endpoint_left(self, event: EndpointLeft) -> LeaveInfo:
        name = f"out{event.endpoint.id[:8]}"
        return LeaveInfo(plan=lambda sockets: _remove(sockets, name))


def _make(sockets: Sockets, identity: str, to: ipaddress.IPv4Address) -> None:
    index = choose_index()
    sockets.route.call(
        add_veth(f"out{identity}", f"in{identity}", index=index, up=False),
        set_link(index, up=True),
        add_address(index, ipaddress.ip_interface("10.9.0.1/32")),
        add_route(ipaddress.ip_network(to), index=index),
    )


def _remove(sockets: Sockets, name: str) -> None:
    with suppress(NetlinkError):  # it may have gone with the sandbox
        sockets.route.call(delete_link(name=name))


def refused(address: object) -> float:
    """Send a datagram to a port that nobody serves; return how long that is no news."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        asking.connect((str(address), 9))
        began = time.monotonic()
        asking.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            asking.recv(1)
        return time.monotonic() - began


@pytest.mark.parametrize("driver", ["bridge", "ptp", "moving"])
async def test_the_host_is_answered_at_once(driver: str) -> None:
    waited = []
    async with cnm.Controller(drivers={"moving": Moving}) as controller:
        network = await controller.create_network(
            "front", driver, subnets=["10.9.0.0/24"]
        )
        with busy_kernel():
            for number in range(SANDBOXES):
                sandbox = await controller.create_sandbox(f"box{number}")
                endpoint = await network.connect(sandbox)
                assert endpoint.address is not None
                ask = partial(refused, endpoint.address.ip)
                waited.append(await anyio.to_thread.run_sync(ask))
                await sandbox.delete()
    assert [it for it in waited if it > AT_ONCE] == []
