"""Publishing, changing and taking back, with real traffic."""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import ip_address

import pytest

from cnm.errors import (
    ConflictError,
    InvalidError,
    KernelError,
    NoAvailablePort,
    PortInUse,
)
from cnm.firewall import Element
from cnm.firewall.ruleset import ANY4
from cnm.linux.nftables import list_elements
from tests.integration.lab import BLOCKED_AFTER

from .world import (
    BOX4,
    BOX6,
    HOST4,
    HOST6,
    ONLY4,
    World,
    binding,
    descriptors,
    publisher,
)


async def test_a_port_is_reached_from_everywhere(world: World) -> None:
    async with publisher(world) as it:
        bindings = await it.mapper.publish(world.publication("8080:80", "53:53/udp"))
        assert list(map(str, bindings)) == [
            f"0.0.0.0:53->{BOX4}:53/udp",
            f"[::]:53->[{BOX6}]:53/udp",
            f"0.0.0.0:8080->{BOX4}:80/tcp",
            f"[::]:8080->[{BOX6}]:80/tcp",
        ]
        for address in (HOST4, HOST6):
            answer = await world.ask(world.client, address, 8080)
            assert answer == f"box {'2001:db8::2' if ':' in address else '192.0.2.2'}"
            assert await world.ask(world.client, address, 53, "udp") == answer
        for address in (HOST4, HOST6, "127.0.0.1", "::1"):
            assert (await world.ask(world.host, address, 8080)).startswith("box ")
            assert (await world.ask(world.host, address, 53, "udp")).startswith("box ")

        await it.mapper.unpublish("e1")

        assert await world.ask(world.client, HOST4, 8080) == "ECONNREFUSED"
        assert await world.ask(world.client, HOST6, 8080) == "ECONNREFUSED"
        assert await world.ask(world.host, "::1", 8080) == "ECONNREFUSED"
        assert await world.ask(world.host, "::1", 53, "udp") == "ECONNREFUSED"


async def test_the_host_reaches_an_ipv4_sandbox_by_either_localhost(
    world: World,
) -> None:
    async with publisher(world) as it:
        wanted = world.publication("8080:80", "53:53/udp", **ONLY4)
        bindings = await it.mapper.publish(wanted)
        assert {str(each.host_address) for each in bindings} == {"0.0.0.0", "::1"}
        for address in ("127.0.0.1", "::1"):
            assert (await world.ask(world.host, address, 8080)).startswith("box ")
            assert (await world.ask(world.host, address, 53, "udp")).startswith("box ")


async def test_without_a_proxy_there_is_no_way_from_ipv6_loopback(world: World) -> None:
    async with publisher(world, proxy=False) as it:
        await it.mapper.publish(world.publication("8080:80"))
        assert (await world.ask(world.host, HOST6, 8080)).startswith("box ")
        assert await world.ask(world.host, "::1", 8080) == "ECONNREFUSED"


async def test_without_ipv6_loopback_nothing_is_proxied(world: World) -> None:
    world.host.sysctl("net.ipv6.conf.lo.disable_ipv6", "1")
    async with publisher(world) as it:
        bindings = await it.mapper.publish(world.publication("8080:80", **ONLY4))
        assert [str(each.host_address) for each in bindings] == ["0.0.0.0"]
        assert await world.ask(world.client, HOST4, 8080) == "box 192.0.2.2"

        world.host.sysctl("net.ipv6.conf.lo.disable_ipv6", "0")

        bindings = await it.mapper.publish(world.publication("8080:80", **ONLY4))
        assert [str(each.host_address) for each in bindings] == ["0.0.0.0", "::1"]
        assert (await world.ask(world.host, "::1", 8080)).startswith("box ")


async def test_an_address_that_was_asked_for(world: World) -> None:
    async with publisher(world) as it:
        await it.mapper.publish(world.publication("192.0.2.9:8080:80"))
        assert await world.ask(world.client, "192.0.2.9", 8080) == "box 192.0.2.2"
        assert await world.ask(world.client, HOST4, 8080) == "ECONNREFUSED"
        assert world.is_free(HOST4, 8080)


