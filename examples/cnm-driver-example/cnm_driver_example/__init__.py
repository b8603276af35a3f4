"""Networks with a line of its own to the host for each endpoint."""

from __future__ import annotations

import errno
import ipaddress
from dataclasses import dataclass
from functools import partial

from cnm.driver import (
    DriverLoaded,
    EndpointCreated,
    EndpointInfo,
    EndpointJoined,
    EndpointLeft,
    EndpointState,
    IPAddress,
    IPInterface,
    JoinInfo,
    LeaveInfo,
    NetlinkError,
    NetworkDriver,
    NetworkRequested,
    NoOptions,
    Requirements,
    hookimpl,
    option,
    parse_options,
)
from cnm.linux import (
    Placement,
    Sockets,
    add_address,
    add_route,
    add_veth,
    choose_index,
    choose_mac,
    delete_link,
    set_link,
)
from cnm.options import integer

__all__ = ["ExampleDriver"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What can be asked for of a network."""

    mtu: int = option(0, integer(1280, 65535), help="MTU in bytes of both ends")


class ExampleDriver(NetworkDriver):
    """Handles the events of networks with ``driver="example"``."""

    network_options = Options

    @hookimpl
    async def cnm_driver_loaded(self, event: DriverLoaded) -> None:
        """Keep what tells our links from others."""
        self._mark = f"cnm:{event.controller}"

    @hookimpl
    async def cnm_network_requested(self, event: NetworkRequested) -> Requirements:
        """Refuse options that are wrong."""
        parse_options(Options, event.network.options)
        return Requirements(gateway4=True, gateway6=True)

    @hookimpl
    async def cnm_endpoint_created(self, event: EndpointCreated) -> EndpointState:
        """Choose a MAC address."""
        parse_options(NoOptions, event.endpoint.options)
        mac = event.endpoint.mac or choose_mac()
        return EndpointState(mac=mac)

    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> JoinInfo:
        """Say how the line is made, and where it leads to."""
        gateways = {it.version: it for it, _ in _ends(event.endpoint)}
        return JoinInfo(
            plan=partial(self._plug, event.endpoint),
            gateway=gateways.get(4),
            gateway6=gateways.get(6),
        )

    @hookimpl
    async def cnm_endpoint_left(self, event: EndpointLeft) -> LeaveInfo:
        """Say how the line is removed."""
        return LeaveInfo(plan=partial(_unplug, event.endpoint))

    def _plug(self, endpoint: EndpointInfo, placement: Placement) -> tuple[int]:
        """Plan: make the line, in one batch of requests; return the host's end."""
        index = choose_index()
        mtu = parse_options(Options, endpoint.network.options).mtu
        requests = [
            add_veth(
                _name(endpoint),
                placement.interface,
                index=index,
                peer_index=placement.index,
                peer_netns=placement.netns,
                peer_mac=endpoint.mac,
                mtu=mtu,
                up=False,
            ),
            # by this alias, the core knows whose it is if the process dies
            set_link(index, alias=f"{self._mark}:{endpoint.id}", up=True),
        ]
        for gateway, address in _ends(endpoint):
            requests.append(add_address(index, ipaddress.ip_interface(gateway)))
            requests.append(add_route(ipaddress.ip_network(address.ip), index=index))
        try:
            placement.sockets.route.call(*requests)
        except NetlinkError:
            _unplug(endpoint, placement.sockets)
            raise
        return (index,)


def _unplug(endpoint: EndpointInfo, sockets: Sockets) -> None:
    """Plan: remove the line. No error if it is gone."""
    try:
        sockets.route.call(delete_link(name=_name(endpoint)))
    except NetlinkError as exc:
        if exc.errno != errno.ENODEV:
            raise


def _name(endpoint: EndpointInfo) -> str:
    """Return the name of the host's end; the kernel allows 15 characters."""
    return f"ln{endpoint.id[:12]}"


def _ends(endpoint: EndpointInfo) -> list[tuple[IPAddress, IPInterface]]:
    """Return the gateway and the endpoint's address, of each family."""
    own = (endpoint.address, endpoint.address6)
    return [
        (data.gateway, address)
        for address in own
        if address is not None
        for data in endpoint.network.ipam_data
        if data.gateway is not None and address.ip in data.subnet
    ]
