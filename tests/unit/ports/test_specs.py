from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given, strategies as st

from cnm.ports import conflicts, parse_exposed, parse_ports
from cnm.types import PortRequest, TransportPort

PORTS = st.integers(1, 65535)
PROTOCOLS = st.sampled_from(("tcp", "udp", "sctp"))
ADDRESSES = st.none() | st.sampled_from(
    [ip_address(it) for it in ("0.0.0.0", "127.0.0.1", "::", "::1", "2001:db8::7")]
)


def request(container_port: int = 80, **fields: Any) -> PortRequest:
    return PortRequest(container_port=container_port, **fields)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("80", request()),
        ("80/tcp", request()),
        ("53/UDP", request(53, proto="udp")),
        ("80/sctp", request(proto="sctp")),
        ("8080:80", request(host_port=8080)),
        ("8080:80/tcp", request(host_port=8080)),
        ("08080:080", request(host_port=8080)),
        ("65535:65535", request(65535, host_port=65535)),
        (
            "127.0.0.1:8080:80",
            request(host_port=8080, host_address=IPv4Address("127.0.0.1")),
        ),
        ("127.0.0.1::80", request(host_address=IPv4Address("127.0.0.1"))),
        (
            "[::1]:53:53/udp",
            request(53, host_port=53, host_address=IPv6Address("::1"), proto="udp"),
        ),
        ("[::]::80", request(host_address=IPv6Address("::"))),
        ("[::ffff:192.0.2.1]::80", request(host_address=IPv4Address("192.0.2.1"))),
        ("8080-8083:80", request(host_port=8080, host_port_end=8083)),
        ("8080-8080:80", request(host_port=8080)),
    ],
)
def test_one_port(spec: str, expected: PortRequest) -> None:
    assert parse_ports(spec) == (expected,)


def test_a_range_of_ports_is_as_many_ports() -> None:
    many = parse_ports("127.0.0.1:9000-9010:8000-8010/udp")
    assert many == tuple(
        request(
            8000 + offset,
            host_port=9000 + offset,
            host_address=IPv4Address("127.0.0.1"),
            proto="udp",
        )
        for offset in range(11)
    )


