from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from typing import Any

import pytest

from cnm.ports import Publication, parse_ports
from cnm.ports.publication import Host, groups, open_ports, problems
from cnm.types import EndpointInfo, NetworkInfo

V4, V6 = "10.9.0.2", "fd00:9::2"
BOTH = {"mode4": "nat", "mode6": "nat"}
HOST = Host()


def publication(
    *specs: str,
    address: str = V4,
    address6: str = V6,
    internal: bool = False,
    **fields: Any,
) -> Publication:
    """Return a publication for an endpoint that is gateway of all its families."""
    created = datetime(2025, 1, 1, tzinfo=UTC)
    network = NetworkInfo(
        id="n", name="front", driver="bridge", created=created, internal=internal
    )
    endpoint = EndpointInfo(
        id="e",
        name="web",
        network=network,
        created=created,
        address=IPv4Interface(f"{address}/24") if address else None,
        address6=IPv6Interface(f"{address6}/64") if address6 else None,
    )
    fields = {
        "mode4": "nat" if address else None,
        "mode6": "nat" if address6 else None,
        "gateway4": bool(address),
        "gateway6": bool(address6),
    } | fields
    for name in ("binding4", "binding6"):
        if fields.get(name):
            fields[name] = ip_address(fields[name])
    return Publication(
        endpoint=endpoint,
        requests=tuple(it for spec in specs for it in parse_ports(spec)),
        **fields,
    )


def ways(wanted: Publication, host: Host = HOST) -> list[str]:
    """Return what has to be bound, as ``host-address>target``, of a single group."""
    made = groups(wanted, host)
    assert len(made) <= 1
    return [f"{a}>{target}" for group in made for a, target in group.ways]


ONLY4: dict[str, Any] = {"address6": ""}
ONLY6: dict[str, Any] = {"address": ""}


@pytest.mark.parametrize(
    ("spec", "fields", "expected"),
    [
        # all addresses of both families, unless somebody has said otherwise
        ("80", {}, [f"0.0.0.0>{V4}", f"::>{V6}"]),
        ("80", ONLY6, [f"::>{V6}"]),
        ("80", {"mode4": "nat-unprotected"}, [f"0.0.0.0>{V4}", f"::>{V6}"]),
        ("80", {"binding4": "0.0.0.0"}, [f"0.0.0.0>{V4}", f"::>{V6}"]),
        ("80", {"binding4": "192.0.2.1"}, [f"192.0.2.1>{V4}"]),
        ("80", {"binding4": "2001:db8::1"}, [f"2001:db8::1>{V6}"]),
        (
            "80",
            {"binding4": "192.0.2.1", "binding6": "2001:db8::1"},
            [f"192.0.2.1>{V4}", f"2001:db8::1>{V6}"],
        ),
        (
            "80",
            {"binding4": "192.0.2.1", "binding6": "::"},
            [f"192.0.2.1>{V4}", f"::>{V6}"],
        ),
        ("80", {"binding6": "2001:db8::1"}, [f"0.0.0.0>{V4}", f"2001:db8::1>{V6}"]),
        # IPv4 alone: programs of the host try localhost as ::1 first
        ("80", ONLY4, [f"0.0.0.0>{V4}", f"::1>{V4}"]),
        ("80/udp", ONLY4, [f"0.0.0.0>{V4}", f"::1>{V4}"]),
        ("80/sctp", ONLY4, [f"0.0.0.0>{V4}"]),
        ("80", ONLY4 | {"mode6": "nat"}, [f"0.0.0.0>{V4}", f"::1>{V4}"]),
        ("80", ONLY4 | {"binding4": "192.0.2.1"}, [f"192.0.2.1>{V4}"]),
        ("80", ONLY4 | {"binding6": "2001:db8::1"}, [f"0.0.0.0>{V4}"]),
        ("80", ONLY4 | {"binding6": "::1"}, [f"0.0.0.0>{V4}", f"::1>{V4}"]),
        ("80", ONLY4 | {"elsewhere6": True}, [f"0.0.0.0>{V4}"]),
        # an address that was asked for
        ("0.0.0.0::80", {}, [f"0.0.0.0>{V4}"]),
        ("127.0.0.1::80", {}, [f"127.0.0.1>{V4}"]),
        ("127.0.0.1::80", {"binding4": "192.0.2.1"}, [f"127.0.0.1>{V4}"]),
        ("[::]::80", {}, [f"::>{V6}"]),
        ("[2001:db8::1]::80", {}, [f"2001:db8::1>{V6}"]),
        ("[::1]::80", {}, [f"::1>{V6}"]),
        ("[::1]::80", ONLY4, [f"::1>{V4}"]),
        ("[::1]::80", ONLY4 | {"elsewhere6": True}, []),
        ("127.0.0.1::80", ONLY6, []),
        ("[::]::80", ONLY4, []),
        ("[2001:db8::1]::80", ONLY4, []),
        ("[::1]::80/sctp", {}, []),
        # only gateways translate
        ("80", {"gateway4": False}, [f"::>{V6}"]),
        ("80", {"gateway6": False}, [f"0.0.0.0>{V4}"]),
        ("80", {"gateway4": False, "gateway6": False}, []),
        ("80", ONLY4 | {"gateway4": False}, []),
        ("[::1]::80", {"gateway6": False}, []),
        ("[::1]::80", ONLY4 | {"gateway4": False}, []),
        # and only those modes
        ("80", {"mode4": "routed"}, [f"::>{V6}"]),
        ("80", {"mode6": "routed"}, [f"0.0.0.0>{V4}"]),
        ("[::1]::80", {"mode6": "routed"}, []),
        ("80", {"mode4": "isolated"}, [f"::>{V6}"]),
        ("80", {"mode6": "isolated"}, [f"0.0.0.0>{V4}"]),
        ("80", {"mode6": None}, [f"0.0.0.0>{V4}"]),
        ("80", {"internal": True}, []),
    ],
)
def test_ways(spec: str, fields: dict[str, Any], expected: list[str]) -> None:
    assert ways(publication(spec, **fields)) == expected


