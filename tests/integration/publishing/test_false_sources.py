"""What sandboxes send to the host in the name of others.

With and without br_netfilter, and whatever the host's own setting is.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from ipaddress import IPv6Address, ip_network
from struct import Struct

import pytest

import cnm
from cnm.linux import add_route, sysctl
from tests.integration.api.conftest import HOST4, HOST6
from tests.integration.barriers import Barrier, Host, rule, without
from tests.integration.firewall.intruder import Letterbox, send
from tests.integration.lab import PATIENCE, Closing, Namespace, in_thread

from .test_isolation import any_source, boxes, datagrams, network

pytestmark = pytest.mark.usefixtures("filtered_bridges")
OTHERS = ["10.10.0.2", "fd00:10::2"]
PORT = 632


# RFC 4861
SOLICITATION, ADVERTISEMENT = 135, 136


def solicitation(target: IPv6Address) -> bytes:
    """Return the packet by which somebody asks whether an address is free."""
    ends = bytes(16) + IPv6Address("ff02::1:ff00:0").packed[:13] + target.packed[13:]
    body = Struct("!BBHI16s").pack(SOLICITATION, 0, 0, 0, target.packed)
    pseudo = ends + Struct("!II").pack(len(body), socket.IPPROTO_ICMPV6) + body
    total = sum(Struct(f"!{len(pseudo) // 2}H").unpack(pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + (~total & 0xFFFF).to_bytes(2, "big") + body[4:]
    header = Struct("!IHBB").pack(6 << 28, len(body), socket.IPPROTO_ICMPV6, 255)
    return bytes(header + ends + body)


class Visitors(Closing):
    """A UDP port of the host, and who has sent something there.

    :param address: the host's
    """

    def __init__(self, address: str) -> None:
        self.address = address
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.bind((address, PORT))

    def close(self) -> None:
        self._socket.close()

    def until(self, last: str) -> set[str]:
        """Return all who came, after somebody who must come has come."""
        seen: set[str] = set()
        self._socket.settimeout(PATIENCE)
        while last not in seen:
            seen.add(self._next())
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                seen.add(self._next())
        return seen

    def _next(self) -> str:
        source: str = self._socket.recvfrom(10)[1][0]
        return source


def check_false(
    visitors: Visitors, inside: Namespace, own: str, false: str, barrier: Barrier
) -> None:
    """Check that a barrier, and no other, keeps a false name out."""
    eth0 = inside.run(lambda: socket.if_nametoindex("eth0"))
    inside.add_addresses(eth0, false)
    to = visitors.address, PORT
    with (
        datagrams(inside, own, 0) as honest,
        datagrams(inside, false, 0) as dishonest,
    ):
        # the gateway's MAC address is not found out under a false name
        honest.sendto(b"?", to)
        assert visitors.until(own) == {own}
        dishonest.sendto(b"?", to)
        honest.sendto(b"?", to)
        assert visitors.until(own) == {own}
        with without(barrier):
            dishonest.sendto(b"?", to)
            assert false in visitors.until(false)


@pytest.fixture
def loose_host() -> Iterator[None]:
    """Have the host be content with a route to the source, as on Ubuntu."""
    name = "net.ipv4.conf.all.rp_filter"
    before = in_thread(lambda: sysctl.read(name))
    in_thread(lambda: sysctl.write(name, "2"))
    yield
    in_thread(lambda: sysctl.write(name, before))


@pytest.mark.usefixtures("loose_host")
@pytest.mark.parametrize("false", OTHERS)
async def test_from_an_internal_network_in_the_name_of_others(
    controller: cnm.Controller, host: Host, false: str
) -> None:
    await network(controller, "front", 10)
    inner = await network(controller, "inner", internal=True)
    own, at = ("fd00:9::2", "fd00:9::1") if ":" in false else ("10.9.0.2", "10.9.0.1")
    with ExitStack() as stack:
        ((_, inside),) = await boxes(controller, stack, one=inner)
        visitors = stack.enter_context(Visitors(at))
        check_false(visitors, inside, own, false, rule(host, "input"))


@pytest.mark.usefixtures("outside")
async def test_in_the_name_of_the_host(controller: cnm.Controller, host: Host) -> None:
    """Of IPv4 the kernel takes nothing like that."""
    front = await network(controller, "front")
    with ExitStack() as stack:
        ((_, inside),) = await boxes(controller, stack, one=front)
        visitors = stack.enter_context(Visitors("fd00:9::1"))
        check_false(visitors, inside, "fd00:9::2", HOST6, rule(host, "input", 0))


async def test_from_a_second_network(controller: cnm.Controller, host: Host) -> None:
    """Sandboxes use the address of one network to talk to the host by another."""
    front = await network(controller, "front")
    back = await network(controller, "back", 10)
    with ExitStack() as stack:
        ((one, inside),) = await boxes(controller, stack, one=front)
        await back.connect(one)
        visitors = stack.enter_context(Visitors("fd00:9::1"))
        sender = stack.enter_context(datagrams(inside, "fd00:10::2", 0))
        sender.sendto(b"?", (visitors.address, PORT))
        assert visitors.until("fd00:10::2") == {"fd00:10::2"}


async def test_who_has_no_address_yet(controller: cnm.Controller) -> None:
    """The host answers who asks whether its address is free, on an internal network."""
    inner = await network(controller, "inner", internal=True)
    with ExitStack() as stack:
        ((_, inside),) = await boxes(controller, stack, one=inner)
        eth0 = inside.run(lambda: socket.if_nametoindex("eth0"))
        hearing, asking = (
            stack.enter_context(inside.socket(socket.AF_INET6, socket.SOCK_RAW, proto))
            for proto in (socket.IPPROTO_ICMPV6, socket.IPPROTO_RAW)
        )
        hearing.settimeout(PATIENCE)
        gateway = IPv6Address("fd00:9::1")
        asking.sendto(solicitation(gateway), (str(gateway), 0, 0, eth0))
        while (answer := hearing.recv(100))[0] != ADVERTISEMENT:
            pass
        assert IPv6Address(answer[8:24]) == gateway


async def test_from_an_isolated_network_to_the_host(
    controller: cnm.Controller, host: Host, outside: Namespace
) -> None:
    """Whose other addresses the kernel would answer for, on every link."""
    alone = await network(
        controller, "alone", internal=True, gateway_mode_ipv4="isolated"
    )
    with ExitStack() as stack:
        ((_, inside),) = await boxes(controller, stack, one=alone)
        eth0 = inside.run(lambda: socket.if_nametoindex("eth0"))
        inside.route.call(add_route(ip_network(HOST4), index=eth0))
        letterbox = stack.enter_context(Letterbox(None))

        def from_whom() -> str:
            send(inside, HOST4)
            return letterbox.source()

        # the host's MAC address is not found out as long as it takes nothing
        with any_source(host, "alone"):
            with without(rule(host, "input")):
                assert from_whom() == "10.9.0.1"
            assert from_whom() == ""
        with without(rule(host, "input")):
            assert from_whom() == ""
        assert from_whom() == ""
