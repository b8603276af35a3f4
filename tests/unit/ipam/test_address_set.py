from __future__ import annotations

import tracemalloc
from ipaddress import ip_address, ip_network

import pytest

from cnm.errors import AddressInUse, ForbiddenError, InvalidError, NoAvailableAddress
from cnm.ipam import addresses
from cnm.ipam.addresses import AddressSet, usable_bounds
from cnm.types import PoolStatus


def make(subnet: str, ip_range: str = "", *, serial: bool = True) -> AddressSet:
    made = AddressSet(ip_network(subnet))
    made.add_pool("p", ip_network(ip_range or subnet), serial=serial)
    return made


def any_of(made: AddressSet, owner: str = "o", pool: str = "p") -> str:
    return str(made.request(pool, owner, None))


def named(made: AddressSet, address: str, owner: str = "o", pool: str = "p") -> str:
    return str(made.request(pool, owner, ip_address(address)))


def release(made: AddressSet, address: str, owner: str = "o") -> None:
    made.release(owner, ip_address(address))


def drain(made: AddressSet) -> list[str]:
    """Request addresses until none is left."""
    got = []
    while True:
        try:
            got.append(any_of(made))
        except NoAvailableAddress:
            return got


@pytest.mark.parametrize(
    ("subnet", "first", "last"),
    [
        ("10.0.0.0/24", "10.0.0.1", "10.0.0.254"),
        ("10.0.0.8/29", "10.0.0.9", "10.0.0.14"),
        ("10.0.0.4/30", "10.0.0.5", "10.0.0.6"),
        ("10.0.0.2/31", "10.0.0.2", "10.0.0.3"),
        ("10.0.0.9/32", "10.0.0.9", "10.0.0.9"),
        ("10.0.0.0/8", "10.0.0.1", "10.255.255.254"),
        ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff"),
        ("fd00::100/120", "fd00::101", "fd00::1ff"),
        ("fd00::4/126", "fd00::5", "fd00::7"),
        ("fd00::2/127", "fd00::2", "fd00::3"),
        ("fd00::9/128", "fd00::9", "fd00::9"),
    ],
)
def test_reserved_addresses_are_not_usable(subnet: str, first: str, last: str) -> None:
    expected = int(ip_address(first)), int(ip_address(last))
    assert usable_bounds(ip_network(subnet)) == expected


@pytest.mark.parametrize("serial", [True, False])
@pytest.mark.parametrize(
    ("subnet", "hosts"),
    [
        ("10.0.0.8/29", range(9, 15)),
        ("10.0.0.8/30", range(9, 11)),
        ("10.0.0.8/31", range(8, 10)),
        ("10.0.0.8/32", range(8, 9)),
        ("fd00::100/120", range(0x101, 0x200)),
        ("fd00::104/126", range(0x105, 0x108)),
        ("fd00::104/127", range(0x104, 0x106)),
        ("fd00::104/128", range(0x104, 0x105)),
    ],
)
def test_each_usable_address_is_given_once_in_order(
    subnet: str, hosts: range, serial: bool
) -> None:
    network = ip_network(subnet)
    made = make(subnet, serial=serial)
    assert made.status("p").available == len(hosts)
    offset = int(network.network_address) & 0xFFF
    assert drain(made) == [
        f"{network[host - offset]}/{network.prefixlen}" for host in hosts
    ]
    assert made.status("p") == PoolStatus(in_use=network.num_addresses, available=0)


def test_an_address_has_the_prefix_length_of_the_subnet_not_of_the_range() -> None:
    assert any_of(make("10.0.0.0/16", "10.0.1.0/24")) == "10.0.1.0/16"


def test_serial_continues_after_the_last_chosen_address() -> None:
    made = make("10.0.0.0/29")
    assert any_of(made) == "10.0.0.1/29"
    release(made, "10.0.0.1")
    assert any_of(made) == "10.0.0.2/29"


def test_serial_reuses_the_longest_released_first_when_the_range_is_used_up() -> None:
    made = make("10.0.0.0/29")
    drain(made)
    for host in (5, 2, 4):
        release(made, f"10.0.0.{host}")
    assert drain(made) == ["10.0.0.5/29", "10.0.0.2/29", "10.0.0.4/29"]


def test_serial_counts_the_last_release_of_an_address_asked_for_in_between() -> None:
    made = make("10.0.0.0/29")
    drain(made)
    release(made, "10.0.0.5")
    release(made, "10.0.0.2")
    named(made, "10.0.0.5")
    release(made, "10.0.0.5")
    assert drain(made) == ["10.0.0.2/29", "10.0.0.5/29"]


def test_serial_does_not_choose_a_released_static_address_before_unused_ones() -> None:
    made = make("10.0.0.0/29")
    named(made, "10.0.0.1")
    release(made, "10.0.0.1")
    assert [any_of(made) for _ in range(6)] == [
        *(f"10.0.0.{host}/29" for host in range(2, 7)),
        "10.0.0.1/29",
    ]


