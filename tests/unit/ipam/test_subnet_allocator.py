from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from cnm.errors import InvalidError, NoAvailablePool
from cnm.ipam import subnets
from cnm.ipam.subnets import Intervals, SubnetAllocator
from cnm.types import AddressPool

if TYPE_CHECKING:
    from collections.abc import Iterable


def pools(*texts: str) -> tuple[AddressPool, ...]:
    """Make pools of texts like ``10.0.0.0/8:24``."""
    split = (text.rsplit(":", 1) for text in texts)
    return tuple(AddressPool(base=ip_network(b), size=int(s)) for b, s in split)


def choose(
    space: SubnetAllocator,
    *texts: str,
    size: int | None = None,
    exclude: Iterable[str] = (),
) -> str:
    excluded = tuple(ip_network(text) for text in exclude)
    return str(space.choose(size, pools(*texts), excluded))


def release(space: SubnetAllocator, subnet: str) -> None:
    space.release(ip_network(subnet))


def reserve(space: SubnetAllocator, subnet: str) -> None:
    assert space.overlapping(ip_network(subnet)) is None
    space.reserve(ip_network(subnet))


def test_pools_are_used_in_their_order() -> None:
    space = SubnetAllocator(4)
    given_pools = ("175.30.0.0/16:16", "175.33.0.0/16:24", "10.0.0.0/8:24")
    assert [choose(space, *given_pools) for _ in range(3)] == [
        "175.30.0.0/16",
        "175.33.0.0/24",
        "175.33.1.0/24",
    ]


def test_a_pool_inside_another_is_ignored() -> None:
    space = SubnetAllocator(4)
    nested = ("10.0.1.0/24:28", "10.0.0.0/22:24", "10.0.0.0/22:30", "9.0.0.0/24:25")
    got = [choose(space, *nested) for _ in range(6)]
    assert got == [
        *(f"10.0.{block}.0/24" for block in range(4)),
        "9.0.0.0/25",
        "9.0.0.128/25",
    ]
    with pytest.raises(NoAvailablePool):
        choose(space, *nested)


def test_pools_of_the_other_family_are_ignored() -> None:
    both = ("10.0.0.0/23:24", "fd00::/63:64")
    assert choose(SubnetAllocator(6), *both) == "fd00::/64"
    assert choose(SubnetAllocator(4), *both, exclude=["fd00::/8"]) == "10.0.0.0/24"


def test_used_up_pools_say_what_can_be_done() -> None:
    space = SubnetAllocator(4)
    choose(space, "10.0.0.0/24:24")
    with pytest.raises(NoAvailablePool, match=r"fully subnetted: no IPv4 subnet is .*"):
        choose(space, "10.0.0.0/24:24")
    with pytest.raises(NoAvailablePool, match=r"no IPv4 subnet of size '/26'"):
        choose(space, "10.0.0.0/24:24", size=26)
    with pytest.raises(NoAvailablePool, match="IPv6"):
        choose(SubnetAllocator(6), "10.0.0.0/24:24")


def test_a_released_subnet_is_chosen_again_the_lowest_first() -> None:
    space = SubnetAllocator(4)
    for _ in range(6):
        choose(space, "10.0.0.0/16:24")
    for block in (4, 1, 2):
        release(space, f"10.0.{block}.0/24")
    assert [choose(space, "10.0.0.0/16:24") for _ in range(4)] == [
        f"10.0.{block}.0/24" for block in (1, 2, 4, 6)
    ]


@pytest.mark.parametrize("early", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    ("taken", "first"),
    [
        ("10.0.0.128/25", "10.0.1.0/24"),
        ("10.0.0.0/22", "10.0.4.0/24"),
        ("10.0.0.0/16", "11.0.0.0/24"),
        ("8.0.0.0/6", "12.0.0.0/24"),
        ("10.0.1.0/24", "10.0.0.0/24"),
        ("9.255.255.0/24", "10.0.0.0/24"),
    ],
)
def test_reserved_subnets_are_not_chosen(taken: str, first: str, early: bool) -> None:
    three = ("10.0.0.0/16:24", "11.0.0.0/16:24", "12.0.0.0/16:24")
    space = SubnetAllocator(4)
    if not early:  # the pools have been cut before the subnet is reserved
        release(space, choose(space, *three))
        choose(space, *three, size=16)
        release(space, "10.0.0.0/16")
    reserve(space, taken)
    assert choose(space, *three) == first
    release(space, first)
    release(space, taken)
    assert choose(space, *three) == "10.0.0.0/24"


def test_a_block_is_free_when_the_last_subnet_in_it_is_released() -> None:
    space = SubnetAllocator(4)
    choose(space, "10.0.0.0/23:24")
    release(space, "10.0.0.0/24")
    reserve(space, "10.0.0.0/26")
    reserve(space, "10.0.0.128/25")
    assert choose(space, "10.0.0.0/23:24") == "10.0.1.0/24"
    release(space, "10.0.0.0/26")
    with pytest.raises(NoAvailablePool):
        choose(space, "10.0.0.0/23:24")
    release(space, "10.0.0.128/25")
    assert choose(space, "10.0.0.0/23:24") == "10.0.0.0/24"


@pytest.mark.parametrize(
    "outside", ["10.0.0.0/23", "10.0.1.0/24", "9.255.255.0/24", "8.0.0.0/6"]
)
def test_what_was_released_outside_a_pool_is_not_chosen(outside: str) -> None:
    space = SubnetAllocator(4)
    release(space, choose(space, "10.0.0.0/24:26"))
    reserve(space, outside)
    release(space, outside)
    got = [choose(space, "10.0.0.0/24:26") for _ in range(4)]
    assert got == [f"10.0.0.{host}/26" for host in (0, 64, 128, 192)]
    with pytest.raises(NoAvailablePool):
        choose(space, "10.0.0.0/24:26")


