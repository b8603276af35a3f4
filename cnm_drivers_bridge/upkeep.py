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
    BridgePort,
    Link,
    Sockets,
    add_address,
    dump_links,
    parse_bridge_port,
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
    for endpoint, link, _ in _misplaced(sockets, known, ports):
        port = replace(ports[endpoint], bridge=known.index)
        if link.alias == port.mark:
            master = None if link.master == known.index else known.index
            sockets.route.call(*port.settings(sockets, link.index, master=master))


def _misplaced(
    sockets: Sockets, known: Bridge, ports: Mapping[str, Port]
) -> Iterator[tuple[str, Link, str]]:
    """Yield endpoints whose link is not the port that it should be, and why.

    A link that is gone is left out.
    """
    if not ports:
        return
    # Only the bridge's own ports, and those that it lacks: the host may have thousands.
    plugged = {}
    for message in sockets.route.dump(dump_links(master=known.index)):
        one = parse_link(message)
        plugged[one.name] = one, parse_bridge_port(message)
    for endpoint, port in ports.items():
        own, found = plugged.get(port.name, (None, BridgePort()))
        link = own or find(sockets, port.name)
        if link is None:
            continue
        if own is None or not link.up:
            yield endpoint, link, f"is no port of bridge {known.name}, or is down"
            continue
        wanted = port.treatment(sockets)
        if wanted.isolated and not found.isolated:
            yield endpoint, link, f"is not isolated from others of bridge {known.name}"
        elif wanted.hairpin and not found.hairpin:
            yield endpoint, link, "lacks the hairpin mode that br_netfilter needs"


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
    by_id = {endpoint.id: endpoint for endpoint in endpoints}
    return tuple(
        Difference(subject=by_id[endpoint], problem=f"{link.name} {problem}")
        for endpoint, link, problem in _misplaced(sockets, known, ports)
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
