"""Interfaces in sandboxes: their names, and what they have and tell of addresses."""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter

import anyio
import pytest

import cnm
from cnm import Controller
from cnm.linux import NetlinkSocket, parse_address, parse_link
from cnm.linux.addresses import RTM_NEWADDR
from cnm.linux.links import RTM_NEWLINK, RTNLGRP_LINK

from ..lab import Namespace
from .traffic import addresses, pair, serving, tcp

DUAL = ["10.9.0.0/24", "fd00:9::/64"]


async def test_interface_names(controller: Controller) -> None:
    names = ["a", "b", "c", "d"]
    networks = [await controller.create_network(name) for name in names]
    one = await controller.create_sandbox("one")
    first = await networks[0].connect(one)
    second = await networks[1].connect(one)
    third = await networks[2].connect(one, interface_name="eth2")
    assert [e.interface for e in one.endpoints] == ["eth0", "eth1", "eth2"]
    with pytest.raises(cnm.ConflictError, match="'eth2' is taken in sandbox 'one'"):
        await networks[3].connect(one, interface_name="eth2")
    with pytest.raises(cnm.ConflictError, match="'lo' is taken"):
        await networks[3].connect(one, interface_name="lo")
    await second.leave()
    fourth = await networks[3].connect(one)
    assert fourth.interface == "eth1"  # numbering fills gaps
    await second.join(one)
    assert (second.interface, third.interface) == ("eth3", "eth2")
    await first.delete(force=True)
    shown = (await one.run(["ls", "/sys/class/net"])).stdout.decode().split()
    assert [name for name in shown if name.startswith("eth")] == [
        "eth1",
        "eth2",
        "eth3",
    ]


async def test_interface_prefix(controller: Controller) -> None:
    network = await controller.create_network(
        "front", options={"com.docker.network.container_iface_prefix": "lan"}
    )
    one, two = await pair(controller, network)
    assert (one.endpoints[0].interface, two.endpoints[0].interface) == ("lan0", "lan0")


async def test_mac_addresses(controller: Controller) -> None:
    network = await controller.create_network("front")
    one, two = await pair(controller, network)
    macs = {one.endpoints[0].mac, two.endpoints[0].mac}
    assert len(macs) == 2
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs)  # local, unicast
    three = await controller.create_sandbox("three")
    endpoint = await network.connect(three, mac="02-AA-00-00-00-01")
    assert endpoint.mac == "02:aa:00:00:00:01"
    shown = (await three.run(["cat", "/sys/class/net/eth0/address"])).stdout
    assert shown.decode().strip() == endpoint.mac
    assert endpoint.info.configured_mac == endpoint.mac
    assert one.endpoints[0].info.configured_mac == ""


async def test_auxiliary_default_gateway(controller: Controller) -> None:
    network = await controller.create_network(
        "front",
        subnets=DUAL[:1],
        gateways=["10.9.0.1"],
        aux_addresses={"DefaultGatewayIPv4": "10.9.0.254", "printer": "10.9.0.2"},
    )
    one, _ = await pair(controller, network)
    assert addresses(one, network) == ["10.9.0.3"]
    routes = (await one.run(["cat", "/proc/net/route"])).stdout.decode().split("\n")
    default = next(line.split()[2] for line in routes[1:] if "\t00000000\t" in line)
    packed = bytes.fromhex(default)[::-1]
    assert ipaddress.IPv4Address(packed) == ipaddress.ip_address("10.9.0.254")
    with pytest.raises(cnm.AddressInUse, match=r"10\.9\.0\.2"):
        await network.create_endpoint("printer", address="10.9.0.2")


async def test_link_local_addresses(controller: Controller) -> None:
    network = await controller.create_network("front")
    one = await controller.create_sandbox("one")
    two = await controller.create_sandbox("two")
    await network.connect(one, link_local=["169.254.1.1"])
    await network.connect(two, link_local=["169.254.1.2"])
    async with serving(two):
        assert await tcp(one, "169.254.1.2") == "169.254.1.1"


