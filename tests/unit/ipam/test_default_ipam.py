from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import pairwise

import pytest

from cnm.errors import (
    AddressInUse,
    CNMError,
    ForbiddenError,
    InvalidError,
    NoAvailablePool,
    NotFoundError,
    PoolOverlap,
)
from cnm.events import (
    AddressReleased,
    AddressRequested,
    PoolInspected,
    PoolReleased,
    PoolRequested,
)
from cnm.ipam.default import DefaultIPAM
from cnm.ipam.pools import default_address_pools
from cnm.types import JSON, AddressPool, Pool, PoolStatus

pytestmark = pytest.mark.anyio

POOLS = default_address_pools("host")


@pytest.fixture
def ipam() -> DefaultIPAM:
    return DefaultIPAM()


async def request(
    ipam: DefaultIPAM,
    subnet: str = "",
    ip_range: str = "",
    *,
    version: int = 4,
    network: str = "n",
    options: dict[str, JSON] | None = None,
    pools: tuple[AddressPool, ...] = POOLS,
    exclude: tuple[str, ...] = (),
) -> Pool:
    return await ipam.cnm_pool_requested(
        PoolRequested(
            network_id=network,
            version=version,
            subnet=ip_network(subnet) if subnet else None,
            ip_range=ip_network(ip_range) if ip_range else None,
            options=options or {},
            address_pools=pools,
            exclude=tuple(ip_network(text) for text in exclude),
        )
    )


async def release(ipam: DefaultIPAM, pool: Pool, network: str = "n") -> None:
    event = PoolReleased(network_id=network, pool_id=pool.id)
    await ipam.cnm_pool_released(event)


async def address(
    ipam: DefaultIPAM,
    pool: Pool,
    asked: str = "",
    owner: str = "e",
    *,
    gateway: bool = False,
) -> str:
    event = AddressRequested(
        pool_id=pool.id,
        owner=owner,
        address=ip_address(asked) if asked else None,
        gateway=gateway,
    )
    return str((await ipam.cnm_address_requested(event)).interface)


async def release_address(
    ipam: DefaultIPAM, pool: Pool, released: str, owner: str = "e"
) -> None:
    event = AddressReleased(pool_id=pool.id, owner=owner, address=ip_address(released))
    await ipam.cnm_address_released(event)


async def status(ipam: DefaultIPAM, pool: Pool) -> PoolStatus:
    return await ipam.cnm_pool_inspected(PoolInspected(pool_id=pool.id))


async def test_without_configuration_networks_get_libnetworks_subnets(
    ipam: DefaultIPAM,
) -> None:
    got = [await request(ipam) for _ in range(3)]
    assert [str(pool.subnet) for pool in got] == [
        "172.17.0.0/16",
        "172.18.0.0/16",
        "172.19.0.0/16",
    ]
    assert await address(ipam, got[0], gateway=True) == "172.17.0.1/16"
    assert await address(ipam, got[0]) == "172.17.0.2/16"


async def test_ten_thousand_networks_fit_without_configuration(
    ipam: DefaultIPAM,
) -> None:
    subnets = {(await request(ipam)).subnet for _ in range(10_000)}
    assert len(subnets) == 10_000
    edges = sorted(
        (int(subnet.network_address), int(subnet.broadcast_address))
        for subnet in subnets
    )
    assert all(a[1] < b[0] for a, b in pairwise(edges))


async def test_ipv6_networks_get_distinct_subnets_of_the_hosts_own_prefix(
    ipam: DefaultIPAM,
) -> None:
    prefix = POOLS[-1].base
    got = [(await request(ipam, version=6)).subnet for _ in range(2)]
    assert got == list(prefix.subnets(new_prefix=64))[:2]


