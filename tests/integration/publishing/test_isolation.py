"""What a controller keeps apart, each with all that does so: see barriers.py.

With and without br_netfilter, which has the firewall see what stays on a bridge.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address, ip_interface

import pytest

import cnm
from cnm.firewall import Element
from cnm.firewall.ruleset import (
    DROP_ICC,
    DROP_INTERNAL,
    ENTERING4,
    ENTERING6,
    IN_NAT,
    LEAVING,
    SAME,
)
from cnm.linux import add_route, namespaces, set_ipv4_configuration, sysctl
from cnm.linux.nftables import Verdict
from tests.integration.api.conftest import OUTSIDE4, OUTSIDE6
from tests.integration.api.traffic import serving
from tests.integration.barriers import (
    Barrier,
    Host,
    entries,
    isolation,
    no_address,
    no_routes,
    rule,
    without,
)
from tests.integration.lab import BLOCKED_AFTER, PATIENCE, Namespace, Servers, in_thread

from .reach import Probe, check, none_reached, reach, reach_all, unanswered
from .test_blocked import route_to_sandboxes

pytestmark = pytest.mark.usefixtures("filtered_bridges")


@pytest.fixture
def filtered(filtered_bridges: bool) -> bool:
    """Whether the firewall does see what stays on a bridge."""
    return filtered_bridges and os.path.exists("/proc/sys/net/bridge")


@pytest.fixture
def neighbour(outside: Namespace) -> Iterator[Namespace]:
    """A machine outside with servers, and with routes to the sandboxes."""
    route_to_sandboxes(outside)
    servers = Servers()
    servers.add(outside, 80)
    servers.add(outside, 80, "udp")
    yield outside
    servers.close()


async def network(
    controller: cnm.Controller, name: str, number: int = 9, **more: cnm.JSON
) -> cnm.Network:
    """Make a network whose bridge has the same name."""
    options: dict[str, cnm.JSON] = {"name": name}
    internal = bool(more.pop("internal", False))
    return await controller.create_network(
        name,
        subnets=[f"10.{number}.0.0/24", f"fd00:{number}::/64"],
        internal=internal,
        options=options | more,
    )


async def boxes(
    controller: cnm.Controller, stack: ExitStack, **networks: cnm.Network
) -> list[tuple[cnm.Sandbox, Namespace]]:
    """Make sandboxes, connect them, and look inside."""
    made = []
    for name, of in networks.items():
        sandbox = await controller.create_sandbox(name)
        await of.connect(sandbox)
        made.append((sandbox, stack.enter_context(Namespace(name, sandbox.key))))
    return made


def addresses(sandbox: cnm.Sandbox) -> list[str]:
    endpoint = sandbox.endpoints[0]
    return [str(it.ip) for it in (endpoint.address, endpoint.address6) if it]


def probes(where: cnm.Sandbox | Namespace, to: list[str]) -> list[Probe]:
    protocols = ("tcp", "udp", "icmp")
    return [(where, address, 80, proto) for address in to for proto in protocols]


def published(where: cnm.Sandbox, at: cnm.Network) -> list[Probe]:
    """Return probes of a port of the host, at a network's gateways."""
    protocols = ("tcp", "udp")
    return [(where, to, 8080, proto) for to in at.gateways for proto in protocols]


def entering(host: Host, name: str, verdict: Verdict) -> Barrier:
    elements = (Element(of, (name,), verdict) for of in (ENTERING4, ENTERING6))
    return entries(host, *elements)


def leaving(host: Host, name: str) -> Barrier:
    return entries(host, Element(LEAVING, (name,), DROP_INTERNAL))


def no_way_out(where: Namespace, of: cnm.Network) -> Barrier:
    return no_routes(where, *((None, gateway) for gateway in of.gateways))


