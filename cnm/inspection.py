"""Comparing what a controller knows with what the kernel has."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from .endpoint import Endpoint
from .errors import CNMError, KernelError, NetlinkError
from .events import NetworkChecked
from .gateways import elect
from .interfaces import is_there
from .linux import (
    REAP_GROUP,
    REAP_SINGLY_GROUP,
    Link,
    LinkAddress,
    NetlinkSocket,
    SandboxSockets,
    Sockets,
    dump_addresses,
    dump_routes,
    get_link,
    parse_address,
    parse_link,
    parse_route,
)
from .linux.links import parse_alias
from .linux.netlink import Message
from .network import Network
from .reports import Difference
from .sandbox import Sandbox
from .services import Services
from .sweeping import stray_links
from .turns import gather
from .types import EndpointInfo, IPAddress, IPInterface

#: Groups of links that the reaper is about to delete.
_REAPED = (REAP_GROUP, REAP_SINGLY_GROUP)


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """An interface that a sandbox should have.

    :ivar addresses: its own and its link-local ones
    :ivar defaults: next hops of the default routes that lead through it, by family
    """

    info: EndpointInfo
    interface: str
    index: int
    mark: str
    addresses: tuple[IPInterface, ...]
    defaults: tuple[tuple[int, IPAddress | None], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """What is wrong in a sandbox.

    :ivar info: the endpoint whose interface it is about; None for all of the sandbox
    :ivar gone: whether it is not there at all
    """

    info: EndpointInfo | None
    problem: str
    gone: bool = False


def expected(services: Services, sandbox: Sandbox) -> tuple[Expected, ...]:
    """Return the interfaces that a sandbox should have."""
    chosen = elect(endpoint.candidate for endpoint in sandbox.endpoints)
    result = []
    for endpoint in sandbox.endpoints:
        attachment = endpoint.attachment
        if attachment is None or not attachment.index or endpoint.network.fault:
            continue
        info = endpoint.info
        own = (info.address, info.address6, *info.link_local)
        result.append(
            Expected(
                info=info,
                interface=attachment.interface,
                index=attachment.index,
                mark=f"{services.mark}:{info.id}",
                addresses=tuple(address for address in own if address is not None),
                defaults=tuple(
                    (version, candidate.next_hop(version))
                    for version, candidate in chosen.items()
                    if candidate.endpoint == info.id
                ),
            )
        )
    return tuple(result)


def examine(
    sockets: Sockets, key: str, interfaces: Sequence[Expected]
) -> tuple[Damage, ...]:
    """Plan: return what is wrong in a sandbox, or why nobody can tell."""
    try:
        if not is_there(key):  # though sockets of ours may still be in it
            return (Damage(info=None, problem="its namespace is gone", gone=True),)
        with sockets.sandbox(key) as sandbox:
            return tuple(
                damage for each in interfaces for damage in _examine(sandbox, each)
            )
    except KernelError as exc:
        return (Damage(info=None, problem=f"it cannot be looked into: {exc}"),)


def _examine(sandbox: SandboxSockets, each: Expected) -> Iterator[Damage]:
    found = _find(sandbox.route, each)
    if found is None:
        yield _gone(each)
    elif not parse_link(found).up:
        problem = f"its interface {each.interface} is down"
        yield Damage(info=each.info, problem=problem)
    else:
        yield from _configuration(sandbox, each)


def missing(
    sandbox: SandboxSockets, interfaces: Sequence[Expected]
) -> tuple[Damage, ...]:
    """Plan: return which interfaces are gone from a sandbox."""
    return tuple(_gone(it) for it in interfaces if _find(sandbox.route, it) is None)


def _gone(each: Expected) -> Damage:
    problem = f"its interface {each.interface} is gone"
    return Damage(info=each.info, problem=problem, gone=True)


def _find(route: NetlinkSocket, each: Expected) -> Message | None:
    """Return an interface; None if it is gone, or another one has its index."""
    try:
        found = route.call(get_link(each.index))[0]
    except NetlinkError as exc:
        if exc.errno != errno.ENODEV:
            raise
        return None
    return found if parse_alias(found) in ("", each.mark) else None


def _configuration(sandbox: SandboxSockets, each: Expected) -> Iterator[Damage]:
    present = {
        address.interface
        for address in _addresses(sandbox, each.index)
        if address.index == each.index
    }
    for wanted in each.addresses:
        if wanted not in present:
            problem = f"its interface {each.interface} lacks {wanted}"
            yield Damage(info=each.info, problem=problem)
    for version, via in each.defaults:
        routes = map(parse_route, sandbox.route.dump(dump_routes(version)))
        if not any(
            (route.destination.prefixlen, route.via, route.index)
            == (0, via, each.index)
            for route in routes
        ):
            problem = f"the IPv{version} default route by {each.interface} is gone"
            yield Damage(info=each.info, problem=problem)


def _addresses(sandbox: SandboxSockets, index: int) -> Iterator[LinkAddress]:
    return map(parse_address, sandbox.route.dump(dump_addresses(index)))


def examine_all(
    sockets: Sockets, sandboxes: Sequence[tuple[Sandbox, tuple[Expected, ...]]]
) -> list[tuple[Sandbox, Damage]]:
    """Plan: return what is wrong in several sandboxes."""
    return [
        (sandbox, damage)
        for sandbox, interfaces in sandboxes
        for damage in examine(sockets, sandbox.key, interfaces)
    ]


async def check(services: Services) -> tuple[Difference, ...]:
    """Return what is not in the kernel as it should be.

    What is being changed meanwhile is passed over.
    """
    differences = [
        Difference(subject=f"table {services.firewall.table}", problem=problem)
        for problem in await services.kernel.run(services.firewall.check)
    ]
    checks = [partial(check_network, services, it) for it in services.networks]
    differences += chain.from_iterable(await gather(checks))
    idle = [it for it in services.sandboxes if not it.lock.locked()]
    wanted = [(sandbox, expected(services, sandbox)) for sandbox in idle]
    for sandbox, damage in await services.kernel.run(examine_all, wanted):
        if sandbox.lock.locked() or sandbox not in services.sandboxes:
            continue
        subject = damage.info or sandbox.info
        if isinstance(subject, EndpointInfo) and not _is_joined(sandbox, subject):
            continue
        differences.append(Difference(subject=subject, problem=damage.problem))
    differences += [
        Difference(subject=f"link {link.name}", problem="it belongs to nothing")
        for link in await strays(services)
    ]
    return tuple(differences)


async def strays(services: Services) -> list[Link]:
    """Return the links of ours that belong to nothing, if nothing is being made."""
    found = await services.kernel.run(stray_links, services)
    if any(_is_busy(network) for network in services.networks):
        return []
    if services.networks.reserved:
        return []
    return [
        link
        for link in found
        if link.group not in _REAPED
        and not services.has_link(link.alias.rpartition(":")[2])
    ]


def _is_busy(network: Network) -> bool:
    locks = [network.lock, *(endpoint.lock for endpoint in network.endpoints)]
    return bool(network.directory.reserved) or any(it.locked() for it in locks)


def _is_joined(sandbox: Sandbox, info: EndpointInfo) -> bool:
    return any(endpoint.id == info.id for endpoint in sandbox.endpoints)


async def check_network(services: Services, network: Network) -> tuple[Difference, ...]:
    """Return what a network's driver finds wrong with it.

    What is being removed meanwhile is passed over.
    """
    await services.turns.take()
    info = network.info
    if network.fault:
        return (Difference(subject=info, problem=network.fault),)
    if network.handler is None or not network.handler.handles(NetworkChecked):
        return ()
    event = NetworkChecked(network=info, endpoints=joined(network))
    try:
        found = await services.answer(network.handler, event, tuple)
    except CNMError as exc:
        problem = f"its driver cannot tell how it is: {exc}"
        found = (Difference(subject=info, problem=problem),)
    return tuple(it for it in found if not _is_going(services, network, it))


def _is_going(services: Services, network: Network, found: Difference) -> bool:
    """Tell whether a difference is about something that is being removed."""
    if network.deleting:
        return True
    subject = found.subject
    return isinstance(subject, EndpointInfo) and not services.has_link(subject.id)


def joined(network: Network) -> tuple[EndpointInfo, ...]:
    """Return the endpoints of a network that are in sandboxes."""
    idle: tuple[Endpoint, ...] = network.endpoints
    return tuple(each.info for each in idle if each.joined and not each.leaving)
