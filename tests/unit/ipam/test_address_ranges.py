"""What it costs to choose from a range of addresses."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from cnm.ipam.addresses import LowestFirstRange, Range, SerialRange, usable_bounds


class Watched(dict[int, object]):
    """Taken addresses that count how often they are looked at."""

    looks = 0

    def __contains__(self, key: object) -> bool:
        self.looks += 1
        return super().__contains__(key)


@pytest.mark.parametrize("kind", [SerialRange, LowestFirstRange], ids=["serial", "low"])
def test_a_nearly_full_range_is_not_searched(kind: type[Range]) -> None:
    subnet = ip_network("10.0.0.0/20")
    taken = Watched()
    full = kind(subnet, usable_bounds(subnet), taken)
    while (number := full.choose()) is not None:
        taken[number] = None
    taken.looks = 0
    for turn in range(1000):
        number = int(subnet[1 + turn * 37 % 4000])
        del taken[number]
        full.release(number)
        assert full.choose() == number
        taken[number] = None
        assert full.choose() is None
    assert taken.looks <= 2000


@pytest.mark.parametrize("kind", [SerialRange, LowestFirstRange], ids=["serial", "low"])
def test_static_addresses_are_passed_once(kind: type[Range]) -> None:
    subnet = ip_network("10.0.0.0/16")
    taken = Watched()
    made = kind(subnet, usable_bounds(subnet), taken)
    for host in range(1, 5001):
        taken[int(subnet[host])] = None
        made.take(int(subnet[host]))
    for _ in range(1000):
        number = made.choose()
        assert number is not None
        taken[number] = None
    assert taken.looks == 6000
