"""Answers of other name servers that are kept."""

from __future__ import annotations

from cnm.dns.cache import LONGEST, LONGEST_NEGATIVE, Cache


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_answers_are_kept_as_long_as_they_allow() -> None:
    clock = Clock()
    cache = Cache(10, clock)
    cache.put("a", b"1", 60, negative=False)
    assert cache.get("a") == (b"1", 0)
    clock.now += 59.5
    assert cache.get("a") == (b"1", 59)
    clock.now += 0.5
    assert cache.get("a") is None
    assert len(cache) == 0


def test_nothing_is_kept_for_too_long() -> None:
    clock = Clock()
    cache = Cache(10, clock)
    cache.put("long", b"1", 10 * LONGEST, negative=False)
    cache.put("nothing", b"2", LONGEST, negative=True)
    cache.put("never", b"3", 0, negative=False)
    assert cache.get("never") is None
    clock.now += LONGEST_NEGATIVE - 1
    assert cache.get("nothing") is not None
    clock.now += 1
    assert cache.get("nothing") is None
    assert cache.get("long") is not None
    clock.now += LONGEST
    assert cache.get("long") is None


def test_what_was_not_used_for_long_goes_first() -> None:
    cache = Cache(2, Clock())
    cache.put("a", b"1", 60, negative=False)
    cache.put("b", b"2", 60, negative=False)
    assert cache.get("a") is not None
    cache.put("c", b"3", 60, negative=False)
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]
    cache.put("a", b"new", 60, negative=False)
    assert cache.get("a") == (b"new", 0)
    assert len(cache) == 2


def test_a_cache_of_no_size() -> None:
    cache = Cache(0)
    cache.put("a", b"1", 60, negative=False)
    assert cache.get("a") is None