async def test_the_controllers_default_address(world: World) -> None:
    async with publisher(world, binding4=ip_address("127.0.0.1")) as it:
        bindings = await it.mapper.publish(world.publication("8080:80"))
        assert [str(each.host_address) for each in bindings] == ["127.0.0.1"]
        assert (await world.ask(world.host, "127.0.0.1", 8080)).startswith("box ")
        assert await world.ask(world.client, HOST4, 8080) == "ECONNREFUSED"


async def test_a_range_of_ports_is_one_element(world: World) -> None:
    async with publisher(world) as it:
        world.servers.add(world.box, 8032)
        for _ in range(2):
            bindings = await it.mapper.publish(
                world.publication("8000-8099:8000-8099", **ONLY4)
            )
            assert len(bindings) == 200
            assert len(list_elements(world.host.nft, "cnm", "range4")) == 1
            assert await world.ask(world.client, HOST4, 8032) == "box 192.0.2.2"

            # what is too short for an element of its own takes the place of the range
            await it.mapper.publish(world.publication("8020-8040:8020-8040", **ONLY4))
            assert len(list_elements(world.host.nft, "cnm", "range4")) == 0
            assert len(list_elements(world.host.nft, "cnm", "any4")) == 21
            assert await world.ask(world.client, HOST4, 8032) == "box 192.0.2.2"
            assert world.is_free("0.0.0.0", 8050)
            assert not world.is_free("0.0.0.0", 8040)


async def test_what_is_published_again_stays(world: World) -> None:
    async with publisher(world) as it:
        first = await it.mapper.publish(world.publication("80", "8000-8010:81"))
        second = await it.mapper.publish(
            world.publication("8000-8010:81", "80", "8080:80")
        )
        assert set(first) < set(second)
        assert await it.mapper.publish(world.publication("80", "8000-8010:81")) == first
        assert world.is_free("0.0.0.0", 8080)


async def test_another_target_for_the_same_port(world: World) -> None:
    async with publisher(world) as it:
        world.host.connect(
            world.client, "v2", "10.9.0.3/24", master=world.bridge, interface="eth9"
        )
        world.servers.add(world.client, 80)
        await it.mapper.publish(world.publication("8080:80", **ONLY4))
        assert (await world.ask(world.host, "127.0.0.1", 8080)).startswith("box ")

        await it.mapper.publish(
            world.publication("8080:80", address="10.9.0.3", **ONLY4)
        )

        for address in ("127.0.0.1", "::1"):
            answer = await world.ask(world.host, address, 8080)
            assert answer.startswith("client ")


@pytest.mark.parametrize("enabled", [True, False])
async def test_from_all_addresses_to_one_and_back(world: World, enabled: bool) -> None:
    async with publisher(world, enabled=enabled) as it:
        for _ in range(2):
            await it.mapper.publish(world.publication("8080:80", **ONLY4))
            assert await world.ask(world.client, "192.0.2.9", 8080) != "ECONNREFUSED"
            await it.mapper.publish(world.publication(f"{HOST4}:8080:80", **ONLY4))
            assert await world.ask(world.client, "192.0.2.9", 8080) == "ECONNREFUSED"
            assert (await world.ask(world.client, HOST4, 8080)).startswith("box ")
            assert world.is_free("192.0.2.9", 8080)


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_change_that_fails_changes_nothing(world: World, enabled: bool) -> None:
    async with publisher(world, enabled=enabled) as it:
        before = await it.mapper.publish(world.publication("8080:80", **ONLY4))
        with world.bind("0.0.0.0", 9000), pytest.raises(PortInUse):
            await it.mapper.publish(
                world.publication(f"{HOST4}:8080:80", "8081:81", "9000:81", **ONLY4)
            )
        assert world.is_free("0.0.0.0", 8081)
        assert not world.is_free("0.0.0.0", 8080)
        assert not world.is_free("192.0.2.9", 8080)
        assert (await world.ask(world.client, "192.0.2.9", 8080)).startswith("box ")
        assert await it.mapper.publish(world.publication("8080:80", **ONLY4)) == before


