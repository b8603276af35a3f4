"""Names of others: whom a sandbox's resolver asks."""

# ruff: noqa: ASYNC110, ASYNC240 - tests may block, and wait

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_interface
from pathlib import Path

import anyio
import dns.rcode
import pytest

import cnm
from cnm.linux import NetlinkSocket, add_address, get_link, parse_link

from ..lab import Namespace
from .ask import NameServer, ask, resolve


async def test_the_hosts_name_servers_are_asked_from_the_host(
    upstream: NameServer, controller: cnm.Controller
) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    box = await controller.create_sandbox("box")
    await front.connect(box)
    assert await resolve(box, "known.example") == ["192.0.2.80"]
    answer = await ask(box, "nobody.example")
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert [rrset.name.to_text() for rrset in answer.authority] == ["example."]
    # what was answered is kept, for everybody
    other = await controller.create_sandbox("other")
    await front.connect(other)
    assert await resolve(other, "KNOWN.example") == ["192.0.2.80"]
    assert upstream.asked == ["known.example.", "nobody.example."]
    counted = controller.name_statistics
    assert (counted.queries, counted.upstream, counted.cached) == (3, 2, 1)
    assert (counted.noerror, counted.nxdomain) == (2, 1)
    assert counted.latency_max > 0
    assert other.name_statistics.cached == 1


async def test_without_a_cache(upstream: NameServer) -> None:
    async with cnm.Controller(dns_cache_size=0) as controller:
        front = await controller.create_network("front", subnets=["10.9.0.0/24"])
        box = await controller.create_sandbox("box")
        await front.connect(box)
        for _ in range(3):
            assert await resolve(box, "known.example") == ["192.0.2.80"]
    assert len(upstream.asked) == 3


async def test_internal_networks_do_not_leak_queries(
    upstream: NameServer, controller: cnm.Controller
) -> None:
    inner = await controller.create_network(
        "inner", subnets=["10.8.0.0/24"], internal=True
    )
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    box = await controller.create_sandbox("box")
    await inner.connect(box)
    assert await resolve(box, "known.example") == "SERVFAIL"
    assert await resolve(box, "box") == ["10.8.0.2"]
    assert upstream.asked == []
    await front.connect(box)
    assert await resolve(box, "known.example") == ["192.0.2.80"]
    await front.disconnect(box)
    assert await resolve(box, "known.example") == "SERVFAIL"
    assert upstream.asked == ["known.example."]


async def test_a_name_server_inside_an_internal_network(
    upstream: NameServer, controller: cnm.Controller
) -> None:
    inner = await controller.create_network(
        "inner", subnets=["10.8.0.0/24"], internal=True
    )
    server = await controller.create_sandbox("server")
    await inner.connect(server, address="10.8.0.53", exposed=["53/udp"])
    box = await controller.create_sandbox("box", dns=["10.8.0.53"])
    await inner.connect(box)
    with (
        Namespace("server", server.key) as there,
        NameServer(there, "10.8.0.53") as inside,
    ):
        assert await resolve(box, "known.example") == ["192.0.2.80"]
        assert inside.asked == ["known.example."]
    assert upstream.asked == []


@pytest.mark.parametrize("servers", [["127.0.0.11"], ["127.0.0.11", "127.0.0.11"]])
async def test_the_resolver_does_not_ask_itself(
    upstream: NameServer, controller: cnm.Controller, servers: Sequence[str]
) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    box = await controller.create_sandbox("box", dns=servers)
    await front.connect(box)
    assert await resolve(box, "known.example") == "SERVFAIL"
    assert box.name_statistics.queries == 1
    assert upstream.asked == []


async def test_the_next_server_is_asked_within_a_second(
    host_file: Path, upstream: NameServer
) -> None:
    host_file.write_text("nameserver 127.0.0.54\nnameserver 127.0.0.53\n")
    async with cnm.Controller() as controller:
        front = await controller.create_network("front", subnets=["10.9.0.0/24"])
        box = await controller.create_sandbox("box")
        await front.connect(box)
        assert await resolve(box, "known.example") == ["192.0.2.80"]
        with NameServer(None, "127.0.0.54", silent=True) as silent:
            before = anyio.current_time()
            assert await resolve(box, "nobody.example") == "NXDOMAIN"
            assert silent.asked == ["nobody.example."]
            assert 0.9 < anyio.current_time() - before < 3
        assert box.name_statistics.failures == 1


