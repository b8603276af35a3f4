"""What callers say about ports: ``"8080:80/tcp"``, ``"127.0.0.1::80"``, ``80``.

The syntax is that of docker's ``-p`` and ``--expose``. Addresses are written as
addresses: a name or a zone would mean something else tomorrow.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from .. import validation
from ..types import IPAddress, PortRequest, Proto, TransportPort
from ..validation import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Transport protocols that have ports, in the order in which they are published.
PROTOCOLS: tuple[Proto, ...] = ("tcp", "udp", "sctp")

#: The highest port: a port is a number of 16 bits.
HIGHEST = 0xFFFF

_FORM = "[HOST-ADDRESS:][HOST-PORTS:]PORTS[/PROTOCOL], as '127.0.0.1:8080:80/tcp'"
_EXPOSED_FORM = "PORTS[/PROTOCOL], as '80', '53/udp' or '8000-8010/tcp'"
# No port, address and protocol are longer than that together.
_LONGEST = 100
_PORTS = re.compile(r"([0-9]+)(?:-([0-9]+))?")


def parse_ports(value: object) -> tuple[PortRequest, ...]:
    """Parse a port, or a range of ports, that is to be published.

    ``"8000-8010:8000-8010"`` is eleven ports, each of which has its own port of the
    host; ``"8000-8010:80"`` is one port, which gets one of eleven; ``"8000-8010"`` is
    eleven ports, which get any that are free.

    :param value: a string as above, or a PortRequest
    :raises ValueError: if it is not right; it says what would be
    :raises TypeError: if it is something else
    """
    if isinstance(value, PortRequest):
        return (_checked(value),)
    spec = _text(value, _FORM)
    try:
        return _parse_spec(spec)
    except ValueError as exc:
        raise ValueError(f"{shown(spec)}: {exc}") from None


def parse_exposed(value: object) -> tuple[TransportPort, ...]:
    """Parse a port, or a range of ports, on which a sandbox is said to serve.

    :param value: ``80``, ``"80"``, ``"53/udp"``, ``"8000-8010/tcp"`` or a TransportPort
    :raises ValueError: if it is not right; it says what would be
    :raises TypeError: if it is something else
    """
    if isinstance(value, TransportPort):
        port = _port(value.port, "port")
        return (TransportPort(port=port, proto=_protocol(value.proto)),)
    if isinstance(value, int) and not isinstance(value, bool):
        return (TransportPort(port=_port(value, "port")),)
    spec = _text(value, _EXPOSED_FORM)
    try:
        ports, _, proto = spec.partition("/")
        first, last = _range(ports, "port", _EXPOSED_FORM)
        protocol = _protocol(proto) if "/" in spec else "tcp"
    except ValueError as exc:
        raise ValueError(f"{shown(spec)}: {exc}") from None
    return tuple(
        TransportPort(port=port, proto=protocol) for port in range(first, last + 1)
    )


def conflicts(requests: Iterable[PortRequest]) -> list[str]:
    """Return what is wrong with requests that are each right, one sentence a fault.

    That is a request that is there twice, and two that ask for the same port of the
    host at addresses of which one includes the other.
    """
    seen: set[PortRequest] = set()
    problems: dict[str, None] = {}
    by_port: dict[tuple[Proto, int], dict[IPAddress | None, PortRequest]] = {}
    for request in requests:
        if request in seen:
            problems[f"{request} is asked for twice"] = None
            continue
        seen.add(request)
        if not request.host_port or request.host_port_end > request.host_port:
            continue
        taken = by_port.setdefault((request.proto, request.host_port), {})
        if rival := _rival(taken, request.host_address):
            port = f"{request.host_port}/{request.proto}"
            problems[f"{rival} and {request} ask for the same port {port}"] = None
        taken.setdefault(request.host_address, request)
    return list(problems)


def _rival(
    taken: dict[IPAddress | None, PortRequest], address: IPAddress | None
) -> PortRequest | None:
    """Return a request that has the port at an address already."""
    if address in taken:
        return taken[address]
    for other, request in taken.items():
        if other is None or address is None or overlap(other, address):
            return request
    return None


def _text(value: object, form: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected {form}, not {shown(value)}")
    if len(value) > _LONGEST:
        raise ValueError(f"{shown(value)}: expected {form}")
    return value


def _parse_spec(spec: str) -> tuple[PortRequest, ...]:
    rest, slash, proto = spec.partition("/")
    protocol = _protocol(proto) if slash else "tcp"
    address, host_ports, ports = _split(rest)
    first, last = _range(ports, "port of the sandbox", _FORM)
    host_first = host_last = 0
    if host_ports:
        host_first, host_last = _range(host_ports, "port of the host", _FORM)
    if first == last and host_first < host_last:
        request = PortRequest(
            container_port=first,
            proto=protocol,
            host_port=host_first,
            host_port_end=host_last,
            host_address=address,
        )
        return (request,)
    if host_first and host_last - host_first != last - first:
        raise ValueError(
            f"expected as many ports of the host as of the sandbox, not "
            f"{host_last - host_first + 1} for {last - first + 1}"
        )
    return tuple(
        PortRequest(
            container_port=first + offset,
            proto=protocol,
            host_port=host_first + offset if host_first else 0,
            host_address=address,
        )
        for offset in range(last - first + 1)
    )


def _split(rest: str) -> tuple[IPAddress | None, str, str]:
    """Return the address of the host, the ports of the host, and the ports."""
    if rest.startswith("["):
        inside, bracket, behind = rest[1:].partition("]")
        words = behind.split(":")
        if not bracket or words[0] or len(words) != 3:
            raise ValueError(f"expected {_FORM}")
        address = _host_address(inside)
        if address.version != 6 and ":" not in inside:
            raise ValueError("only IPv6 addresses are put into brackets")
        return address, words[1], words[2]
    words = rest.split(":")
    if len(words) > 3:
        raise ValueError("an IPv6 address is put into brackets, as [::1]:8080:80")
    if len(words) == 3 and words[0]:
        return _host_address(words[0]), words[1], words[2]
    if rest.startswith(":"):
        raise ValueError("expected an address or a port before the first colon")
    return None, words[0] if len(words) == 2 else "", words[-1]


def _host_address(value: object) -> IPAddress:
    """Check an address at which ports are to be published."""
    if isinstance(value, str) and "%" in value:
        raise ValueError("an address of the host must have no zone")
    try:
        address = validation.host_binding(value)
    except ValueError as exc:
        hint = "" if "cannot be" in str(exc) else ": names are not looked up"
        raise ValueError(f"{exc}{hint}") from None
    if isinstance(address, IPv6Address) and address.is_link_local:
        raise ValueError(f"{address} means a different host on each link")
    return address


def _range(value: str, what: str, form: str) -> tuple[int, int]:
    """Parse ``"80"`` or ``"8000-8010"``."""
    found = _PORTS.fullmatch(value)
    if found is None:
        raise ValueError(f"expected {form}")
    first = _port(int(found[1]), what)
    last = _port(int(found[2]), what) if found[2] else first
    if last < first:
        raise ValueError(f"expected {last}-{first}, not {value}")
    return first, last


def _port(value: object, what: str) -> int:
    port = validation.integer(value)
    if not port and what.endswith("host"):
        raise ValueError(f"{what} is 0: leave it out for any free port")
    if not 1 <= port <= HIGHEST:
        raise ValueError(f"{what} must be from 1 to {HIGHEST}, not {shown(port)}")
    return port


def _protocol(value: object) -> Proto:
    lowered = value.lower() if isinstance(value, str) else value
    for proto in PROTOCOLS:
        if proto == lowered:
            return proto
    raise ValueError(f"protocol {shown(value)} is not one of {', '.join(PROTOCOLS)}")


def _checked(request: PortRequest) -> PortRequest:
    """Check the fields of a request that a caller has made."""
    try:
        first = last = 0
        if validation.integer(request.host_port):
            first = last = _port(request.host_port, "host_port")
        if validation.integer(request.host_port_end):
            last = _port(request.host_port_end, "host_port_end")
        if last and not first:
            raise ValueError("host_port_end needs a host_port")
        if last < first:
            raise ValueError(f"host_port_end must be {first} or more, not {last}")
        address = request.host_address
        return PortRequest(
            container_port=_port(request.container_port, "container_port"),
            proto=_protocol(request.proto),
            host_port=first,
            host_port_end=last if last > first else 0,
            host_address=None if address is None else _host_address(address),
        )
    except (ValueError, TypeError) as exc:
        raise type(exc)(f"{shown(request)}: {exc}") from None


def asks_for(request: PortRequest, port: int) -> bool:
    """Tell whether a port of the host is asked for, be it as one of several."""
    last = request.host_port_end or request.host_port
    return request.host_port <= port <= last


def overlap(one: IPAddress, other: IPAddress) -> bool:
    """Tell whether a port cannot be taken at both of two addresses of the host."""
    if one.version != other.version:
        return False
    return one == other or one.is_unspecified or other.is_unspecified
