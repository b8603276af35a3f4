"""The line between the host and a sandbox: blocking plans that make and remove it."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cnm.driver import (
    EndpointInfo,
    IPAddress,
    IPInterface,
    IPNetwork,
    NetlinkError,
    NetworkInfo,
    Route,
)
from cnm.firewall import Element, Firewall, NetworkRules, open_forwarding
from cnm.linux import (
    BRIDGE_GROUP,
    REAP_GROUP,
    Link,
    Placement,
    Request,
    Sockets,
    add_address,
    add_route,
    add_veth,
    choose_index,
    dump_addresses,
    dump_links,
    dump_routes,
    get_link,
    parse_address,
    parse_link,
    parse_route,
    set_link,
    sysctl,
)

PREFIX = "ptp"
#: Neighbour solicitations need a link-local source address (RFC 4861, section 4.3).
LINK_LOCAL = ipaddress.ip_interface("fe80::1/64")


def name_of(endpoint: EndpointInfo) -> str:
    """Return the name of the host's end; the kernel allows 15 characters."""
    return PREFIX + endpoint.id[:12]


@dataclass(frozen=True, slots=True)
class Host:
    """What the host has: links by name; addresses and routes with their links."""

    links: Mapping[str, Link]
    addresses: frozenset[tuple[int, IPAddress]]
    routes: frozenset[tuple[int, IPNetwork]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """The line of an endpoint.

    :ivar name: the host's end
    :ivar mark: alias by which the core knows the link to be the controller's
    :ivar mac: MAC address of the end in the sandbox
    :ivar mtu: MTU of both ends, or 0 for the kernel's default
    :ivar ends: for each family, the gateway's address and the endpoint's
    """

    name: str
    mark: str
    mac: str
    mtu: int
    ends: tuple[tuple[IPAddress, IPInterface], ...]
    firewall: Firewall

    def gateway(self, version: int) -> IPAddress | None:
        """Return the next hop of the sandbox's default route."""
        return next((ip for ip, _ in self.ends if ip.version == version), None)

    def routes(self) -> tuple[Route, ...]:
        """Return the routes that lead from the sandbox to its neighbours.

        The kernel takes the whole subnet to be on the link. The halves of the subnet
        are more specific than that, and lead to the gateway.
        """
        found: list[Route] = []
        for gateway, address in self.ends:
            found.append(Route(destination=ipaddress.ip_network(gateway)))
            found += [
                Route(destination=half, via=gateway)
                for half in address.network.subnets()
            ]
        return tuple(found)

    def plug(self, placement: Placement) -> tuple[int]:
        """Plan: make the veth pair, and the host's routes to the endpoint.

        :return: index of the host's end
        """
        index = choose_index()
        route = placement.sockets.route
        route.call(
            add_veth(
                self.name,
                placement.interface,
                index=index,
                peer_index=placement.index,
                peer_netns=placement.netns,
                peer_mac=self.mac,
                mtu=self.mtu,
                # by this group, other controllers know that it is cnm's
                group=BRIDGE_GROUP,
                up=False,
            )
        )
        proc = placement.sockets.procfs.path()
        sysctl.ignore_router_advertisements(self.name, proc)
        route.call(*self._settings(index))
        self.firewall.update(placement.sockets, add=rules(self.name))
        return (index,)

    def _settings(self, index: int) -> list[Request]:
        """Return what makes a link the host's end."""
        requests = [
            set_link(index, alias=self.mark, address_generation="none", up=True)
        ]
        for gateway, address in self.ends:
            requests.append(add_address(index, ipaddress.ip_interface(gateway)))
            if gateway.version == 6:
                requests.append(add_address(index, LINK_LOCAL))
            destination = ipaddress.ip_network(address.ip)
            requests.append(add_route(destination, index=index))
        return requests

    def problem(self, host: Host) -> str:
        """Say what is wrong with the host's end; ``""`` if it is right, or gone.

        If it is gone, so is the end in the sandbox.
        """
        link = host.links.get(self.name)
        if link is None or link.alias != self.mark:
            return ""
        if not link.up:
            return f"{self.name} is down"
        for gateway, address in self.ends:
            if (link.index, gateway) not in host.addresses:
                return f"{self.name} lacks {gateway}"
            if (link.index, ipaddress.ip_network(address.ip)) not in host.routes:
                return f"the host has no route to {address.ip} by {self.name}"
        return ""

    def mend(self, sockets: Sockets, host: Host) -> None:
        """Plan: give the host's end what it has lost."""
        if not self.problem(host):
            return
        try:
            sockets.route.call(*self._settings(host.links[self.name].index))
        except NetlinkError as exc:
            if any(each.errno != errno.EEXIST for each in (exc, *exc.others)):
                raise

    def unplug(self, sockets: Sockets) -> None:
        """Plan: take the line down; the reaper deletes it. No error if it is gone.

        The host's routes and its IPv6 addresses go with it at once. Its name and its
        mark are free for another one.
        """
        self.firewall.update(sockets, remove=rules(self.name))
        route = sockets.route
        try:
            link = parse_link(route.call(get_link(name=self.name))[0])
            route.call(
                set_link(link.index, up=False, alias="", group=REAP_GROUP),
                set_link(link.index, rename=f"cnm{link.index}"),
            )
        except NetlinkError as exc:
            if exc.errno != errno.ENODEV:
                raise


def rules(name: str) -> tuple[Element, ...]:
    """Return what the firewall has to know of a line: it lets everything through."""
    return NetworkRules(
        interface=name,
        mode4="nat-unprotected",
        mode6="nat-unprotected",
        masquerade=False,
    ).elements()


def open_network(sockets: Sockets, firewall: Firewall, network: NetworkInfo) -> None:
    """Plan: have the host forward packets of the network's families."""
    for version in sorted({subnet.version for subnet in network.subnets}):
        open_forwarding(sockets, firewall, version)


def look(sockets: Sockets) -> Host:
    """Plan: find out what the host has."""
    route = sockets.route
    links = map(parse_link, route.dump(dump_links()))
    addresses = map(parse_address, route.dump(dump_addresses()))
    routes = [parse_route(it) for n in (4, 6) for it in route.dump(dump_routes(n))]
    return Host(
        {link.name: link for link in links},
        frozenset((it.index, it.interface.ip) for it in addresses),
        frozenset((it.index, it.destination) for it in routes),
    )


def take_up(
    sockets: Sockets, firewall: Firewall, mark: str, lines: Sequence[Line]
) -> None:
    """Plan: tell the firewall of the lines that a controller has left behind.

    :param lines: those that are in use; they are given what they have lost
    """
    host = look(sockets)
    for link in host.links.values():
        if link.name.startswith(PREFIX) and link.alias.startswith(f"{mark}:"):
            firewall.update(sockets, add=rules(link.name))
    for line in lines:
        line.mend(sockets, host)