async def test_the_hosts_name_servers_may_change(
    host_file: Path, upstream: NameServer
) -> None:
    host_file.write_text("# none\n")
    async with cnm.Controller() as controller:
        front = await controller.create_network("front", subnets=["10.9.0.0/24"])
        box = await controller.create_sandbox("box")
        await front.connect(box)
        assert await resolve(box, "known.example") == "SERVFAIL"
        host_file.write_text("nameserver 127.0.0.53\n")
        with anyio.fail_after(30):
            while await resolve(box, "known.example") != ["192.0.2.80"]:
                await anyio.sleep(0.1)


async def test_what_former_servers_said_is_forgotten(
    host_file: Path, upstream: NameServer, controller: cnm.Controller
) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    box = await controller.create_sandbox("box")
    await front.connect(box)
    assert await resolve(box, "known.example") == ["192.0.2.80"]
    records = {("known.example.", "A"): ["192.0.2.81"]}
    with NameServer(None, "127.0.0.54", records=records), anyio.fail_after(30):
        host_file.write_text("nameserver 127.0.0.54\n")
        while await resolve(box, "known.example") != ["192.0.2.81"]:
            await anyio.sleep(0.1)


async def test_a_server_at_a_link_local_address(
    host_file: Path, controller: cnm.Controller
) -> None:
    front = await controller.create_network(
        "front", subnets=["10.9.0.0/24", "fd00:9::/64"], options={"name": "front0"}
    )
    link_local = "fe80::53"
    host_file.write_text(f"nameserver {link_local}%front0\n")
    box = await controller.create_sandbox("box")
    await front.connect(box)
    with NetlinkSocket() as route:
        index = parse_link(route.call(get_link(name="front0"))[0]).index
        route.call(add_address(index, ip_interface(f"{link_local}/64")))
    with NameServer(None, f"{link_local}%front0"), anyio.fail_after(30):
        while await resolve(box, "known.example") != ["192.0.2.80"]:
            await anyio.sleep(0.1)


async def test_names_without_a_dot_stay_if_ndots_is_given(
    upstream: NameServer, controller: cnm.Controller
) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    box = await controller.create_sandbox("box", dns_options=["ndots:1"])
    await front.connect(box)
    assert await resolve(box, "nobody") == []
    assert upstream.asked == []
    assert await resolve(box, "nobody.example") == "NXDOMAIN"


class Policy:
    """Refuses names that begin with ``bad``, and remembers addresses."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int]] = []

    def allows(self, sandbox_id: str, name: str, kind: str) -> bool:
        return not name.startswith("bad")

    async def answered(
        self, sandbox_id: str, name: str, addresses: Sequence[cnm.IPAddress], ttl: int
    ) -> None:
        await anyio.lowlevel.checkpoint()
        self.told += [(name, str(address), ttl) for address in addresses]


async def test_a_policy(upstream: NameServer, controller: cnm.Controller) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    box = await controller.create_sandbox("box")
    await front.connect(box, aliases=["bad-one"])
    policy = Policy()
    assert await resolve(box, "bad-one") == ["10.9.0.2"]
    box.name_policy = policy
    with pytest.raises(cnm.InvalidError, match=r"name_policy: expected .*, not 'no'"):
        box.name_policy = "no"  # type: ignore[assignment]
    assert box.name_policy is policy
    assert await resolve(box, "bad-one") == "REFUSED"
    assert await resolve(box, "bad.example") == "REFUSED"
    assert upstream.asked == []
    assert await resolve(box, "Known.example") == ["192.0.2.80"]
    assert await resolve(box, "box") == ["10.9.0.2"]
    assert policy.told == [("known.example", "192.0.2.80", 60), ("box", "10.9.0.2", 5)]
    box.name_policy = None
    assert await resolve(box, "bad-one") == ["10.9.0.2"]


async def test_queries_are_told_to_those_who_ask_for_them(
    upstream: NameServer, controller: cnm.Controller
) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    box = await controller.create_sandbox("box")
    await front.connect(box)
    async with controller.subscribe() as everything:
        async with controller.subscribe(cnm.NameQueried) as queries:
            await resolve(box, "BOX")
            await resolve(box, "known.example")
            await resolve(box, "known.example")
            heard = [await anext(queries) for _ in range(3)]
        assert [(it.question, it.code, it.source) for it in heard] == [
            ("box", "NOERROR", "own"),
            ("known.example", "NOERROR", "upstream"),
            ("known.example", "NOERROR", "cache"),
        ]
        assert heard[0].sandbox == box.info
        assert [str(address) for address in heard[1].addresses] == ["192.0.2.80"]
        await resolve(box, "box")
        await controller.create_sandbox("last")
        assert isinstance(await anext(everything), cnm.SandboxCreated)
    assert box.name_statistics.queries == 4