async def test_what_the_host_uses_is_not_chosen_but_can_be_asked_for(
    ipam: DefaultIPAM,
) -> None:
    host = ("172.16.0.0/12", "192.168.3.53/32", "fe80::/64")
    assert str((await request(ipam, exclude=host)).subnet) == "192.168.16.0/20"
    named = await request(ipam, "172.17.0.0/16", exclude=host)
    assert str(named.subnet) == "172.17.0.0/16"


@pytest.mark.parametrize(
    ("asked", "subnet"), [("0.0.0.0/24", "172.17.0.0/24"), ("::/120", None)]
)
async def test_a_subnet_of_a_size_comes_from_the_pools(
    ipam: DefaultIPAM, asked: str, subnet: str | None
) -> None:
    version = ip_network(asked).version
    got = (await request(ipam, asked, version=version)).subnet
    assert str(got) == (subnet or f"{POOLS[-1].base.network_address}/120")


async def test_a_size_that_no_pool_has_room_for_is_invalid(ipam: DefaultIPAM) -> None:
    with pytest.raises(InvalidError, match="size '/8'"):
        await request(ipam, "0.0.0.0/8")


async def test_without_a_pool_of_the_family_none_is_available(
    ipam: DefaultIPAM,
) -> None:
    with pytest.raises(NoAvailablePool):
        await request(ipam, pools=())


async def test_pool_ids_name_subnet_and_range(ipam: DefaultIPAM) -> None:
    whole = await request(ipam, "10.0.0.0/24")
    part = await request(ipam, "10.0.1.0/24", "10.0.1.64/26")
    assert (whole.id, part.id) == (
        "local/10.0.0.0/24",
        "local/10.0.1.0/24/10.0.1.64/26",
    )
    assert (whole.ip_range, part.ip_range) == (None, ip_network("10.0.1.64/26"))
    assert await address(ipam, part) == "10.0.1.64/24"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("10.0.0.0/24", ""), ("10.0.0.0/24", "")),
        (("10.0.0.0/24", ""), ("10.0.0.0/24", "10.0.0.0/25")),
        (("10.0.0.0/24", "10.0.0.0/25"), ("10.0.0.0/24", "")),
        (("10.0.0.0/24", "10.0.0.0/25"), ("10.0.0.0/24", "10.0.0.0/25")),
        (("10.0.0.0/24", "10.0.0.0/25"), ("10.0.0.0/24", "10.0.0.64/26")),
        (("10.0.0.0/24", "10.0.0.0/26"), ("10.0.0.0/24", "10.0.0.0/24")),
        (("10.0.0.0/24", "10.0.0.0/32"), ("10.0.0.0/24", "10.0.0.0/32")),
        (("10.0.0.0/24", ""), ("10.0.0.0/25", "")),
        (("10.0.0.0/24", "10.0.0.0/25"), ("10.0.0.0/16", "10.0.9.0/24")),
        (("fd00::/64", ""), ("fd00::/48", "")),
    ],
)
async def test_overlapping_subnets_are_refused(
    ipam: DefaultIPAM, first: tuple[str, str], second: tuple[str, str]
) -> None:
    version = ip_network(first[0]).version
    pool = await request(ipam, *first, version=version)
    with pytest.raises(PoolOverlap, match=f"subnet {second[0]} .*in use"):
        await request(ipam, *second, version=version, network="m")
    await release(ipam, pool)
    await request(ipam, *second, version=version, network="m")


async def test_networks_share_a_subnet_if_each_has_a_range_of_its_own(
    ipam: DefaultIPAM,
) -> None:
    low = await request(ipam, "10.0.0.0/24", "10.0.0.0/25", network="low")
    high = await request(ipam, "10.0.0.0/24", "10.0.0.128/25", network="high")
    assert await address(ipam, low, gateway=True) == "10.0.0.1/24"
    assert await address(ipam, high, "10.0.0.2") == "10.0.0.2/24"
    assert await address(ipam, low) == "10.0.0.3/24"
    assert await address(ipam, high) == "10.0.0.128/24"
    with pytest.raises(AddressInUse):
        await address(ipam, high, "10.0.0.3", owner="other")
    await release(ipam, low, network="low")
    assert await address(ipam, high, "10.0.0.3", owner="other") == "10.0.0.3/24"
    with pytest.raises(PoolOverlap):
        await request(ipam, "10.0.0.0/25", network="low")
    await release(ipam, high, network="high")
    await request(ipam, "10.0.0.0/25", network="low")