def test_not_serial_chooses_the_lowest_free_address() -> None:
    made = make("10.0.0.0/29", serial=False)
    for _ in range(4):
        any_of(made)
    for host in (3, 1):
        release(made, f"10.0.0.{host}")
    assert drain(made) == [f"10.0.0.{host}/29" for host in (1, 3, 5, 6)]


def test_not_serial_skips_a_released_address_that_was_taken_again_by_name() -> None:
    made = make("10.0.0.0/29", serial=False)
    drain(made)
    release(made, "10.0.0.2")
    named(made, "10.0.0.2")
    release(made, "10.0.0.4")
    assert drain(made) == ["10.0.0.4/29"]
    release(made, "10.0.0.2")
    assert drain(made) == ["10.0.0.2/29"]


def test_not_serial_remembers_a_released_address_once() -> None:
    made = make("10.0.0.0/29", serial=False)
    drain(made)
    for _ in range(3):
        release(made, "10.0.0.2")
        named(made, "10.0.0.2")
    release(made, "10.0.0.2")
    release(made, "10.0.0.4")
    assert drain(made) == ["10.0.0.2/29", "10.0.0.4/29"]


@pytest.mark.parametrize("serial", [True, False])
def test_a_static_address_is_never_chosen(serial: bool) -> None:
    made = make("10.0.0.0/28", serial=serial)
    for host in (1, 2, 7, 14):
        named(made, f"10.0.0.{host}", owner="static")
    for _ in range(3):
        got = drain(made)
        assert sorted(got) == sorted(
            f"10.0.0.{host}/28" for host in range(1, 15) if host not in (1, 2, 7, 14)
        )
        for interface in got:
            release(made, interface.partition("/")[0])


def test_a_released_address_is_given_at_once_to_who_asks_for_it() -> None:
    made = make("10.0.0.0/29")
    any_of(made)
    release(made, "10.0.0.1")
    assert named(made, "10.0.0.1", owner="another") == "10.0.0.1/29"


def test_an_address_is_not_given_twice() -> None:
    made = make("10.0.0.0/29")
    named(made, "10.0.0.2", owner="first")
    with pytest.raises(AddressInUse, match=r"address 10\.0\.0\.2 is already in use"):
        named(made, "10.0.0.2", owner="second")


def test_who_asks_again_for_what_he_has_gets_it_again() -> None:
    made = make("10.0.0.0/29")
    named(made, "10.0.0.2")
    before = made.status("p")
    assert named(made, "10.0.0.2") == "10.0.0.2/29"
    assert made.status("p") == before
    release(made, "10.0.0.2")
    assert named(made, "10.0.0.2", owner="another") == "10.0.0.2/29"


@pytest.mark.parametrize(
    ("subnet", "address"),
    [
        ("10.0.0.0/24", "10.0.0.0"),
        ("10.0.0.0/24", "10.0.0.255"),
        ("fd00::/64", "fd00::"),
    ],
)
def test_a_reserved_address_is_refused(subnet: str, address: str) -> None:
    made = make(subnet)
    with pytest.raises(InvalidError, match=f"{address} is reserved in .* between"):
        named(made, address)
    assert made.status("p").in_use == (2 if "." in subnet else 1)


@pytest.mark.parametrize("address", ["10.0.1.0", "9.255.255.255", "::a00:2"])
def test_an_address_outside_the_subnet_is_refused(address: str) -> None:
    with pytest.raises(InvalidError, match=f"{address} is not in subnet 10.0.0.0/24"):
        named(make("10.0.0.0/24"), address)


def test_an_address_outside_the_range_is_given_when_the_range_is_used_up() -> None:
    made = make("10.0.0.0/24", "10.0.0.128/31")
    assert drain(made) == ["10.0.0.128/24", "10.0.0.129/24"]
    with pytest.raises(NoAvailableAddress, match=r"IPv4 .* left in 10\.0\.0\.128/31"):
        any_of(made)
    assert named(made, "10.0.0.5") == "10.0.0.5/24"
    release(made, "10.0.0.5")
    assert drain(made) == []


def test_a_range_of_one_address_is_used_up_by_the_gateway() -> None:
    made = make("10.0.0.0/29", "10.0.0.3/32")
    assert any_of(made, owner="network") == "10.0.0.3/29"
    with pytest.raises(NoAvailableAddress):
        any_of(made)
    assert named(made, "10.0.0.4") == "10.0.0.4/29"


def test_a_range_of_nothing_but_the_network_address_is_empty() -> None:
    made = make("10.0.0.0/29", "10.0.0.0/32")
    assert made.status("p").available == 0
    assert drain(made) == []


