from __future__ import annotations

import time
from ipaddress import ip_address
from typing import Any

import pytest

from cnm.ports.ephemeral import Ephemeral, Pool
from cnm.ports.ledger import Ledger, Owner
from cnm.ports.places import HostPort
from cnm.types import Proto

WEB, DB = Owner("1", "endpoint 'web'"), Owner("2", "endpoint 'db'")


def place(address: str, port: int = 80, proto: Any = "tcp") -> HostPort:
    return HostPort(ip_address(address), proto, port)


@pytest.mark.parametrize(
    ("one", "other", "excludes"),
    [
        ("0.0.0.0", "0.0.0.0", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "::", False),
        ("0.0.0.0", "::1", False),
        ("::", "::1", True),
        ("::1", "2001:db8::1", False),
    ],
)
def test_addresses_that_exclude_each_other(
    one: str, other: str, excludes: bool
) -> None:
    for first, second in ((one, other), (other, one)):
        ledger = Ledger()
        ledger.add(place(first), WEB)
        expected = [(place(first), WEB)] if excludes else []
        assert ledger.rivals(place(second)) == expected
        assert ledger.rivals(place(second, 81)) == []
        assert ledger.rivals(place(second, proto="udp")) == []


def test_all_rivals_are_told() -> None:
    ledger = Ledger()
    ledger.add(place("127.0.0.1"), WEB)
    ledger.add(place("192.0.2.1"), DB)
    ledger.add(place("::"), DB)
    assert ledger.rivals(place("0.0.0.0")) == [
        (place("127.0.0.1"), WEB),
        (place("192.0.2.1"), DB),
    ]


def test_what_is_removed_is_free() -> None:
    ledger = Ledger()
    ledger.add(place("127.0.0.1"), WEB)
    ledger.add(place("127.0.0.2"), WEB)
    for _ in range(2):
        ledger.remove(place("127.0.0.1"))
    assert ledger.rivals(place("127.0.0.1")) == []
    assert ledger.rivals(place("0.0.0.0")) == [(place("127.0.0.2"), WEB)]


def test_asking_takes_as_long_with_thousands_of_ports() -> None:
    def seconds(ports: int) -> float:
        ledger = Ledger()
        for port in range(1, ports):
            ledger.add(place("0.0.0.0", port), WEB)
        asked = place("127.0.0.1", ports + 1)
        best = 1.0
        for _ in range(20):
            started = time.perf_counter()
            for _ in range(100):
                ledger.rivals(asked)
            best = min(best, time.perf_counter() - started)
        return best

    assert seconds(60_000) < 5 * seconds(10)


def test_places_are_written_as_in_errors() -> None:
    assert str(place("0.0.0.0")) == "0.0.0.0:80/tcp"
    assert str(place("::1", 53, "udp")) == "[::1]:53/udp"
    assert place("::1", 53, "udp").described == "port 53/udp of ::1"


def test_ephemeral_ports_go_round() -> None:
    ephemeral, pool = Ephemeral(), Pool(first=10, last=14, reserved=frozenset({12}))
    assert list(ephemeral.candidates("tcp", pool)) == [10, 11, 13, 14]
    ephemeral.chosen("tcp", 11)
    assert list(ephemeral.candidates("tcp", pool)) == [13, 14, 10, 11]
    ephemeral.chosen("tcp", 14)
    assert list(ephemeral.candidates("tcp", pool)) == [10, 11, 13, 14]
    assert list(ephemeral.candidates("udp", pool)) == [10, 11, 13, 14]


def test_ephemeral_ports_that_are_busy() -> None:
    ephemeral, pool = Ephemeral(), Pool(first=10, last=14)
    busy: set[tuple[Proto, int]] = {("tcp", 10), ("udp", 11), ("tcp", 13)}
    assert list(ephemeral.candidates("tcp", pool, busy)) == [11, 12, 14]


def test_ephemeral_ports_after_the_range_was_changed() -> None:
    ephemeral = Ephemeral()
    ephemeral.chosen("tcp", 60000)
    assert sorted(ephemeral.candidates("tcp", Pool(first=10, last=13))) == [
        *range(10, 14)
    ]