async def test_a_released_pool_is_given_again_without_its_addresses(
    ipam: DefaultIPAM,
) -> None:
    pool = await request(ipam)
    await address(ipam, pool, "172.17.0.9")
    await release(ipam, pool)
    assert await request(ipam) == pool
    assert await address(ipam, pool, "172.17.0.9", owner="other") == "172.17.0.9/16"


async def test_releasing_twice_is_no_error(ipam: DefaultIPAM) -> None:
    pool = await request(ipam)
    await address(ipam, pool, "172.17.0.9")
    for _ in range(2):
        await release_address(ipam, pool, "172.17.0.9")
    for _ in range(2):
        await release(ipam, pool)
    await release_address(ipam, pool, "172.17.0.9")
    assert await request(ipam) == pool


async def test_only_the_owner_releases(ipam: DefaultIPAM) -> None:
    pool = await request(ipam, network="owner")
    await address(ipam, pool, "172.17.0.9", owner="owner")
    with pytest.raises(ForbiddenError, match=r"'owner'.*'thief'"):
        await release_address(ipam, pool, "172.17.0.9", owner="thief")
    with pytest.raises(ForbiddenError, match=r"'owner'.*'thief'"):
        await release(ipam, pool, network="thief")
    with pytest.raises(AddressInUse):
        await address(ipam, pool, "172.17.0.9", owner="thief")


async def test_an_unknown_pool_is_not_found(ipam: DefaultIPAM) -> None:
    pool = Pool(id="local/10.9.0.0/24", subnet=ip_network("10.9.0.0/24"))
    with pytest.raises(NotFoundError, match=r"pool 'local/10.9.0.0/24' not found"):
        await address(ipam, pool)
    with pytest.raises(NotFoundError):
        await status(ipam, pool)


async def test_aux_addresses_are_never_given(ipam: DefaultIPAM) -> None:
    pool = await request(ipam, "10.0.0.0/29")
    await address(ipam, pool, "10.0.0.2", owner="network")
    assert await address(ipam, pool, owner="network", gateway=True) == "10.0.0.1/29"
    got = [await address(ipam, pool) for _ in range(4)]
    assert got == [f"10.0.0.{host}/29" for host in (3, 4, 5, 6)]


@pytest.mark.parametrize("subnet", ["10.0.0.0/31", "fd00::/127"])
async def test_a_point_to_point_subnet_has_room_for_two(
    ipam: DefaultIPAM, subnet: str
) -> None:
    network = ip_network(subnet)
    pool = await request(ipam, subnet, version=network.version)
    assert await status(ipam, pool) == PoolStatus(in_use=0, available=2)
    got = [await address(ipam, pool) for _ in range(2)]
    assert got == [f"{network[i]}/{network.prefixlen}" for i in (0, 1)]


async def test_status(ipam: DefaultIPAM) -> None:
    pool = await request(ipam, "192.168.0.0/24", "192.168.0.0/25")
    await address(ipam, pool, "192.168.0.1", owner="network")
    await address(ipam, pool, "192.168.0.100", owner="network")
    assert await status(ipam, pool) == PoolStatus(in_use=4, available=125)
    await address(ipam, pool)
    assert await status(ipam, pool) == PoolStatus(in_use=5, available=124)


