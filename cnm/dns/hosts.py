"""Making hosts(5), as libnetwork does (etchosts.go)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_IPV4 = (("127.0.0.1", "localhost"),)
_IPV6 = (
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


def hosts_file(
    hostname: str,
    domainname: str,
    addresses: Iterable[str],
    extra: Mapping[str, str],
) -> str:
    """Return the content of a sandbox's hosts file.

    :param addresses: the sandbox's own addresses, one line each if it has a hostname
    :param extra: further addresses by name
    """
    lines = [f"{address}\t{names}" for address, names in (*_IPV4, *_IPV6)]
    lines += [f"{address}\t{name}" for name, address in extra.items()]
    if hostname:
        names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
        lines += [f"{address}\t{names}" for address in addresses]
    return "\n".join([*lines, ""])