@pytest.mark.parametrize(
    ("spec", "fields", "host", "expected"),
    [
        ("80", {}, {"binding4": "127.0.0.1"}, [f"127.0.0.1>{V4}"]),
        ("80", {}, {"binding6": "::1"}, [f"0.0.0.0>{V4}", f"::1>{V6}"]),
        ("80", {}, {"binding4": "2001:db8::1"}, [f"2001:db8::1>{V6}"]),
        # the network's defaults go first, for both families
        (
            "80",
            {"binding4": "192.0.2.1"},
            {"binding4": "127.0.0.1", "binding6": "2001:db8::1"},
            [f"192.0.2.1>{V4}"],
        ),
        (
            "80",
            {"binding6": "2001:db8::1"},
            {"binding4": "127.0.0.1"},
            [f"127.0.0.1>{V4}", f"2001:db8::1>{V6}"],
        ),
        (
            "80",
            {"binding4": "0.0.0.0"},
            {"binding4": "127.0.0.1"},
            [f"0.0.0.0>{V4}", f"::>{V6}"],
        ),
        (
            "80",
            {"binding4": "0.0.0.0"},
            {"binding6": "2001:db8::1"},
            [f"0.0.0.0>{V4}", f"2001:db8::1>{V6}"],
        ),
        ("0.0.0.0::80", {}, {"binding4": "127.0.0.1"}, [f"0.0.0.0>{V4}"]),
        ("80", {}, {"ipv6": False}, [f"0.0.0.0>{V4}"]),
        ("80", ONLY4, {"loopback6": False}, [f"0.0.0.0>{V4}"]),
        ("80", ONLY4, {"proxy": False}, [f"0.0.0.0>{V4}"]),
        ("[::1]::80", ONLY4, {"proxy": False}, []),
        ("[::1]::80", {}, {"proxy": False}, []),
        # an address that was asked for is not left out because it is not there
        ("[::1]::80", ONLY4, {"loopback6": False, "ipv6": False}, [f"::1>{V4}"]),
        ("[2001:db8::1]::80", {}, {"ipv6": False}, [f"2001:db8::1>{V6}"]),
        # without a firewall, it is all up to the proxy
        ("80", {}, {"firewall": False}, [f"0.0.0.0>{V4}", f"::>{V6}"]),
        ("80/sctp", {}, {"firewall": False}, []),
        ("80", {}, {"firewall": False, "proxy": False}, []),
    ],
)
def test_ways_of_a_host(
    spec: str, fields: dict[str, Any], host: dict[str, Any], expected: list[str]
) -> None:
    for name in ("binding4", "binding6"):
        if name in host:
            host = host | {name: ip_address(host[name])}
    assert ways(publication(spec, **fields), Host(**host)) == expected


