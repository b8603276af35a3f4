"""A sandbox that is asked for: checked, and normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .. import validation as check
from ..types import IPAddress
from ..validation import Faults

#: What extra hosts may have for an address: that of the host, as the sandbox sees it.
HOST_GATEWAY = "host-gateway"


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxRequest:
    """A sandbox that is asked for.

    :ivar extra_hosts: addresses, or :data:`HOST_GATEWAY`, by name
    :ivar bound_to: id of the process that it is to end with, or 0
    :ivar netns: None to make a namespace, ``"host"`` for the controller's own, a pid,
        or the path of a namespace to adopt
    """

    name: str
    hostname: str
    domainname: str
    dns: tuple[IPAddress, ...]
    dns_search: tuple[str, ...]
    dns_options: tuple[str, ...]
    extra_hosts: Mapping[str, str]
    netns: str | int | None
    bound_to: int
    labels: Mapping[str, str]


def sandbox_request(
    name: object,
    *,
    hostname: object,
    domainname: object,
    dns: object,
    dns_search: object,
    dns_options: object,
    extra_hosts: object,
    netns: object,
    bound_to: object,
    labels: object,
) -> SandboxRequest:
    """Check the parameters of a sandbox.

    :raises InvalidError: with everything that is wrong with them
    """
    faults = Faults()
    hosts = faults.mapping("extra_hosts", _host_entry, extra_hosts)
    for host in hosts:
        faults.parse("extra_hosts", check.dns_name, host)
    request = SandboxRequest(
        name=faults.parse("name", check.name, name) or "",
        hostname=faults.parse("hostname", check.hostname, hostname) or "",
        domainname=faults.parse("domainname", check.hostname, domainname) or "",
        dns=faults.each("dns", check.address, dns),
        dns_search=faults.each("dns_search", check.dns_option, dns_search),
        dns_options=faults.each("dns_options", check.dns_option, dns_options),
        extra_hosts=hosts,
        netns=faults.parse("netns", _netns, netns) if netns is not None else None,
        bound_to=0
        if bound_to is None
        else faults.parse("bound_to", _pid, bound_to) or 0,
        labels=faults.mapping("labels", check.text, labels),
    )
    faults.check()
    return request


def _host_entry(value: object) -> str:
    return HOST_GATEWAY if value == HOST_GATEWAY else str(check.address(value))


def _pid(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise ValueError(f"expected a process id, not {check.shown(value)}")
    return value


def _netns(value: object) -> str | int:
    try:
        if value == "host":
            return "host"
        return _pid(value) if isinstance(value, int) else check.absolute_path(value)
    except ValueError:
        raise ValueError(
            f"expected an absolute path, a process id, 'host' or None, not "
            f"{check.shown(value)}"
        ) from None
