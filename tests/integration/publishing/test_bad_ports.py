"""Ports that cannot be published: one clear error, and nothing half-done."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

import cnm
from cnm.linux import sysctl
from tests.integration.api.traffic import serving

from .reach import reach

BAD = [
    "",
    "a",
    "0",
    "65536",
    "-1",
    "80:",
    ":",
    "::80",
    "8080:0",
    "0:80",
    "65536:80",
    "8080:80/icmp",
    "8080:80/",
    "8080:80/tcp/udp",
    "9-8:9-8",
    "8000-8010:80-89",
    "8000:80-81",
    "localhost:8080:80",
    "1.2.3:8080:80",
    "::1:8080:80",
    "[fe80::1%eth0]:8080:80",
    "[::1:8080:80",
    "1.2.3.4:8080:80:90",
    "224.0.0.1:8080:80",
    "8080 : 80",
    "٨٠",
    "9" * 10_000,
    "80\x00",
    None,
    80.5,
    True,
    cnm.PortRequest(container_port=0),
    cnm.PortRequest(container_port=80, host_port=70000),
    cnm.PortRequest(container_port=80, host_port=9, host_port_end=8),
    cnm.PortRequest(container_port=80, proto="icmp"),  # type: ignore[arg-type]
]


@pytest.fixture
async def network(controller: cnm.Controller) -> cnm.Network:
    return await controller.create_network(
        "front", subnets=["10.9.0.0/24", "fd00:9::/64"]
    )


@pytest.fixture
async def api(controller: cnm.Controller) -> cnm.Sandbox:
    return await controller.create_sandbox("api")


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad)[:40])
async def test_malformed(network: cnm.Network, bad: object) -> None:
    with pytest.raises(cnm.InvalidError) as caught:
        await network.create_endpoint("api", ports=[bad])  # type: ignore[list-item]
    (problem,) = caught.value.problems
    assert problem.startswith("ports: ")
    assert len(problem) < 400
    assert network.endpoints == ()


async def test_all_faults_together(network: cnm.Network) -> None:
    with pytest.raises(cnm.InvalidError) as caught:
        await network.create_endpoint(
            "api", ports=["a", "8080:80", "8080:81", "65536"], mac="x", exposed=["b"]
        )
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize(
    "ports",
    [
        ["8080:80", "8080:80"],
        ["8080:80", "8080:81"],
        ["8080:80", "0.0.0.0:8080:81"],
        ["127.0.0.1:8080:80", "8080:81"],
        ["[::]:8080:80", "[::1]:8080:80"],
        ["80", "80"],
        ["8000-8010:8000-8010", "8005:80"],
    ],
)
async def test_twice_in_one_call(network: cnm.Network, ports: list[str]) -> None:
    with pytest.raises(cnm.InvalidError, match="ports: "):
        await network.create_endpoint("api", ports=ports)


async def test_together(network: cnm.Network, api: cnm.Sandbox) -> None:
    """What looks alike, and is not."""
    endpoint = await network.connect(
        api,
        ports=[
            "127.0.0.1:8080:80",
            "127.0.0.2:8080:81",
            "8080:80/udp",
            "9000-9003:80",
            "9001:81",
        ],
    )
    assert {it.host_port for it in endpoint.ports} == {8080, 9000, 9001}


async def test_taken_by_an_endpoint(
    controller: cnm.Controller, network: cnm.Network, api: cnm.Sandbox
) -> None:
    first = await network.connect(api, ports=["8080:80", "8081:81/udp"])
    other = await controller.create_sandbox("other")
    with pytest.raises(cnm.PortInUse) as caught:
        await network.connect(
            other, ports=["8080:80", "127.0.0.1:8081:80/udp", "8082:82"]
        )
    text = str(caught.value)
    assert "8080/tcp" in text
    assert "8081/udp" in text
    assert "'api'" in text
    assert "8082" not in text
    assert [e.name for e in network.endpoints] == ["api"]
    assert other.endpoints == ()
    assert len(first.ports) == 4
    await network.connect(other, ports=["8082:82"])


async def test_taken_by_a_program(network: cnm.Network, api: cnm.Sandbox) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 8080))
        busy.listen()
        with pytest.raises(cnm.PortInUse, match=r"8080/tcp.*pytest|python"):
            await network.connect(api, ports=["8080:80", "8081:81"])
        assert network.endpoints == ()
    endpoint = await network.connect(api, ports=["8080:80", "8081:81"])
    for port in (8080, 8081):
        with socket.socket() as late:
            late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                late.bind(("127.0.0.1", port))
    await endpoint.leave()
    with socket.socket() as late:
        late.bind(("127.0.0.1", 8080))


async def test_taken_by_another_controller(
    network: cnm.Network, api: cnm.Sandbox
) -> None:
    await network.connect(api, ports=["8080:80"])
    async with cnm.Controller("second") as second:
        there = await second.create_network("there", subnets=["10.8.0.0/24"])
        sandbox = await second.create_sandbox("sandbox")
        with pytest.raises(cnm.PortInUse, match="8080/tcp"):
            await there.connect(sandbox, ports=["8080:80"])
        endpoint = await there.connect(sandbox, ports=["8081:80"])
        assert endpoint.ports[0].host_port == 8081
        async with serving(api, sandbox):
            for port in (8080, 8081):
                assert await reach(None, "127.0.0.1", port) not in ("", "ECONNREFUSED")


async def test_not_an_address_of_the_host(
    network: cnm.Network, api: cnm.Sandbox
) -> None:
    with pytest.raises(cnm.InvalidError) as caught:
        await network.connect(
            api, ports=["192.0.2.77:8080:80", "[2001:db8::77]:8080:80", "8081:81"]
        )
    text = str(caught.value)
    assert "192.0.2.77" in text
    assert "2001:db8::77" in text
    assert network.endpoints == ()


async def test_impossible(controller: cnm.Controller) -> None:
    inner = await controller.create_network("inner", internal=True)
    with pytest.raises(cnm.InvalidError, match="internal"):
        await inner.create_endpoint("api", ports=["8080:80"])
    four = await controller.create_network("four")
    with pytest.raises(
        cnm.InvalidError, match=r"\[::\]:8080:80/tcp: IPv6 cannot be published"
    ):
        await four.create_endpoint("api", ports=["[::]:8080:80"])
    six = await controller.create_network("six", ipv4=False, ipv6=True)
    with pytest.raises(cnm.InvalidError, match="IPv4 cannot be published"):
        await six.create_endpoint("api", ports=["0.0.0.0:8080:80"])
    for network in (inner, four, six):
        assert network.endpoints == ()


async def test_range_is_used_up(controller: cnm.Controller) -> None:
    network = await controller.create_network("front")
    for number in range(3):
        sandbox = await controller.create_sandbox(f"box{number}")
        endpoint = await network.connect(sandbox, ports=["8080-8082:80"])
        assert {it.host_port for it in endpoint.ports} == {8080 + number}
    late = await controller.create_sandbox("late")
    with pytest.raises(cnm.NoAvailablePort, match="8080-8082"):
        await network.connect(late, ports=["8080-8082:80"])


@pytest.fixture
def few_ports() -> Iterator[None]:
    """Let the kernel choose from six ports, of which three are reserved."""
    names = ("net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports")
    before = [sysctl.read(name) for name in names]
    sysctl.write(names[0], "40000 40005")
    sysctl.write(names[1], "40001-40002,40004")
    yield
    for name, value in zip(names, before, strict=True):
        sysctl.write(name, value)


@pytest.mark.usefixtures("few_ports")
async def test_free_ports_respect_the_kernels_settings() -> None:
    # the proxy's own sockets would take two of them
    async with cnm.Controller(userland_proxy=False) as controller:
        network = await controller.create_network("front")
        sandbox = await controller.create_sandbox("box")
        endpoint = await network.connect(sandbox, ports=["80", "81", "82"])
        assert {it.host_port for it in endpoint.ports} == {40000, 40003, 40005}
        with pytest.raises(cnm.NoAvailablePort, match="40000-40005/tcp"):
            await endpoint.publish("83")
        await endpoint.publish("40001:83")


async def test_publish_all(network: cnm.Network, api: cnm.Sandbox) -> None:
    endpoint = await network.connect(
        api, ports=["8080:80"], exposed=[80, "53/udp", "90-91"], publish_all=True
    )
    assert {(it.container_port, it.proto) for it in endpoint.ports} == {
        (80, "tcp"),
        (53, "udp"),
        (90, "tcp"),
        (91, "tcp"),
    }
    assert {it.host_port for it in endpoint.ports if it.container_port == 80} == {8080}
    assert [str(it) for it in endpoint.info.exposed] == [
        "80/tcp",
        "53/udp",
        "90/tcp",
        "91/tcp",
    ]


@pytest.mark.parametrize(
    ("binding", "hosts"),
    [
        ({"host_binding_ipv4": "127.0.0.1"}, {"127.0.0.1"}),
        ({"host_binding_ipv4": "::1"}, {"::1"}),
        ({"host_binding_ipv4": "::ffff:127.0.0.1"}, {"127.0.0.1"}),
        ({"host_binding_ipv6": "::1"}, {"0.0.0.0", "::1"}),
        ({}, {"0.0.0.0", "::"}),
    ],
)
@pytest.mark.parametrize("whose", ["network", "controller"])
async def test_default_address(
    whose: str, binding: dict[str, str], hosts: set[str]
) -> None:
    given = binding if whose == "controller" else {}
    async with cnm.Controller(**given) as controller:  # type: ignore[arg-type]
        network = await controller.create_network(
            "front",
            subnets=["10.9.0.0/24", "fd00:9::/64"],
            options=binding if whose == "network" else None,
        )
        api = await controller.create_sandbox("api")
        endpoint = await network.connect(api, ports=["8080:80"])
        assert {str(it.host_address) for it in endpoint.ports} == hosts


async def test_drivers_that_cannot(controller: cnm.Controller) -> None:
    assert controller.drivers.names
    with pytest.raises(cnm.InvalidError) as caught:
        cnm.Controller(
            host_binding_ipv4="x",
            host_binding_ipv6="127.0.0.1",
            accept_fwmark="0x1/",
            firewall="iptables",  # type: ignore[arg-type]
            userland_proxy=1,  # type: ignore[arg-type]
        )
    assert len(caught.value.problems) == 5
