from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest

from cnm.firewall import Element
from cnm.firewall.ruleset import (
    ANY4,
    ANY6,
    OPEN4,
    OPEN6,
    PROXIED,
    PUB4,
    PUB6,
    RANGE4,
    RANGE6,
)
from cnm.ports.elements import SHORTEST_RUN, elements
from cnm.types import PortBinding

V4, V6 = IPv4Address("10.9.0.2"), IPv6Address("fd00:9::2")
HOST4, HOST6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")


def binding(
    host_address: str, host_port: int, container_port: int, **fields: Any
) -> PortBinding:
    address = ip_address(host_address)
    target = V4 if address.version == 4 else V6
    return PortBinding(
        **{
            "host_address": address,
            "host_port": host_port,
            "container_port": container_port,
            "container_address": target,
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        (binding("0.0.0.0", 8080, 80), [Element(ANY4, ("tcp", 8080), (V4, 80))]),
        (
            binding("0.0.0.0", 80, 80, proto="sctp"),
            [Element(ANY4, ("sctp", 80), (V4, 80))],
        ),
        (
            binding("192.0.2.1", 8080, 80),
            [Element(PUB4, (HOST4, "tcp", 8080), (V4, 80))],
        ),
        (
            binding("2001:db8::1", 53, 5353, proto="udp"),
            [Element(PUB6, (HOST6, "udp", 53), (V6, 5353))],
        ),
        (
            binding("::", 8080, 80),
            [
                Element(ANY6, ("tcp", 8080), (V6, 80)),
                Element(PROXIED, ("tcp", 8080)),
            ],
        ),
        (binding("::", 80, 80, proto="sctp"), [Element(ANY6, ("sctp", 80), (V6, 80))]),
        (binding("::1", 8080, 80), [Element(PROXIED, ("tcp", 8080))]),
        (
            binding("::1", 53, 53, proto="udp", container_address=V4),
            [Element(PROXIED, ("udp", 53))],
        ),
        (binding("0.0.0.0", 0, 80), [Element(OPEN4, (V4, "tcp", 80))]),
        (binding("::", 0, 80), [Element(OPEN6, (V6, "tcp", 80))]),
    ],
)
def test_one_binding(published: PortBinding, expected: list[Element]) -> None:
    assert elements([published], proxy=True) == set(expected)


def test_without_a_proxy() -> None:
    made = elements([binding("::", 8080, 80), binding("::1", 8081, 80)])
    assert made == {Element(ANY6, ("tcp", 8080), (V6, 80))}


def test_direct() -> None:
    made = elements([binding("0.0.0.0", 8080, 80)], direct=True)
    assert made == {
        Element(ANY4, ("tcp", 8080), (V4, 80)),
        Element(OPEN4, (V4, "tcp", 80)),
    }


def run(address: str, first: int, count: int, **fields: Any) -> list[PortBinding]:
    return [binding(address, it, it, **fields) for it in range(first, first + count)]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (
            "0.0.0.0",
            Element(
                RANGE4,
                (IPv4Address("0.0.0.0"), "udp", 8000),
                (V4,),
                end=(IPv4Address("255.255.255.255"), "udp", 8063),
            ),
        ),
        (
            "192.0.2.1",
            Element(RANGE4, (HOST4, "udp", 8000), (V4,), end=(HOST4, "udp", 8063)),
        ),
        (
            "::",
            Element(
                RANGE6,
                (IPv6Address("::"), "udp", 8000),
                (V6,),
                end=(
                    IPv6Address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
                    "udp",
                    8063,
                ),
            ),
        ),
        (
            "2001:db8::1",
            Element(RANGE6, (HOST6, "udp", 8000), (V6,), end=(HOST6, "udp", 8063)),
        ),
    ],
)
def test_many_ports_in_a_row_are_one_element(address: str, expected: Element) -> None:
    assert elements(run(address, 8000, SHORTEST_RUN, proto="udp")) == {expected}


def test_few_ports_in_a_row_are_elements_of_their_own() -> None:
    made = elements(run("0.0.0.0", 8000, SHORTEST_RUN - 1))
    assert len(made) == SHORTEST_RUN - 1
    assert {element.set for element in made} == {ANY4}


@pytest.mark.parametrize(
    "different",
    [
        {"host_port": 9032},
        {"container_port": 9032},
        {"host_address": HOST4},
        {"proto": "udp"},
        {"container_address": IPv4Address("10.9.0.3")},
    ],
)
def test_a_row_ends_where_something_differs(different: dict[str, Any]) -> None:
    ports = run("0.0.0.0", 8000, SHORTEST_RUN)
    ports[32] = replace(ports[32], **different)
    made = elements(ports)
    assert len(made) == SHORTEST_RUN
    assert not any(element.set is RANGE4 for element in made)


def test_rows_are_found_in_any_order_and_next_to_others() -> None:
    first = run("0.0.0.0", 8000, 100)
    second = run("0.0.0.0", 9000, 64)
    single = binding("0.0.0.0", 8100, 8101)
    made = elements([*reversed(first), single, *second])
    assert sorted((it.set.name, it.key[-1], it.end and it.end[-1]) for it in made) == [
        ("any4", 8100, None),
        ("range4", 8000, 8099),
        ("range4", 9000, 9063),
    ]


def test_the_proxy_has_no_rows() -> None:
    made = elements(run("::", 8000, SHORTEST_RUN), proxy=True)
    assert sum(element.set is PROXIED for element in made) == SHORTEST_RUN
    assert sum(element.set is RANGE6 for element in made) == 1
    only = elements(run("::1", 8000, SHORTEST_RUN), proxy=True)
    assert only == {Element(PROXIED, ("tcp", port)) for port in range(8000, 8064)}