@pytest.mark.parametrize("times", [3, 1, 0])
async def test_announcements(controller: Controller, times: int) -> None:
    network = await controller.create_network(
        "front",
        subnets=DUAL,
        options={"advertise_addr_nmsgs": times, "advertise_addr_ms": "100"},
    )
    one, watcher = await pair(controller, network)
    await check_announced(times, one, network, watcher)
    assert watcher.endpoints[0].joined


async def test_new_addresses_are_announced_once(controller: Controller) -> None:
    network = await controller.create_network(
        "front", subnets=DUAL, options={"advertise_addr_ms": "100"}
    )
    one, watcher = await pair(controller, network)
    await check_announced(1, one, network, watcher)
    # somebody may know it by the MAC address that it had
    again = {"address": "10.9.0.4", "address6": "fd00:9::4"}
    await check_announced(3, one, network, watcher, **again)
    above = {"address": "10.9.0.9", "address6": "fd00:9::9"}
    await check_announced(1, one, network, watcher, **above)
    # below others, it may have been in use
    between = {"address": "10.9.0.10", "address6": "fd00:9::8"}
    await check_announced(3, one, network, watcher, **between)


async def check_announced(
    times: int,
    sandbox: cnm.Sandbox,
    network: cnm.Network,
    watcher: cnm.Sandbox,
    *,
    address: str | None = None,
    address6: str | None = None,
) -> None:
    """Join anew, and check how many times both addresses are announced."""
    await network.disconnect(sandbox)
    with await watcher.socket(
        socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)
    ) as raw:
        endpoint = await network.connect(sandbox, address=address, address6=address6)
        heard = Counter[int]()
        with anyio.fail_after(20):
            while any(heard[version] < times for version in (4, 6)):
                heard[await announcement(raw, endpoint)] += 1
        # longer than the time between two of them
        with anyio.move_on_after(0.3):
            while True:
                heard[await announcement(raw, endpoint)] += 1
    assert (heard[4], heard[6]) == (times, times)


async def announcement(raw: socket.socket, endpoint: cnm.Endpoint) -> int:
    """Wait for an announcement of one of an endpoint's addresses; return its family."""
    assert endpoint.address is not None
    assert endpoint.address6 is not None
    mac = bytes.fromhex(endpoint.mac.replace(":", ""))
    own4, own6 = endpoint.address.ip.packed, endpoint.address6.ip.packed
    while True:
        await anyio.wait_readable(raw)
        frame = raw.recv(2048)
        if frame[6:12] != mac:
            continue
        # sender and target of a gratuitous ARP are the same (RFC 5227)
        if frame[12:14] == b"\x08\x06" and frame[28:32] == frame[38:42] == own4:
            return 4
        advertised = frame[12:14] == b"\x86\xdd" and frame[54:55] == b"\x88"
        if advertised and frame[62:78] == own6:
            return 6


#: multicast groups of addresses, include/uapi/linux/rtnetlink.h
RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR = 5, 9


def listener() -> NetlinkSocket:
    told = NetlinkSocket()
    for group in (RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR):
        told.subscribe(group)
    return told


def happened(told: NetlinkSocket, name: str) -> list[str]:
    """Return in which order a link was set up and addresses were given."""
    order = []
    for message in told.receive():
        if message.kind == RTM_NEWADDR:
            order.append(str(parse_address(message).interface))
        elif message.kind == RTM_NEWLINK:
            link = parse_link(message)
            if link.up and link.name == name:
                order.append("up")
    return order


async def test_addresses_are_given_to_a_link_that_is_up(controller: Controller) -> None:
    # if it has IPv6 addresses before, their routes are made while it is set up, with
    # the memory that is at hand; the kernel does not say if that is too little
    with listener() as told:
        network = await controller.create_network(
            "front", subnets=DUAL, options={"name": "br-test"}
        )
        order = happened(told, "br-test")
        assert order[0] == "up"
        assert "10.9.0.1/24" in order
    box = await controller.create_sandbox("box")
    with Namespace(path=box.key) as inside, inside.run(listener) as told:
        await network.connect(box)
        order = happened(told, "eth0")
        assert order[0] == "up"
        assert "10.9.0.2/24" in order