def test_excluded_subnets_are_not_chosen_while_they_are_excluded() -> None:
    space = SubnetAllocator(4)
    host = ["10.0.0.0/23", "10.0.2.53/32", "10.0.4.0/24", "192.168.0.0/16"]
    assert choose(space, "10.0.0.0/16:24", exclude=host) == "10.0.3.0/24"
    assert choose(space, "10.0.0.0/16:24", exclude=host) == "10.0.5.0/24"
    assert choose(space, "10.0.0.0/16:24", exclude=host[2:]) == "10.0.0.0/24"
    with pytest.raises(NoAvailablePool):
        choose(space, "10.0.0.0/16:24", exclude=["0.0.0.0/1", "128.0.0.0/1"])


class Counting(Intervals):
    """Intervals that count how often they are asked."""

    asked = 0

    def overlap(self, first: int, last: int) -> int | None:
        type(self).asked += 1
        return super().overlap(first, last)


def test_an_excluded_pool_is_jumped_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subnets, "Intervals", Counting)
    space = SubnetAllocator(4)
    two = ("10.0.0.0/8:24", "11.0.0.0/8:24")
    for block in range(0, 200, 2):
        reserve(space, f"10.{block}.0.0/24")
    choose(space, *two, exclude=["10.0.0.0/8"])
    Counting.asked = 0
    assert choose(space, *two, exclude=["10.0.0.0/8"]) == "11.0.1.0/24"
    assert Counting.asked == 2


def test_the_thousandth_subnet_is_found_like_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subnets, "Intervals", Counting)
    space = SubnetAllocator(6)
    ours = pools("fd00::/48:64")
    space.choose(None, ours, ())
    Counting.asked = 0
    for _ in range(1000):
        last = space.choose(None, ours, ())
    assert str(last) == "fd00:0:0:3e8::/64"
    assert Counting.asked == 1000


@pytest.mark.parametrize(
    ("version", "size", "expected"),
    [(4, 24, "10.1.0.0/24"), (4, 30, "10.1.0.0/30"), (6, 120, "fd00::/120")],
)
def test_a_subnet_of_a_size_is_cut_from_the_pools(
    version: int, size: int, expected: str
) -> None:
    space = SubnetAllocator(4 if version == 4 else 6)
    all_pools = ("10.1.0.0/16:20", "fd00::/48:64")
    assert choose(space, *all_pools, size=size) == expected
    assert (
        choose(space, *all_pools) == {4: "10.1.16.0/20", 6: "fd00:0:0:1::/64"}[version]
    )


def test_a_subnet_of_a_size_skips_pools_that_are_too_small() -> None:
    space = SubnetAllocator(4)
    assert choose(space, "10.1.0.0/24:26", "10.4.0.0/14:24", size=16) == "10.4.0.0/16"


@pytest.mark.parametrize("size", [0, 8, 13])
def test_a_size_that_no_pool_has_room_for_is_refused(size: int) -> None:
    space = SubnetAllocator(4)
    expected = f"subnet of size '/{size}'; the pools are: 10.1.0.0/24, 10.4.0.0/14"
    with pytest.raises(InvalidError, match=expected):
        choose(space, "10.1.0.0/24:26", "10.4.0.0/14:24", size=size)


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ("10.0.0.0/24", "10.0.0.0/24"),
        ("10.0.0.7/32", "10.0.0.0/24"),
        ("10.0.0.0/20", "10.0.15.0/24"),
        ("10.0.8.0/21", "10.0.15.0/24"),
        ("10.0.1.0/24", None),
        ("10.0.16.0/20", None),
        ("9.0.0.0/8", None),
    ],
)
def test_overlap_with_a_subnet_that_is_taken(asked: str, taken: str | None) -> None:
    space = SubnetAllocator(4)
    reserve(space, "10.0.0.0/24")
    reserve(space, "10.0.15.0/24")
    found = space.overlapping(ip_network(asked))
    assert found == (None if taken is None else ip_network(taken))


@pytest.mark.parametrize(
    "order", [[(0, 3), (4, 7)], [(4, 7), (0, 3)], [(0, 1), (6, 7), (2, 5)]]
)
def test_intervals_that_touch_are_one(order: list[tuple[int, int]]) -> None:
    intervals = Intervals()
    for first, last in order:
        intervals.add(first, last)
    assert intervals.overlap(0, 0) == 7


SPANS = st.tuples(st.integers(0, 40), st.integers(0, 8))


@given(st.lists(st.tuples(st.booleans(), SPANS)), SPANS)
def test_intervals_are_a_set(
    changes: list[tuple[bool, tuple[int, int]]], probe: tuple[int, int]
) -> None:
    intervals, model = Intervals(), set[int]()
    for adding, (first, length) in changes:
        span = range(first, first + length + 1)
        if adding:
            intervals.add(first, first + length)
            model |= set(span)
        else:
            intervals.remove(first, first + length)
            model -= set(span)
    first, last = probe[0], probe[0] + probe[1]
    later = sorted(number for number in model if number >= first)
    assert intervals.at_or_after(first) == (later[0] if later else None)
    end = intervals.overlap(first, last)
    if not later or later[0] > last:
        assert end is None
    else:
        assert end == next(n for n in range(later[0], 99) if n + 1 not in model)
