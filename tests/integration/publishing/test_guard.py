"""What the guard keeps out that comes from a sandbox, or says that it does.

With and without br_netfilter, which has the firewall see what stays on a bridge.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

import cnm
from cnm.linux import set_ipv4_configuration, sysctl
from tests.integration.barriers import Host, rule, without
from tests.integration.firewall.intruder import Letterbox, send, send_spoofed
from tests.integration.firewall.world import route_loopback
from tests.integration.lab import Namespace, in_thread

from .test_isolation import boxes, network

pytestmark = pytest.mark.usefixtures("filtered_bridges")


@contextmanager
def trusting_sources(host: Host, bridge: str) -> Iterator[None]:
    """Have the kernel not ask whether sources of packets are where they come from."""
    name = "net.ipv4.conf.all.rp_filter"
    before = in_thread(lambda: sysctl.read(name))
    in_thread(lambda: sysctl.write(name, "0"))
    host.route.call(set_ipv4_configuration(host.index(bridge), rp_filter=0))
    yield
    in_thread(lambda: sysctl.write(name, before))


@pytest.fixture
async def intruder(controller: cnm.Controller, host: Host) -> AsyncIterator[Namespace]:
    """A sandbox of a network that the host takes 127.0.0.0/8 from."""
    front = await network(controller, "front")
    with ExitStack() as stack:
        ((one, inside),) = await boxes(controller, stack, one=front)
        await one.endpoints[0].publish("8080:80")
        stack.enter_context(trusting_sources(host, "front"))
        yield inside


def check_guard(
    host: Host, from_whom: Callable[[], str], number: int, who: str
) -> None:
    """Check that one rule of the guard keeps a datagram out, and the other does not."""
    guards = [rule(host, "guard", it) for it in (0, 1)]
    assert from_whom() == ""
    with without(guards[1 - number]):
        assert from_whom() == ""
    with without(guards[number]):
        assert from_whom() == who


async def test_loopback_of_the_host(host: Host, intruder: Namespace) -> None:
    route_loopback(intruder, "10.9.0.1")
    with Letterbox(None, "127.0.0.1") as letterbox:

        def from_whom() -> str:
            send(intruder, "127.0.0.1")
            return letterbox.source()

        check_guard(host, from_whom, 0, "10.9.0.2")


async def test_in_the_name_of_loopback(host: Host, intruder: Namespace) -> None:
    with Letterbox(None) as letterbox:

        def from_whom() -> str:
            send_spoofed(intruder, "127.0.0.2", "10.9.0.1")
            return letterbox.source()

        # the gateway's MAC address is not found out under a false name
        send(intruder, "10.9.0.1")
        assert letterbox.source() == "10.9.0.2"
        check_guard(host, from_whom, 1, "127.0.0.2")