async def test_networks(controller: cnm.Controller, host: Host) -> None:
    front = await network(controller, "front")
    back = await network(controller, "back", 10)
    with ExitStack() as stack:
        made = await boxes(controller, stack, one=front, two=back)
        (one, _), (two, _) = made
        async with serving(one, two):
            wanted = probes(one, addresses(two))
            await check(wanted, entering(host, "back", IN_NAT))
            await check(wanted, rule(host, IN_NAT.chain))
            # the gateways are the host's own addresses
            for gateway in back.gateways:
                assert await reach(one, gateway, 0, "icmp") == "echo"


async def test_internal_networks(
    controller: cnm.Controller, host: Host, neighbour: Namespace
) -> None:
    inner = await network(controller, "inner", internal=True)
    front = await network(controller, "front", 10)
    with ExitStack() as stack:
        made = await boxes(controller, stack, shut=inner, other=front)
        (shut, inside), (other, _) = made
        routes = no_way_out(inside, inner)
        async with serving(shut, other):
            out = probes(shut, [OUTSIDE4, OUTSIDE6])
            await check(out, routes, leaving(host, "inner"))
            within = probes(shut, addresses(other))
            await check(
                within, routes, leaving(host, "inner"), entering(host, "front", IN_NAT)
            )
            # the answers would not get out
            doors = entering(host, "inner", DROP_INTERNAL), leaving(host, "inner")
            # without routes, what is asked would arrive, and not be answered
            await check(probes(neighbour, addresses(shut)), routes, *doors)
            # who asks is masqueraded: on the bridge
            await check(probes(other, addresses(shut)), *doors)


async def test_internal_networks_and_published_ports(
    controller: cnm.Controller, host: Host
) -> None:
    inner = await network(controller, "inner", internal=True)
    front = await network(controller, "front", 10)
    with ExitStack() as stack:
        made = await boxes(controller, stack, shut=inner, api=front)
        (shut, inside), (api, _) = made
        await api.endpoints[0].publish("8080:80", "8080:80/udp")
        near, far = published(shut, inner), published(shut, front)
        async with serving(api):
            await check(near, leaving(host, "inner"))
            await check(far, no_way_out(inside, inner), leaving(host, "inner"))


@contextmanager
def any_source(host: Host, bridge: str) -> Iterator[None]:
    """Have the kernel take from a bridge what comes from anywhere."""
    index, name = host.index(bridge), f"net.ipv4.conf.{bridge}.rp_filter"
    before = int(in_thread(lambda: sysctl.read(name)))
    host.route.call(set_ipv4_configuration(index, rp_filter=0))
    yield
    host.route.call(set_ipv4_configuration(index, rp_filter=before))


@contextmanager
def datagrams(where: Namespace, at: str, port: int) -> Iterator[socket.socket]:
    """Have a socket at an address in a namespace."""
    family = socket.AF_INET6 if ":" in at else socket.AF_INET
    with where.socket(family, socket.SOCK_DGRAM) as opened:
        opened.settimeout(PATIENCE)
        opened.bind((at, port))
        yield opened


def received(by: socket.socket, patience: float = BLOCKED_AFTER) -> bytes:
    """Return the next datagram, or nothing if there is none."""
    by.settimeout(patience)
    with suppress(TimeoutError):
        return by.recv(10)
    return b""


@pytest.mark.parametrize("version", [4, 6])
async def test_in_the_name_of_others_who_are_connected(
    controller: cnm.Controller, host: Host, neighbour: Namespace, version: int
) -> None:
    """To send from an internal network what seems to belong to their connections."""
    inner = await network(controller, "inner", internal=True)
    front = await network(controller, "front", 10)
    to, gateway = (
        next(it for it in found if ip_address(it).version == version)
        for found in ((OUTSIDE4, OUTSIDE6), map(str, inner.gateways))
    )
    with ExitStack() as stack:
        made = await boxes(controller, stack, shut=inner, other=front)
        (shut, inside), (other, there) = made
        (known,) = (it for it in addresses(other) if ip_address(it).version == version)
        stack.enter_context(without(no_way_out(inside, inner)))
        stack.enter_context(any_source(host, "inner"))
        # the gateway's MAC address is not found out under a false name
        assert await reach(shut, gateway, 0, "icmp") == "echo"
        eth0 = inside.run(lambda: socket.if_nametoindex("eth0"))
        inside.add_addresses(eth0, known)
        letters = stack.enter_context(datagrams(neighbour, to, 632))
        honest = stack.enter_context(datagrams(there, known, 5000))
        false = stack.enter_context(datagrams(inside, known, 5000))
        honest.sendto(b"honest", (to, 632))
        text, back = letters.recvfrom(10)
        letters.sendto(b"answer", back)
        assert (text, honest.recv(10)) == (b"honest", b"answer")

        false.sendto(b"false", (to, 632))
        assert received(letters) == b""
        with without(leaving(host, "inner")):
            false.sendto(b"false", (to, 632))
            assert received(letters, PATIENCE) == b"false"