async def test_nothing_is_left_when_the_kernel_refuses(world: World) -> None:
    async with publisher(world) as it:
        element = Element(ANY4, ("tcp", 8081), (ip_address(BOX4), 1))
        await it.kernel.run(lambda sockets: it.firewall.update(sockets, add=[element]))
        before = descriptors()
        with pytest.raises(ConflictError):
            await it.mapper.publish(world.publication("8080:80", "8081:81", **ONLY4))
        assert world.is_free("0.0.0.0", 8080)
        assert world.is_free("::1", 8080)
        assert await world.ask(world.host, "::1", 8080) == "ECONNREFUSED"
        # the proxy's own sockets are the only ones that have come
        assert descriptors() == before + 2
        with pytest.raises(KernelError):
            await it.mapper.publish(world.publication("8080:80", bridge=1 << 23))
        assert world.is_free("0.0.0.0", 8080)


async def test_part_of_the_bindings_is_taken_back(world: World) -> None:
    async with publisher(world) as it:
        bindings = await it.mapper.publish(world.publication("8080:80", "8081:81"))
        gone = [each for each in bindings if each.host_port == 8080]
        for _ in range(2):
            await it.mapper.unpublish("e1", gone)
        assert world.is_free("0.0.0.0", 8080)
        assert world.is_free("::", 8080)
        assert await world.ask(world.client, HOST4, 8080) == "ECONNREFUSED"
        assert await world.ask(world.client, HOST4, 8081) == "box 192.0.2.2"


async def test_to_take_back_what_was_never_there_is_no_error(world: World) -> None:
    async with publisher(world) as it:
        await it.mapper.unpublish("nobody")
        await it.mapper.unpublish("nobody", [binding("0.0.0.0", 80, BOX4, 80)])
        await it.mapper.publish(world.publication("8080:80"))
        await it.mapper.unpublish("e1", [binding("0.0.0.0", 80, BOX4, 80)])
        assert await world.ask(world.client, HOST4, 8080) == "box 192.0.2.2"


async def test_connections_end_when_their_port_is_taken_back(world: World) -> None:
    async with publisher(world) as it:
        echo = world.box.socket(socket.AF_INET, socket.SOCK_STREAM)
        echo.bind(("", 7))
        echo.listen()
        await it.mapper.publish(world.publication("7:7", **ONLY4))
        with echo, world.client.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(3)
            client.connect((HOST4, 7))
            server, _ = echo.accept()
            with server:
                server.settimeout(BLOCKED_AFTER)
                client.send(b"1")
                assert server.recv(9) == b"1"

                await it.mapper.unpublish("e1")

                client.send(b"2")
                with pytest.raises(TimeoutError):
                    server.recv(9)


async def test_a_udp_client_that_was_there_before(world: World) -> None:
    async with publisher(world) as it:
        with world.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(BLOCKED_AFTER)
            with world.bind(HOST4, 5353, "udp"):
                client.sendto(b"?", (HOST4, 5353))
                with pytest.raises(TimeoutError):
                    client.recv(100)
            await it.mapper.publish(world.publication("5353:53/udp", **ONLY4))
            client.settimeout(3)
            client.sendto(b"?", (HOST4, 5353))
            assert client.recv(100) == b"box 192.0.2.2"