def test_only_the_owner_releases() -> None:
    made = make("10.0.0.0/29")
    named(made, "10.0.0.2", owner="owner")
    with pytest.raises(ForbiddenError, match=r"belongs to 'owner', .* by 'thief'"):
        release(made, "10.0.0.2", owner="thief")
    with pytest.raises(AddressInUse):
        named(made, "10.0.0.2", owner="thief")


@pytest.mark.parametrize("address", ["10.0.0.2", "10.9.9.9", "::a00:1", "10.0.0.0"])
def test_releasing_what_nobody_has_changes_nothing(address: str) -> None:
    made = make("10.0.0.0/29")
    any_of(made)
    before = made.status("p")
    release(made, address)
    release(made, address)
    assert made.status("p") == before
    assert drain(made) == [f"10.0.0.{host}/29" for host in range(2, 7)]


def test_status_counts_as_libnetwork_does() -> None:
    made = make("192.168.0.0/24", "192.168.0.0/25")
    named(made, "192.168.0.1")
    named(made, "192.168.0.100")
    assert made.status("p") == PoolStatus(in_use=4, available=125)
    any_of(made)
    assert made.status("p") == PoolStatus(in_use=5, available=124)
    named(made, "192.168.0.200")
    assert made.status("p") == PoolStatus(in_use=6, available=124)


def test_status_of_a_small_range_of_a_large_subnet() -> None:
    made = make("fd00::/64", "fd00::/124")
    assert made.status("p") == PoolStatus(in_use=1, available=15)
    any_of(made)
    assert made.status("p") == PoolStatus(in_use=2, available=14)


def test_status_saturates() -> None:
    made = make("fd00::/56")
    any_of(made)
    assert made.status("p") == PoolStatus(in_use=2, available=2**64 - 1)


def test_addresses_beyond_2_to_the_64_are_usable() -> None:
    made = make("fd00::/48", "fd00:0:0:1::/64")
    assert any_of(made) == "fd00:0:0:1::/48"
    last = "fd00::ffff:ffff:ffff:ffff:ffff"
    assert named(made, last) == f"{last}/48"
    assert made.status("p") == PoolStatus(in_use=3, available=2**64 - 1)


def test_pools_with_ranges_of_their_own_share_the_addresses() -> None:
    made = make("10.0.0.0/24", "10.0.0.0/25")
    made.add_pool("q", ip_network("10.0.0.128/25"), serial=True)
    assert any_of(made) == "10.0.0.1/24"
    assert any_of(made, pool="q") == "10.0.0.128/24"
    named(made, "10.0.0.129", owner="o")
    with pytest.raises(AddressInUse):
        named(made, "10.0.0.129", pool="q", owner="another")
    assert named(made, "10.0.0.129", pool="q", owner="o") == "10.0.0.129/24"
    assert any_of(made, pool="q") == "10.0.0.130/24"


@pytest.mark.parametrize("serial", [True, False])
def test_a_pool_that_goes_leaves_the_others_what_they_have(serial: bool) -> None:
    made = make("10.0.0.0/29", "10.0.0.0/30", serial=serial)
    made.add_pool("q", ip_network("10.0.0.4/30"), serial=serial)
    named(made, "10.0.0.2", pool="q", owner="stays")
    named(made, "10.0.0.4", pool="p", owner="goes")
    any_of(made)
    made.remove_pool("p")
    assert made.status("q") == PoolStatus(in_use=3, available=3)
    assert sorted(any_of(made, pool="q") for _ in range(3)) == [
        f"10.0.0.{host}/29" for host in (4, 5, 6)
    ]
    made.add_pool("p", ip_network("10.0.0.0/30"), serial=serial)
    assert made.status("p").available == 2
    assert drain(made) == ["10.0.0.1/29", "10.0.0.3/29"]


@pytest.mark.parametrize("serial", [True, False])
@pytest.mark.parametrize("subnet", ["10.0.0.0/8", "fd00::/64", "0:0:0:1::/64"])
def test_a_large_subnet_takes_the_memory_of_a_small_one(
    subnet: str, serial: bool
) -> None:
    def peak(of: str) -> int:
        tracemalloc.start()
        made = make(of, serial=serial)
        for _ in range(200):
            any_of(made)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak("10.0.0.0/24")  # what is made once in a process
    # Integers of 128 bits are larger than those of 32, but not by much.
    assert peak(subnet) < 2 * peak("10.0.0.0/24")


def test_a_range_that_is_never_used_up_does_not_remember_all_it_gave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(addresses, "_KEPT_BACK", 100)
    made = make("10.0.0.0/8")
    got = []
    for _ in range(1000):
        interface = made.request("p", "o", None)
        made.release("o", interface.ip)
        got.append(interface)
    assert len(set(got)) == 100
    assert all(len(set(got[i : i + 100])) == 100 for i in range(900))