def test_requests_that_differ_only_in_the_address_get_one_port() -> None:
    wanted = publication("127.0.0.1::80", "192.0.2.1::80", "[2001:db8::1]::80")
    assert ways(wanted) == [
        f"127.0.0.1>{V4}",
        f"192.0.2.1>{V4}",
        f"2001:db8::1>{V6}",
    ]


def test_an_address_is_left_out_that_another_one_includes() -> None:
    assert ways(publication("127.0.0.1::80", "80")) == [f"0.0.0.0>{V4}", f"::>{V6}"]
    assert ways(publication("[::1]::80", "80", "[::]::80")) == [
        f"0.0.0.0>{V4}",
        f"::>{V6}",
    ]


def test_the_order_in_which_ports_are_chosen() -> None:
    wanted = publication(
        "9",
        "7/udp",
        "7/sctp",
        "7",
        "8000-8010:5",
        "7000-7010:5",
        "90:90/udp",
        "90:90",
        "91:1",
    )
    made = groups(wanted, HOST)
    assert [(it.first, it.last, it.container_port, it.proto) for it in made] == [
        (91, 91, 1, "tcp"),
        (90, 90, 90, "tcp"),
        (90, 90, 90, "udp"),
        (7000, 7010, 5, "tcp"),
        (8000, 8010, 5, "tcp"),
        (0, 0, 7, "tcp"),
        (0, 0, 7, "udp"),
        (0, 0, 7, "sctp"),
        (0, 0, 9, "tcp"),
    ]
    assert [it.exact for it in made] == [True] * 3 + [False] * 6


def test_the_bindings_of_a_group() -> None:
    (group,) = groups(publication("8080:80", **ONLY4), HOST)
    assert list(map(str, group.bindings(8080))) == [
        f"0.0.0.0:8080->{V4}:80/tcp",
        f"[::1]:8080->{V4}:80/tcp",
    ]


@pytest.mark.parametrize(
    ("specs", "fields", "expected"),
    [
        (["8080:80"], {}, []),
        (["8080:80"], {"mode4": "routed"}, [f"{V4}:80/tcp"]),
        (["8080:80"], {"mode4": "routed", "gateway4": False}, [f"{V4}:80/tcp"]),
        (
            ["8080:80", "80", "[::1]:7:80", "53/udp"],
            {"mode4": "routed", "mode6": "routed"},
            [f"{V4}:80/tcp", f"{V4}:53/udp", f"[{V6}]:80/tcp", f"[{V6}]:53/udp"],
        ),
        (
            ["127.0.0.1:8080:80", "[::1]:8081:81"],
            {"mode4": "routed", "mode6": "routed"},
            [f"{V4}:80/tcp", f"[{V6}]:81/tcp"],
        ),
        (["80"], ONLY4 | {"mode4": "routed", "mode6": "routed"}, [f"{V4}:80/tcp"]),
        (["80"], {"mode4": "routed", "internal": True}, []),
    ],
)
def test_open_ports(
    specs: list[str], fields: dict[str, Any], expected: list[str]
) -> None:
    bindings = open_ports(publication(*specs, **fields))
    assert list(map(str, bindings)) == expected
    assert all(it.host_port == 0 and it.host_address.is_unspecified for it in bindings)
    assert all(
        it.host_address.version == it.container_address.version for it in bindings
    )


