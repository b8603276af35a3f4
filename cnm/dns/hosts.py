"""Making hosts(5), as libnetwork does (etchosts.go)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..types import IPAddress

HOST_FILE = "/etc/hosts"

_IPV4 = (("127.0.0.1", "localhost"),)
_IPV6 = (
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


def loopback_lines(*, ipv6: bool) -> list[str]:
    """Return the lines that every sandbox has.

    :param ipv6: whether its loopback has an IPv6 address
    """
    entries = (*_IPV4, *_IPV6) if ipv6 else _IPV4
    return [f"{address}\t{names}" for address, names in entries]


def host_lines() -> list[str]:
    """Return the lines of the host's own file. Blocks. A missing file is empty."""
    try:
        with open(HOST_FILE, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def own_lines(
    hostname: str,
    domainname: str,
    addresses: Iterable[IPAddress],
    extra: Mapping[str, Sequence[IPAddress]],
) -> list[str]:
    """Return the lines that a sandbox has of its own.

    :param addresses: its own addresses, one line each if it has a hostname
    :param extra: further addresses by name
    """
    lines = [f"{address}\t{name}" for name, some in extra.items() for address in some]
    if hostname:
        names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
        lines += [f"{address}\t{names}" for address in addresses]
    return lines


def edited(content: str, went: Iterable[str], came: Iterable[str]) -> str:
    """Return a hosts file without some lines of ours, and with others at its end.

    What somebody else has written into it stays as it is.
    """
    gone = set(went)
    lines = [line for line in content.split("\n") if line not in gone]
    while lines and not lines[-1]:
        lines.pop()
    present = set(lines)
    lines += [line for line in dict.fromkeys(came) if line not in present]
    return "\n".join([*lines, ""])