async def test_after_a_restart_ports_are_the_same(world: World) -> None:
    wanted = world.publication("80", "81", "8000-8010:80")
    async with publisher(world) as it:
        await it.mapper.publish(world.publication("9999", endpoint_id="e0"))
        before = await it.mapper.publish(wanted)
    async with publisher(world) as it:
        endpoint = replace(wanted.endpoint, ports=before)
        again = replace(wanted, endpoint=endpoint)
        assert await it.mapper.publish(again) == before
    taken = next(each for each in before if each.container_port == 81)
    async with publisher(world) as it:
        with world.bind("0.0.0.0", taken.host_port):
            after = await it.mapper.publish(again)
        moved = {each.host_port for each in after if each.container_port == 81}
        assert moved
        assert taken.host_port not in moved
        rest = [each for each in before if each.container_port != 81]
        assert set(rest) < set(after)


async def test_closing_frees_the_ports(world: World) -> None:
    before = descriptors()
    async with publisher(world) as it:
        await it.mapper.publish(world.publication("8080:80", "9000-9099:9000-9099"))
        assert not world.is_free("0.0.0.0", 8080)
        await it.mapper.close()
        assert world.is_free("0.0.0.0", 8080)
        assert world.is_free("0.0.0.0", 9050)
    assert descriptors() == before


async def test_routed_networks_have_open_ports(world: World) -> None:
    async with publisher(world) as it:
        wanted = world.publication("8080:80", mode4="routed", gateway4=False, **ONLY4)
        (only,) = await it.mapper.publish(wanted)
        assert str(only) == f"{BOX4}:80/tcp"
        assert world.is_free("0.0.0.0", 8080)
        assert len(list_elements(world.host.nft, "cnm", "open4")) == 1
        await it.mapper.unpublish("e1")
        assert list_elements(world.host.nft, "cnm", "open4") == []


async def test_direct_ports_are_open_under_the_sandboxs_address(world: World) -> None:
    async with publisher(world) as it:
        await it.mapper.publish(world.publication("8080:80", direct=True, **ONLY4))
        assert len(list_elements(world.host.nft, "cnm", "open4")) == 1
        await it.mapper.publish(world.publication("8080:80", **ONLY4))
        assert list_elements(world.host.nft, "cnm", "open4") == []


async def test_problems_are_told_before_anything_is_published(world: World) -> None:
    async with publisher(world, proxy=False) as it:
        wanted = world.publication("80", "[::1]::80", **ONLY4)
        assert it.mapper.problems(wanted) == [
            "ports: [::1]::80/tcp: ::1 is served by the proxy, and there is none"
        ]
    async with publisher(world, proxy=False, enabled=False) as it:
        assert it.mapper.problems(world.publication("80")) == [
            "ports: without firewall and proxy nothing can be published"
        ]
        assert await it.mapper.publish(world.publication("80")) == ()


async def test_no_port_of_a_range_is_free(world: World) -> None:
    async with publisher(world) as it:
        await it.mapper.publish(world.publication("8000:80", "8001:80", **ONLY4))
        wanted = world.publication("8000-8001:80", endpoint_id="e2", **ONLY4)
        expected = "every port of 8000-8001/tcp is in use at 0.0.0.0 and ::1"
        with pytest.raises(NoAvailablePort, match=expected):
            await it.mapper.publish(wanted)
        wanted = world.publication("8000-8002:80", endpoint_id="e2", **ONLY4)
        bindings = await it.mapper.publish(wanted)
        assert {each.host_port for each in bindings} == {8002}


async def test_faults_of_several_kinds_come_together(world: World) -> None:
    async with publisher(world) as it:
        await it.mapper.publish(world.publication("8080:80", **ONLY4))
        wanted = world.publication(
            "8080:80",
            "192.0.2.7:1000:80",
            "192.0.2.7:1001:80",
            "8081:80",
            "8080-8080:81",
            endpoint_id="e2",
            **ONLY4,
        )
        with pytest.raises(InvalidError) as caught:
            await it.mapper.publish(wanted)
        rival = "is in use by endpoint 'web' of network 'front'"
        assert caught.value.problems == (
            "ports: host address 192.0.2.7 is not an address of this host",
            f"port 8080/tcp of 0.0.0.0 {rival}",
            f"port 8080/tcp of ::1 {rival}",
        )
        assert world.is_free("0.0.0.0", 8081)