@pytest.mark.parametrize(
    ("specs", "fields", "host", "expected"),
    [
        ([], {"internal": True}, {}, None),
        (["80", "127.0.0.1:8080:80", "[::1]::80", "[::]:53:53/udp"], {}, {}, None),
        # who is gateway may change
        (["80"], {"gateway4": False, "gateway6": False}, {}, None),
        (["127.0.0.1::80"], {"gateway4": False}, {}, None),
        (["[::1]::80"], ONLY4, {}, None),
        # and so may what the host has
        (["80"], ONLY6, {"ipv6": False, "loopback6": False}, None),
        (["[::1]:8080:80"], {"mode6": "routed"}, {"proxy": False}, None),
        (["80/sctp"], {"mode4": "routed"}, {"firewall": False, "proxy": False}, None),
        (
            ["80", "81"],
            {"internal": True},
            {},
            "ports: network 'front' is internal: nothing can be published",
        ),
        (
            ["80", "81"],
            {"mode4": "isolated", "mode6": "isolated"},
            {},
            "ports: network 'front' is isolated: nothing can be published",
        ),
        (["80"], {"mode4": "isolated"}, {}, None),
        (
            ["127.0.0.1::80"],
            {"mode4": "isolated"},
            {},
            "ports: 127.0.0.1::80/tcp: network 'front' is isolated for IPv4",
        ),
        (
            ["80"],
            {"address": "", "address6": ""},
            {},
            "ports: endpoint 'web' has no address to publish",
        ),
        (
            ["80", "81"],
            {},
            {"firewall": False, "proxy": False},
            "ports: without firewall and proxy nothing can be published",
        ),
        (
            ["80/sctp"],
            {},
            {"firewall": False},
            "ports: 80/sctp: without the firewall, only tcp and udp can be published",
        ),
        (
            ["127.0.0.1:8080:80"],
            ONLY6,
            {},
            (
                "ports: 127.0.0.1:8080:80/tcp: IPv4 cannot be published: endpoint "
                f"'web' has {V6} (nat)"
            ),
        ),
        (
            ["[2001:db8::1]:8080:80"],
            ONLY4,
            {},
            (
                "ports: [2001:db8::1]:8080:80/tcp: IPv6 cannot be published: endpoint "
                f"'web' has {V4} (nat)"
            ),
        ),
        (
            ["[::1]:8080:80"],
            ONLY4,
            {"proxy": False},
            "ports: [::1]:8080:80/tcp: ::1 is served by the proxy, and there is none",
        ),
        (
            ["[::1]:8080:80/sctp"],
            {},
            {},
            (
                "ports: [::1]:8080:80/sctp: ::1 is served by the proxy, for tcp and "
                "udp only"
            ),
        ),
        (
            ["80"],
            ONLY4 | {"binding4": "2001:db8::1"},
            {},
            (
                "ports: 80/tcp: nothing can be published at 2001:db8::1, the default: "
                f"endpoint 'web' has {V4} (nat)"
            ),
        ),
    ],
)
def test_problems(
    specs: list[str],
    fields: dict[str, Any],
    host: dict[str, Any],
    expected: str | None,
) -> None:
    found = problems(publication(*specs, **fields), Host(**host))
    assert found == ([] if expected is None else [expected])


def test_every_request_has_its_problem() -> None:
    wanted = publication("80", "127.0.0.1::80", "127.0.0.1::81", **ONLY6)
    assert [it.split(":80/")[0] for it in problems(wanted, HOST)] == [
        "ports: 127.0.0.1:",
        (
            "ports: 127.0.0.1::81/tcp: IPv4 cannot be published: endpoint 'web' has "
            f"{V6} (nat)"
        ),
    ]


def test_thousands_of_requests_are_few_questions() -> None:
    wanted = replace(publication(), requests=parse_ports("1-65535:1-65535"))
    assert len(groups(wanted, HOST)) == 65535