async def test_isolated_mode(controller: cnm.Controller, host: Host) -> None:
    """The host has no address on the bridge, and so no way to it."""
    alone = await network(
        controller, "alone", internal=True, gateway_mode_ipv4="isolated"
    )
    assert [gateway.version for gateway in alone.gateways] == [6]
    gateway = no_address(host, host.index("alone"), ip_interface("10.9.0.9/24"))
    with ExitStack() as stack:
        ((one, _),) = await boxes(controller, stack, one=alone)
        asked: list[Probe] = [
            (None, addresses(one)[0], 80, proto) for proto in ("tcp", "udp")
        ]
        async with serving(one):
            await check(asked, gateway)


@pytest.fixture
def forwarding_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have new namespaces inherit what they do from a machine that forwards."""
    unshare = namespaces.unshare

    def inherit(flags: int) -> None:
        unshare(flags)
        sysctl.write("net.ipv4.ip_forward", "1")

    monkeypatch.setattr(namespaces, "unshare", inherit)


@pytest.mark.usefixtures("forwarding_machine")
async def test_out_of_an_internal_network_by_way_of_who_is_in_another(
    neighbour: Namespace,
) -> None:
    async with cnm.Controller(ready_namespaces=0) as controller:
        inner = await network(controller, "inner", internal=True)
        front = await network(controller, "front", 10)
        with ExitStack() as stack:
            made = await boxes(controller, stack, shut=inner, both=inner)
            (shut, inside), (both, between) = made
            await front.connect(both)
            inside.route.call(
                *(add_route(None, via=ip_address(it)) for it in addresses(both)[:1])
            )
            assert not await none_reached(probes(shut, [OUTSIDE4]))
            between.sysctl("net.ipv4.ip_forward", "1")
            assert not unanswered(await reach_all(probes(shut, [OUTSIDE4])))


def isolated(host: Host, sandbox: cnm.Sandbox) -> Barrier:
    """Return the isolation of the port of a sandbox."""
    return isolation(host, host.index(f"veth{sandbox.endpoints[0].id[:11]}"))


def same(host: Host) -> Barrier:
    return entries(host, Element(SAME, ("apart", "apart"), DROP_ICC))


async def test_icc(controller: cnm.Controller, host: Host, filtered: bool) -> None:
    apart = await network(controller, "apart", enable_icc=False)
    with ExitStack() as stack:
        made = await boxes(controller, stack, one=apart, two=apart)
        (one, _), (two, _) = made
        async with serving(one, two):
            for port in (isolated(host, one), isolated(host, two)):
                barriers = [port]
                if filtered:
                    barriers += [same(host), entering(host, "apart", IN_NAT)]
                await check(probes(one, addresses(two)), *barriers)


async def test_icc_and_published_ports(
    controller: cnm.Controller, host: Host, filtered: bool
) -> None:
    apart = await network(controller, "apart", enable_icc=False)
    with ExitStack() as stack:
        ((one, _), (api, _)) = await boxes(controller, stack, one=apart, api=apart)
        await api.endpoints[0].publish("8080:80", "8080:80/udp")
        barriers = [same(host)]
        if filtered:
            # what is translated on the bridge does not leave it
            barriers.append(isolated(host, one))
        async with serving(api):
            await check(published(one, apart), *barriers)