def test_a_range_without_ports_of_the_host_gets_any() -> None:
    assert parse_ports("8000-8002") == (request(8000), request(8001), request(8002))


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("", r"expected \[HOST-ADDRESS:\]"),
        ("web", "expected .*HOST-PORTS"),
        ("80 ", "expected .*HOST-PORTS"),
        (" 80", "expected .*HOST-PORTS"),
        ("8080: 80", "expected .*HOST-PORTS"),
        ("80\n", "expected .*HOST-PORTS"),
        ("8080:", "expected .*HOST-PORTS"),
        ("-80", "expected .*HOST-PORTS"),
        ("+80", "expected .*HOST-PORTS"),
        ("8_0", "expected .*HOST-PORTS"),
        ("0x50", "expected .*HOST-PORTS"),
        ("80-", "expected .*HOST-PORTS"),
        ("٨٠", "expected .*HOST-PORTS"),
        ("80²", "expected .*HOST-PORTS"),
        ("[::1]80:80", "expected .*HOST-PORTS"),
        ("[::1]:80", "expected .*HOST-PORTS"),
        ("[::1:80:80", "expected .*HOST-PORTS"),
        ("[::1]:1:2:3", "expected .*HOST-PORTS"),
        (":80", "before the first colon"),
        ("::80", "before the first colon"),
        ("80/", "protocol '' is not one of tcp, udp, sctp"),
        ("80/icmp", "protocol 'icmp' is not one of tcp, udp, sctp"),
        ("80/tcp/udp", "protocol 'tcp/udp' is not one of"),
        ("0", "must be from 1 to 65535, not 0"),
        ("65536", "must be from 1 to 65535, not 65536"),
        ("8080:65536", "port of the sandbox must be from 1 to 65535"),
        ("65536:80", "port of the host must be from 1 to 65535"),
        ("99999999999999999999:80", "must be from 1 to 65535"),
        ("0:80", "leave it out for any free port"),
        ("127.0.0.1:0:80", "leave it out for any free port"),
        ("0-10:80", "leave it out for any free port"),
        ("90-80", "expected 80-90, not 90-80"),
        ("8083-8080:80", "expected 8080-8083"),
        ("8000-8002:80-81", "not 3 for 2"),
        ("8000:80-81", "not 1 for 2"),
        ("localhost:8080:80", "invalid address 'localhost': names are not looked up"),
        ("127.0.0.01:8080:80", "invalid address"),
        ("127.1:8080:80", "invalid address"),
        ("[::g]:8080:80", "invalid address"),
        ("::1:8080:80", "put into brackets"),
        ("2001:db8::1:8080:80", "put into brackets"),
        ("[127.0.0.1]:8080:80", "only IPv6 addresses are put into brackets"),
        ("[fe80::1%eth0]:8080:80", "must have no zone"),
        ("[fe80::1]:8080:80", "a different host on each link"),
        ("224.0.0.1:8080:80", "224.0.0.1 cannot be an address of a host"),
        ("[ff02::1]:8080:80", "ff02::1 cannot be an address of a host"),
        ("[::ffff:224.0.0.1]:8080:80", "224.0.0.1 cannot be an address of a host"),
        ("255.255.255.255:8080:80", "cannot be an address of a host"),
    ],
)
def test_what_is_wrong_is_said(spec: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse_ports(spec)
    assert str(caught.value).startswith(repr(spec))


@pytest.mark.parametrize("spec", ["9" * 100_000, "x" * 100_000, "1:" * 50_000])
@pytest.mark.parametrize("parser", [parse_ports, parse_exposed])
def test_a_huge_string_is_cut_in_the_error(parser: Any, spec: str) -> None:
    with pytest.raises(ValueError, match=r"\.\.\.: expected") as caught:
        parser(spec)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("value", [80, None, 80.0, b"80", True, ["80"], ("80", "81")])
def test_what_is_not_a_port_at_all(value: object) -> None:
    with pytest.raises(TypeError, match=r"expected .*HOST-PORTS.*, not "):
        parse_ports(value)


@given(st.text(max_size=30))
def test_every_string_is_understood_or_refused(spec: str) -> None:
    try:
        requests = parse_ports(spec)
    except ValueError:
        return
    assert all(parse_ports(it) == (it,) for it in requests)


@given(PORTS, PROTOCOLS, PORTS | st.just(0), st.integers(0, 100), ADDRESSES)
def test_a_request_is_read_as_it_is_written(
    port: int, proto: Any, host_port: int, more: int, address: Any
) -> None:
    last = min(host_port + more, 65535) if host_port and more else 0
    asked = request(
        port,
        proto=proto,
        host_port=host_port,
        host_port_end=last if last > host_port else 0,
        host_address=address,
    )
    assert parse_ports(str(asked)) == (asked,)
    assert parse_ports(asked) == (asked,)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"proto": "TCP"}, request()),
        ({"host_port": 80, "host_port_end": 80}, request(host_port=80)),
        (
            {"host_address": IPv6Address("::ffff:192.0.2.1")},
            request(host_address=IPv4Address("192.0.2.1")),
        ),
    ],
)
def test_the_fields_of_a_request_are_put_right(
    fields: Any, expected: PortRequest
) -> None:
    assert parse_ports(request(**fields)) == (expected,)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"container_port": 0}, "container_port must be from 1 to 65535"),
        ({"container_port": 65536}, "container_port must be from 1 to 65535"),
        ({"container_port": "80"}, "expected an integer, not '80'"),
        ({"container_port": True}, "expected an integer, not True"),
        ({"proto": "icmp"}, "protocol 'icmp'"),
        ({"proto": None}, "protocol None"),
        ({"host_port": -1}, "host_port must be from 1 to 65535"),
        ({"host_port": 65536}, "host_port must be from 1 to 65535"),
        ({"host_port_end": 81}, "host_port_end needs a host_port"),
        ({"host_port": 80, "host_port_end": 79}, "must be 80 or more, not 79"),
        ({"host_address": "localhost"}, "invalid address 'localhost'"),
        ({"host_address": IPv6Address("fe80::1%eth0")}, "must have no zone"),
        ({"host_address": IPv6Address("ff02::1")}, "cannot be an address of a host"),
        ({"host_address": 7}, "expected a string, not 7"),
    ],
)
def test_the_fields_of_a_request_are_checked(fields: Any, problem: str) -> None:
    with pytest.raises((ValueError, TypeError), match=problem):
        parse_ports(PortRequest(**{"container_port": 80, **fields}))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (80, [TransportPort(port=80)]),
        ("80", [TransportPort(port=80)]),
        ("53/UDP", [TransportPort(port=53, proto="udp")]),
        (TransportPort(port=53, proto="udp"), [TransportPort(port=53, proto="udp")]),
        (
            "80-82/sctp",
            [TransportPort(port=port, proto="sctp") for port in (80, 81, 82)],
        ),
    ],
)
def test_exposed_ports(value: object, expected: list[TransportPort]) -> None:
    assert parse_exposed(value) == tuple(expected)


