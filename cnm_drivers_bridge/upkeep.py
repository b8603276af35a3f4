"""Finding out how a network's bridge and its ports are, and mending them: plans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from cnm.driver import (
    ConflictError,
    Difference,
    EndpointInfo,
    InvalidError,
    IPInterface,
    NetworkInfo,
)
from cnm.firewall import Firewall, NetworkRules
from cnm.linux import (
    Link,
    Sockets,
    add_address,
    dump_links,
    parse_link,
    set_link,
)

from .bridge import Bridge, addresses, find, forward, lacking, make, present_addresses
from .options import BridgeOptions
from .port import Port


def take_up(
    sockets: Sockets,
    firewall: Firewall,
    network: NetworkInfo,
    wanted: NetworkRules,
    options: BridgeOptions,
    known: Bridge,
    ports: Mapping[str, Port],
) -> Bridge:
    """Plan: find the bridge of a network; make it if it is gone, mend what it lacks.

    :param ports: what should be plugged in, by endpoint; what is gone is left out
    """
    link = find(sockets, known.name)
    if link is None and known.made:
        known = make(sockets, network, options, known)
    elif link is None:
        raise InvalidError(f"bridge {known.name!r} is not there any more")
    elif known.made and link.alias != known.mark:
        raise ConflictError(f"link {known.name!r} belongs to somebody else")
    else:
        known = replace(known, index=link.index)
        _mend(sockets, network, options, known, link)
    firewall.update(sockets, add=wanted.elements())
    _plug_in(sockets, known, ports)
    forward(sockets, firewall, network, options)
    return known


def _mend(
    sockets: Sockets,
    network: NetworkInfo,
    options: BridgeOptions,
    known: Bridge,
    link: Link,
) -> None:
    """Give a bridge what it has lost."""
    lacking = _lacking(sockets, network, options, known)
    if lacking or not link.up:
        sockets.route.call(
            set_link(link.index, up=True),
            *(add_address(link.index, address) for address in lacking),
        )


def _lacking(
    sockets: Sockets, network: NetworkInfo, options: BridgeOptions, known: Bridge
) -> list[IPInterface]:
    present = present_addresses(sockets, known.index)
    return lacking(addresses(network, options), present)


def _plug_in(sockets: Sockets, known: Bridge, ports: Mapping[str, Port]) -> None:
    """Make links ports of the bridge again, if they are there and are not."""
    links = _links(sockets) if ports else {}
    for port in ports.values():
        link = links.get(port.name)
        if link is not None and link.alias == port.mark and not _plugged(link, known):
            port = replace(port, bridge=known.index)
            sockets.route.call(*port.settings(sockets, link.index, master=known.index))


def _links(sockets: Sockets) -> dict[str, Link]:
    links = map(parse_link, sockets.route.dump(dump_links()))
    return {link.name: link for link in links}


def _plugged(link: Link, bridge: Bridge) -> bool:
    return link.up and link.master == bridge.index


def check(
    sockets: Sockets,
    network: NetworkInfo,
    options: BridgeOptions,
    known: Bridge,
    ports: Mapping[str, Port],
    endpoints: tuple[EndpointInfo, ...],
) -> tuple[Difference, ...]:
    """Plan: say what is wrong with the bridge of a network and its ports.

    A port that is gone is not reported: its interface in the sandbox is gone with it.
    """
    problems = list(_problems(sockets, network, options, known))
    if problems:
        return tuple(Difference(subject=network, problem=it) for it in problems)
    links = _links(sockets) if ports else {}
    return tuple(
        Difference(
            subject=endpoint,
            problem=f"{link.name} is no port of bridge {known.name}, or is down",
        )
        for endpoint in endpoints
        if (link := links.get(ports[endpoint.id].name)) and not _plugged(link, known)
    )


def _problems(
    sockets: Sockets, network: NetworkInfo, options: BridgeOptions, known: Bridge
) -> Iterator[str]:
    link = find(sockets, known.name)
    if link is None:
        yield f"bridge {known.name} is gone"
    elif known.made and link.alias != known.mark:
        yield f"link {known.name} belongs to somebody else"
    elif link.index != known.index:
        yield f"bridge {known.name} is not the one that it was"
    else:
        if not link.up:
            yield f"bridge {known.name} is down"
        for address in _lacking(sockets, network, options, known):
            yield f"bridge {known.name} lacks {address}"
