"""Checking what callers ask for. All faults of one call are reported together."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from .errors import InvalidError
from .types import (
    JSON,
    AddressPool,
    IPAddress,
    IPInterface,
    IPNetwork,
)

T = TypeVar("T")

#: Longest name of a network, an endpoint or a sandbox.
NAME_LENGTH = 255
#: Deepest nesting of an option's value, and most bits of its integers.
JSON_DEPTH = 16
JSON_BITS = 1024
#: Longest interface name: IFNAMSIZ - 1, include/uapi/linux/if.h.
INTERFACE_NAME_LENGTH = 15
#: Longest host name and domain name, RFC 1123 and RFC 1035.
HOSTNAME_LENGTH = 253

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")
_HOSTNAME_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}")
_SYSCTL = re.compile(r"net\.(ipv4|ipv6|mpls)\.[a-z]+\.(IFNAME|ifname)\.[a-z0-9_./-]+")


class Faults:
    """Collects what is wrong with a call."""

    def __init__(self) -> None:
        self._problems: list[str] = []

    @property
    def problems(self) -> tuple[str, ...]:
        """What has been found so far."""
        return tuple(self._problems)

    def add(self, problem: str) -> None:
        """Add a fault."""
        self._problems.append(problem)

    def absorb(self, error: InvalidError) -> None:
        """Add the faults that somebody else has found."""
        self._problems.extend(error.problems)

    def parse(
        self, what: str, parser: Callable[[object], T], value: object
    ) -> T | None:
        """Parse a value; add a fault that names the parameter if it is wrong."""
        try:
            return parser(value)
        except (ValueError, TypeError) as exc:
            self.add(f"{what}: {exc}")
            return None

    def each(
        self, what: str, parser: Callable[[object], T], values: object
    ) -> tuple[T, ...]:
        """Parse every value of an iterable that is not a string or a mapping."""
        if values == ():
            return ()
        if isinstance(values, (str, bytes, Mapping)) or not isinstance(
            values, Iterable
        ):
            self.add(f"{what}: expected a list, not {shown(values)}")
            return ()
        parsed = (self.parse(what, parser, value) for value in values)
        return tuple(value for value in parsed if value is not None)

    def mapping(
        self, what: str, parser: Callable[[object], T], values: object
    ) -> dict[str, T]:
        """Parse every value of a mapping with strings for keys; None for none."""
        if values is None:
            return {}
        try:
            items = dict(values.items()) if isinstance(values, Mapping) else None
        except (TypeError, ValueError):  # it is no mapping, whatever it says
            items = None
        if items is None:
            self.add(f"{what}: expected a mapping, not {shown(values)}")
            return {}
        result = {}
        for key, value in items.items():
            if not isinstance(key, str) or not key or len(key) > NAME_LENGTH:
                self.add(
                    f"{what}: expected keys of 1 to {NAME_LENGTH} characters, "
                    f"not {shown(key)}"
                )
                continue
            parsed = self.parse(f"{what}[{shown(key)}]", parser, value)
            if parsed is not None:
                result[key] = parsed
        return result

    def flag(self, what: str, value: object) -> bool:
        """Check that a value is a bool."""
        if not isinstance(value, bool):
            self.add(f"{what}: expected True or False, not {shown(value)}")
            return False
        return value

    def check(self) -> None:
        """Raise InvalidError if there is any fault."""
        if self._problems:
            raise InvalidError(*self._problems)


def shown(value: object) -> str:
    """Return a value's repr, cut to a length that fits an error message."""
    try:
        text = repr(value)
    except Exception:  # of a number with thousands of digits, for instance
        text = object.__repr__(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def text(value: object) -> str:
    """Check that a value is a string."""
    if not isinstance(value, str):
        raise TypeError(f"expected a string, not {shown(value)}")
    return value


def name(value: object) -> str:
    """Check the name of a network, an endpoint or a sandbox."""
    string = text(value)
    if not string.strip():
        raise ValueError("name is empty")
    if len(string) > NAME_LENGTH:
        raise ValueError(
            f"expected at most {NAME_LENGTH} characters, not {len(string)}: "
            f"{shown(string)}"
        )
    if not _NAME.fullmatch(string):
        raise ValueError(
            "expected letters, digits and any of '_.:-', the first one a letter or "
            f"a digit, not {shown(string)}"
        )
    return string


def json(value: object, depth: int = JSON_DEPTH) -> JSON:
    """Check that a value is None, a bool, a number, a string, or made up of those."""
    if not depth:
        raise ValueError(f"expected at most {JSON_DEPTH} levels, not {shown(value)}")
    if isinstance(value, int) and value.bit_length() > JSON_BITS:
        raise ValueError(f"expected at most {JSON_BITS} bits, not {shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"expected a JSON value, not {value}")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [json(item, depth - 1) for item in value]
    if isinstance(value, Mapping):
        return {text(key): json(item, depth - 1) for key, item in value.items()}
    raise TypeError(f"expected a JSON value, not {shown(value)}")


def integer(value: object) -> int:
    """Check that a value is an integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected an integer, not {shown(value)}")
    return value


def address(value: object) -> IPAddress:
    """Parse an address."""
    if isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        parsed: IPAddress = value
    else:
        try:
            parsed = ipaddress.ip_address(text(value))
        except ValueError:
            raise ValueError(f"invalid address {shown(value)}") from None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.scope_id:
        raise ValueError(f"address {shown(value)} must have no zone")
    return parsed


def interface(value: object) -> IPInterface:
    """Parse an address with a prefix length."""
    try:
        return ipaddress.ip_interface(text(str(value)))
    except ValueError:
        raise ValueError(f"invalid address {shown(value)}") from None


def subnet(value: object) -> IPNetwork:
    """Parse a subnet, which must have no host bits."""
    if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return value
    string = text(value)
    if "/" not in string:
        raise ValueError(
            f"invalid subnet {shown(value)}: expected a prefix length, as 10.9.0.0/24"
        )
    try:
        network = ipaddress.ip_network(string, strict=False)
    except ValueError:
        raise ValueError(f"invalid subnet {shown(value)}") from None
    if network.network_address != ipaddress.ip_interface(string).ip:
        raise ValueError(f"invalid subnet {string}: it should be {network}")
    return network


def ip_range(value: object) -> IPNetwork:
    """Parse a range of addresses, in the form of a subnet."""
    try:
        return subnet(value)
    except ValueError as exc:
        raise ValueError(
            str(exc).replace("invalid subnet", "invalid ip-range")
        ) from None


def mac_address(value: object) -> str:
    """Parse a MAC address; return it in lower case, with colons."""
    string = text(value)
    if not _MAC.fullmatch(string):
        raise ValueError(
            f"invalid MAC address {shown(value)}: expected six octets, "
            "as 02:42:0a:09:00:02"
        )
    mac = string.lower().replace("-", ":")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise ValueError(f"invalid MAC address {shown(value)}: it must be unicast")
    return mac


def interface_name(value: object) -> str:
    """Check the name of a network interface."""
    string = text(value)
    if string in ("all", "default"):
        raise ValueError(
            f"{string!r} stands for several interfaces, and none has that name"
        )
    size = len(string.encode(errors="backslashreplace"))
    if size > INTERFACE_NAME_LENGTH:
        raise ValueError(
            f"interface name {shown(string)} has {size} bytes; the kernel allows "
            f"{INTERFACE_NAME_LENGTH}"
        )
    if (
        not string
        or string in (".", "..")
        or not string.isascii()
        or not string.isprintable()
        or any(c in "/: %" for c in string)
    ):
        raise ValueError(
            f"invalid interface name {shown(string)}: expected 1 to "
            f"{INTERFACE_NAME_LENGTH} ASCII characters without space, '/', ':' or '%'"
        )
    return string


def hostname(value: object) -> str:
    """Check a host name or a domain name."""
    string = text(value)
    if len(string) > HOSTNAME_LENGTH:
        raise ValueError(
            f"expected at most {HOSTNAME_LENGTH} characters, not {len(string)}"
        )
    if string and not all(
        _HOSTNAME_LABEL.fullmatch(label) for label in string.split(".")
    ):
        raise ValueError(
            f"invalid name {shown(string)}: expected letters, digits, '-' and '_', "
            "at most 63 between two dots"
        )
    return string


def alias(value: object) -> str:
    """Check a further name of an endpoint; ``*.app`` stands for all that end so."""
    string = text(value)
    dns_name(string.removeprefix("*."))
    return string


def dns_name(value: object) -> str:
    """Check a name that is not empty."""
    string = hostname(value)
    if not string:
        raise ValueError("expected a name, not ''")
    return string


def absolute_path(value: object) -> str:
    """Check an absolute path."""
    if not isinstance(value, str) or value[:1] != "/" or not _is_path(value):
        raise ValueError(f"expected an absolute path, not {shown(value)}")
    return value


def path(value: object) -> str:
    """Check a path, and return it as an absolute one; ``""`` stays."""
    string = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(string, str) or not _is_path(string):
        raise ValueError(f"expected a path, not {shown(value)}")
    relative = string and not string.startswith("/")
    return os.path.join(os.getcwd(), string) if relative else string


def _is_path(value: str) -> bool:
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def dns_option(value: object) -> str:
    """Check an option or a search domain of resolv.conf."""
    string = text(value)
    if (
        not string
        or len(string) > HOSTNAME_LENGTH
        or not re.fullmatch(r"[!-~]+", string)
    ):
        raise ValueError(
            f"expected 1 to {HOSTNAME_LENGTH} ASCII characters without space, "
            f"not {shown(string)}"
        )
    return string


def sysctl_name(value: object) -> str:
    """Check the name of an interface's kernel setting."""
    string = text(value)
    if not _SYSCTL.fullmatch(string) or ".." in string:
        raise ValueError(
            f"unrecognised network interface sysctl {shown(string)}; represent "
            "'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' "
            "or 'mpls'"
        )
    return string


def sysctl_value(value: object) -> str:
    """Check the value of a kernel setting."""
    string = str(int(value)) if isinstance(value, (bool, int)) else text(value)
    if not re.fullmatch(r"[ -~\t]{1,255}", string):
        raise ValueError(f"expected 1 to 255 ASCII characters, not {shown(string)}")
    return string


def link_local(value: object) -> IPInterface:
    """Parse a link-local address; its prefix is /16 or /64, as in libnetwork."""
    parsed = address(value)
    if not parsed.is_link_local:
        raise ValueError(
            f"invalid link-local address {shown(value)}: expected one of "
            "169.254.0.0/16 or fe80::/10"
        )
    return ipaddress.ip_interface((parsed, 16 if parsed.version == 4 else 64))


def host_binding(value: object) -> IPAddress:
    """Parse an address of the host at which ports are published."""
    parsed = address(value)
    mapped = getattr(parsed, "ipv4_mapped", None)
    parsed = mapped or parsed
    if parsed.is_multicast or str(parsed) == "255.255.255.255":
        raise ValueError(f"{parsed} cannot be an address of a host")
    return parsed


def address_pool(value: object) -> AddressPool:
    """Parse a block of subnets: AddressPool, ``(base, size)`` or ``"base:size"``."""
    if isinstance(value, AddressPool):
        base, size = value.base, value.size
    elif isinstance(value, tuple) and len(value) == 2:
        base, size = subnet(value[0]), integer(value[1])
    else:
        head, _, tail = text(value).rpartition(":")
        if not tail.isascii() or not tail.isdecimal():
            raise ValueError(
                f"invalid address pool {shown(value)}: expected the size of its "
                "subnets, as 10.0.0.0/8:24"
            )
        base, size = subnet(head), int(tail)
    if not base.prefixlen <= size <= base.max_prefixlen:
        raise ValueError(
            f"invalid address pool {base}: the size of its subnets must be from "
            f"{base.prefixlen} to {base.max_prefixlen}, not {size}"
        )
    return AddressPool(base=base, size=size)