@pytest.mark.parametrize("name", ["serial", "com.docker.network.ipam.serial"])
@pytest.mark.parametrize(
    ("value", "then"),
    [(True, 2), ("1", 2), ("True", 2), (False, 1), ("f", 1), ("FALSE", 1)],
)
async def test_option_serial(
    ipam: DefaultIPAM, name: str, value: JSON, then: int
) -> None:
    pool = await request(ipam, "10.0.0.0/24", options={name: value})
    assert await address(ipam, pool) == "10.0.0.1/24"
    await release_address(ipam, pool, "10.0.0.1")
    assert await address(ipam, pool) == f"10.0.0.{then}/24"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"seriel": True}, r"unknown option 'seriel'.* \(known: serial\)"),
        ({"serial": "yes"}, "failed to parse serial value: 'yes'"),
        (
            {"serial": True, "com.docker.network.ipam.serial": False},
            "'serial' is given twice",
        ),
    ],
)
async def test_a_wrong_option_is_refused(
    ipam: DefaultIPAM, options: dict[str, JSON], problem: str
) -> None:
    with pytest.raises(InvalidError, match=f"ipam_options: {problem}"):
        await request(ipam, "10.0.0.0/24", options=options)
    await request(ipam, "10.0.0.0/24")


async def test_one_network_may_have_two_ranges_of_a_subnet(ipam: DefaultIPAM) -> None:
    low = await request(ipam, "10.0.0.0/24", "10.0.0.4/32")
    high = await request(ipam, "10.0.0.0/24", "10.0.0.8/32")
    await address(ipam, high)
    # the core does not know from which of the pools an address came
    for pool in (low, high):
        await release_address(ipam, pool, "10.0.0.8")
    assert await address(ipam, low, "10.0.0.8", owner="other") == "10.0.0.8/24"


@pytest.mark.parametrize(
    ("subnet", "ip_range", "version", "problem"),
    [
        ("fd00::/64", "", 4, "subnet fd00::/64 is not an IPv4 subnet"),
        ("10.0.0.0/24", "fd00::/120", 4, "ip_range fd00::/120 is not inside"),
        ("10.0.0.0/24", "10.0.0.0/23", 4, "ip_range 10.0.0.0/23 is not inside"),
        ("10.0.1.0/24", "10.0.0.0/23", 4, "ip_range 10.0.0.0/23 is not inside"),
        ("", "10.0.0.0/24", 4, "ip_range 10.0.0.0/24 needs a subnet"),
        ("0.0.0.0/24", "0.0.0.0/25", 4, "ip_range 0.0.0.0/25 needs a subnet"),
    ],
)
async def test_an_impossible_range_is_refused(
    ipam: DefaultIPAM, subnet: str, ip_range: str, version: int, problem: str
) -> None:
    with pytest.raises(InvalidError, match=problem):
        await request(ipam, subnet, ip_range, version=version)


async def test_after_a_restart_everything_is_taken_again_in_any_order() -> None:
    before = DefaultIPAM()
    pools = [await request(before, network=str(i)) for i in range(4)]
    got = [(pool, await address(before, pool)) for pool in pools for _ in range(5)]
    ipam = DefaultIPAM()
    for i in (2, 0, 3, 1):
        replayed = await request(
            ipam, str(pools[i].subnet), network=str(i), exclude=("172.16.0.0/12",)
        )
        assert replayed == pools[i]
    for pool, interface in reversed(got):
        assert await address(ipam, pool, interface.partition("/")[0]) == interface
    assert str((await request(ipam)).subnet) == "172.21.0.0/16"
    assert await address(ipam, pools[0]) == "172.17.0.6/16"
    other_pools = (AddressPool(base=ip_network("10.0.0.0/8"), size=24),)
    assert str((await request(ipam, pools=other_pools)).subnet) == "10.0.0.0/24"


async def test_a_refused_request_leaves_nothing_behind(ipam: DefaultIPAM) -> None:
    pool = await request(ipam, "10.0.0.0/29")
    before = await status(ipam, pool)
    for asked in ("10.0.0.0", "10.0.0.7", "10.0.1.1", "fd00::1"):
        with pytest.raises(CNMError):
            await address(ipam, pool, asked)
    assert await status(ipam, pool) == before