@pytest.mark.parametrize(
    "value",
    [0, 65536, -1, "", "0", "65536", "8080:80", "90-80", "80/", "80/x", "٨٠", "80 "],
)
def test_exposed_ports_that_are_none(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected|must be|protocol"):
        parse_exposed(value)


@pytest.mark.parametrize("value", [None, True, 80.5, b"80", ["80"]])
def test_what_is_not_an_exposed_port_at_all(value: object) -> None:
    with pytest.raises(TypeError, match=r"expected PORTS\[/PROTOCOL\], .*, not "):
        parse_exposed(value)


@pytest.mark.parametrize(
    "specs",
    [
        ["8080:80", "8080:80/udp"],
        ["8080:80", "8081:80"],
        ["127.0.0.1:8080:80", "192.0.2.1:8080:80"],
        ["127.0.0.1:8080:80", "[::1]:8080:80"],
        ["0.0.0.0:8080:80", "[::]:8080:80"],
        ["8080:80", "8080-8090:81"],
        ["8080-8090:81", "8080-8090:82"],
        ["80", "80/udp", "127.0.0.1::80"],
    ],
)
def test_requests_that_go_together(specs: list[str]) -> None:
    assert conflicts(it for spec in specs for it in parse_ports(spec)) == []


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        (["80", "80"], ["80/tcp is asked for twice"]),
        (["80", "80", "80"], ["80/tcp is asked for twice"]),
        (
            ["8080:80", "8080:81"],
            ["8080:80/tcp and 8080:81/tcp ask for the same port 8080/tcp"],
        ),
        (
            ["8080:80", "127.0.0.1:8080:80"],
            ["8080:80/tcp and 127.0.0.1:8080:80/tcp ask for the same port 8080/tcp"],
        ),
        (
            ["[::1]:8080:80", "127.0.0.1:8080:80", "8080:81"],
            ["[::1]:8080:80/tcp and 8080:81/tcp ask for the same port 8080/tcp"],
        ),
        (
            ["[::]:8080:80", "[::1]:8080:80"],
            ["[::]:8080:80/tcp and [::1]:8080:80/tcp ask for the same port 8080/tcp"],
        ),
        (
            ["127.0.0.1:9:1/udp", "127.0.0.1:9:2/udp", "9:9", "9:9"],
            [
                "127.0.0.1:9:1/udp and 127.0.0.1:9:2/udp ask for the same port 9/udp",
                "9:9/tcp is asked for twice",
            ],
        ),
    ],
)
def test_requests_that_do_not_go_together(
    specs: list[str], expected: list[str]
) -> None:
    requests = [it for spec in specs for it in parse_ports(spec)]
    assert conflicts(requests) == expected


def test_many_requests_are_compared_quickly() -> None:
    assert conflicts(parse_ports("1-65535:1-65535")) == []
