"""Looking for what keeps traffic from flowing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from .errors import KernelError, NetlinkError
from .firewall import obstacles
from .linux import Sockets, get_link, parse_link, sysctl
from .services import Services
from .types import Finding

#: Part of the room for connections from which on there is reason to worry.
_ALMOST_FULL = 0.9


async def diagnose(services: Services) -> tuple[Finding, ...]:
    """Return what was found, errors first."""
    found = await services.kernel.run(_examine, services)
    return tuple(sorted(found, key=lambda finding: finding.severity))


def _examine(sockets: Sockets, services: Services) -> list[Finding]:
    """Plan: look at everything."""
    found = [*_networks(sockets, services), *_sandboxes(services), *_connections()]
    if services.firewall.enabled:
        found += _table(sockets, services)
        found += _forwarding(services)
        found += _other_firewalls(sockets, services)
    return found


def _networks(sockets: Sockets, services: Services) -> Iterator[Finding]:
    for network in services.networks:
        for index in network.links:
            subject = f"network {network.name!r}"
            try:
                link = parse_link(sockets.route.call(get_link(index))[0])
            except NetlinkError as exc:
                if exc.errno != errno.ENODEV:
                    raise
                yield Finding(
                    severity="error",
                    subject=subject,
                    problem="somebody has deleted its link",
                    advice="Delete the network and create it again.",
                )
                continue
            if not link.up:
                yield Finding(
                    severity="error",
                    subject=subject,
                    problem=f"its link {link.name} is down",
                    advice=f"Switch it on: ip link set {link.name} up",
                )
            own = f"net.ipv6.conf.{link.name.replace('.', '/')}"
            if _hears_routers(own):
                yield Finding(
                    severity="warning",
                    subject=subject,
                    problem=f"the host takes default routes from whoever is on its "
                    f"link {link.name}: sandboxes, too",
                    advice="If there is no router of yours: sysctl -w "
                    f"{own}.accept_ra=0",
                )


def _hears_routers(own: str) -> bool:
    """Tell whether a link of those settings is configured by router advertisements."""
    if _setting(f"{own}.disable_ipv6") != "0":
        return False
    accepted = _setting(f"{own}.accept_ra")
    # Documentation/networking/ip-sysctl.rst: a router ignores them, unless it is 2
    return accepted == "2" or (accepted, _setting(f"{own}.forwarding")) == ("1", "0")


def _sandboxes(services: Services) -> Iterator[Finding]:
    for sandbox in services.sandboxes:
        if not os.path.exists(sandbox.key):
            yield Finding(
                severity="error",
                subject=f"sandbox {sandbox.name!r}",
                problem=f"its network namespace {sandbox.key} is gone",
                advice="Delete the sandbox and create it again.",
            )


def _table(sockets: Sockets, services: Services) -> Iterator[Finding]:
    firewall = services.firewall
    if not firewall.exists(sockets):
        yield Finding(
            severity="error",
            subject=f"table inet {firewall.table}",
            problem="somebody has deleted it",
            advice="It is rebuilt at once; find out who deletes it again and again.",
        )


def _forwarding(services: Services) -> Iterator[Finding]:
    networks = [network.info for network in services.networks if not network.internal]
    settings = {
        4: ("net.ipv4.ip_forward",),
        6: ("net.ipv6.conf.all.forwarding", "net.ipv6.conf.all.force_forwarding"),
    }
    wanted = {4: any(it.ipv4 for it in networks), 6: any(it.ipv6 for it in networks)}
    for version, names in settings.items():
        if wanted[version] and all(_setting(name) in ("", "0") for name in names):
            yield Finding(
                severity="error",
                subject=names[0],
                problem=f"the host does not forward IPv{version}",
                advice=f"Switch it on: sysctl -w {names[0]}=1",
            )
    disabled = "net.ipv6.conf.all.disable_ipv6"
    if wanted[6] and _setting(disabled) == "1":
        yield Finding(
            severity="error",
            subject=disabled,
            problem="the host has no IPv6",
            advice=f"Switch it on: sysctl -w {disabled}=0",
        )


def _other_firewalls(sockets: Sockets, services: Services) -> Iterator[Finding]:
    for obstacle in obstacles(sockets):
        if services.manage_forward and obstacle.managed:
            continue
        yield Finding(
            severity="warning",
            subject=obstacle.subject,
            problem=obstacle.problem,
            advice=obstacle.advice,
        )


def _connections() -> Iterator[Finding]:
    limit = _setting("net.netfilter.nf_conntrack_max") or "0"
    count = _setting("net.netfilter.nf_conntrack_count") or "0"
    if int(limit) and int(count) > int(limit) * _ALMOST_FULL:
        yield Finding(
            severity="warning",
            subject="net.netfilter.nf_conntrack_max",
            problem=f"{count} of {limit} possible connections are tracked; new ones "
            "are dropped when that is full",
            advice=f"Make room: sysctl -w net.netfilter.nf_conntrack_max={limit}0",
        )


def _setting(name: str) -> str:
    """Return a kernel setting, ``""`` if this kernel does not have it."""
    try:
        return sysctl.read(name)
    except KernelError as exc:
        if exc.errno != errno.ENOENT:
            raise
        return ""
