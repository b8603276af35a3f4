"""The bridge driver: networks are Linux bridges, endpoints are veth pairs."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import cast

from cnm.driver import (
    JSON,
    Capability,
    Difference,
    DriverLoaded,
    EndpointCreated,
    EndpointDeleted,
    EndpointInfo,
    EndpointInspected,
    EndpointJoined,
    EndpointLeft,
    EndpointPublished,
    EndpointState,
    EndpointUnpublished,
    InvalidError,
    JoinInfo,
    LeaveInfo,
    NetworkChecked,
    NetworkCreated,
    NetworkDeleted,
    NetworkDriver,
    NetworkInfo,
    NetworkRequested,
    NetworkRestored,
    NetworkState,
    NoOptions,
    PortBinding,
    PublishInfo,
    Requirements,
    hookimpl,
    parse_options,
)
from cnm.firewall import NetworkRules
from cnm.linux import choose_mac
from cnm.ports import Publication

from . import bridge, upkeep
from .bridge import Bridge
from .conflicts import Taken
from .fresh import Fresh
from .options import ANNOUNCEMENTS, BridgeOptions, bridge_options, gateway
from .port import Port, host_interface

__all__ = ["BridgeDriver"]


class BridgeDriver(NetworkDriver):
    """Handles the events of networks with ``driver="bridge"``."""

    network_options = BridgeOptions

    def __init__(self) -> None:
        self._options: dict[str, BridgeOptions] = {}
        self._taken = Taken()
        self._fresh = Fresh()

    @hookimpl
    async def cnm_driver_loaded(self, event: DriverLoaded) -> Capability:
        """Keep what works on the controller's host."""
        self._kernel = event.kernel
        self._firewall = event.firewall
        self._ports = event.ports
        self._direct = event.allow_direct_routing
        self._mark = f"cnm:{event.controller}"
        return Capability(planned=True)

    @hookimpl
    async def cnm_network_requested(self, event: NetworkRequested) -> Requirements:
        """Check the options; say which families need a gateway."""
        network = event.network
        options = bridge_options(network)
        isolated4 = options.gateway_mode_ipv4 == "isolated"
        inhibited = options.inhibit_ipv4 and network.internal
        present = None
        if options.name:
            present = await self._kernel.run(bridge.foreign, options.name)
        return Requirements(
            gateway4=not (isolated4 or inhibited),
            gateway6=options.gateway_mode_ipv6 != "isolated",
            state={} if present is None else {"present": [*present]},
        )

    @hookimpl
    async def cnm_network_created(self, event: NetworkCreated) -> NetworkState:
        """Make the bridge."""
        network = event.network
        options = bridge_options(network)
        self._taken.add(network, options.bridge(network))
        try:
            built = await self._kernel.run(
                bridge.build,
                self._firewall,
                network,
                self._rules(network, options),
                options,
                f"{self._mark}:{network.id}",
            )
        except BaseException:
            self._taken.remove(network, options.bridge(network))
            raise
        self._options[network.id] = options
        if built.made:
            self._fresh.begin(network.id)
        return _state(built, options)

    @hookimpl
    async def cnm_network_deleted(self, event: NetworkDeleted) -> None:
        """Remove the bridge, unless it was there before."""
        network = event.network
        options = bridge_options(network)
        if "bridge" in network.driver_state:
            known = self._bridge(network)
        else:
            known = await self._kernel.run(
                bridge.unfinished,
                network,
                options,
                cast("list[str] | None", network.driver_state.get("present")),
                f"{self._mark}:{network.id}",
            )
        await self._kernel.run(
            bridge.remove, self._firewall, known, self._rules(network, options)
        )
        self._ports.forget_bridge(known.index)
        self._options.pop(network.id, None)
        self._fresh.end(network.id)
        self._taken.remove(network, options.bridge(network))

    @hookimpl
    async def cnm_network_restored(self, event: NetworkRestored) -> NetworkState:
        """Take the bridge up again."""
        network = event.network
        options = bridge_options(network)
        self._options[network.id] = options
        known = await self._kernel.run(
            upkeep.take_up,
            self._firewall,
            network,
            self._rules(network, options),
            options,
            self._bridge(network),
            {endpoint.id: self._port(endpoint) for endpoint in event.endpoints},
        )
        self._ports.forget_bridge(known.index)
        self._taken.add(network, options.bridge(network))
        return _state(known, options)

    @hookimpl
    async def cnm_network_checked(
        self, event: NetworkChecked
    ) -> tuple[Difference, ...]:
        """Look at the bridge and its ports."""
        network = event.network
        return await self._kernel.run(
            upkeep.check,
            network,
            bridge_options(network),
            self._bridge(network),
            {endpoint.id: self._port(endpoint) for endpoint in event.endpoints},
            event.endpoints,
        )

    @hookimpl
    async def cnm_endpoint_created(self, event: EndpointCreated) -> EndpointState:
        """Check the options and the ports; choose a MAC address."""
        endpoint = event.endpoint
        parse_options(NoOptions, endpoint.options)
        if endpoint.port_requests:
            problems = self._ports.problems(self._publication(endpoint))
            if problems:
                raise InvalidError(*problems)
        self._fresh.enter(endpoint)
        mac = endpoint.mac or choose_mac()
        return EndpointState(mac=mac)

    @hookimpl
    async def cnm_endpoint_deleted(self, event: EndpointDeleted) -> None:
        """Let go of ports that a failed removal has left published."""
        self._fresh.take(event.endpoint.id)
        await self._ports.unpublish(event.endpoint.id)

    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> JoinInfo:
        """Say how the veth pair is made."""
        endpoint = event.endpoint
        network = endpoint.network
        options = self._options[network.id]
        # Whoever is asking for a new address hears of it. Nobody has to unlearn it.
        usual = 1 if self._fresh.take(endpoint.id) else ANNOUNCEMENTS
        times = options.advertise_addr_nmsgs
        return JoinInfo(
            plan=self._port(endpoint).plug,
            gateway=gateway(network, options, 4),
            gateway6=gateway(network, options, 6),
            announce=options.bridge(network),
            announcements=usual if times is None else times,
            announce_interval=options.advertise_addr_ms / 1000,
        )

    @hookimpl
    async def cnm_endpoint_left(self, event: EndpointLeft) -> LeaveInfo:
        """Say how the veth pair is removed."""
        port = self._port(event.endpoint)
        return LeaveInfo(plan=port.unplug, forget=port.addresses)

    @hookimpl
    async def cnm_endpoint_published(
        self, event: EndpointPublished
    ) -> tuple[PortBinding, ...] | PublishInfo:
        """Publish exactly the requested ports."""
        return await self._ports.publishing(self._publication(event.endpoint, event))

    @hookimpl
    async def cnm_endpoint_unpublished(
        self, event: EndpointUnpublished
    ) -> PublishInfo | None:
        """Publish nothing by way of the endpoint any more."""
        return await self._ports.unpublishing(event.endpoint.id)

    @hookimpl
    async def cnm_endpoint_inspected(
        self, event: EndpointInspected
    ) -> Mapping[str, JSON]:
        """Tell the name of the bridge's port."""
        return {
            "mac": event.endpoint.mac,
            "bridge": self._bridge(event.endpoint.network).name,
            "host_interface": host_interface(event.endpoint),
        }

    def _bridge(self, network: NetworkInfo) -> Bridge:
        state = network.driver_state
        added = cast("list[str]", state["added"])
        return Bridge(
            name=cast("str", state["bridge"]),
            mark=f"{self._mark}:{network.id}",
            index=cast("int", state["index"]),
            made=cast("bool", state["made"]),
            added=tuple(map(ipaddress.ip_interface, added)),
        )

    def _rules(self, network: NetworkInfo, options: BridgeOptions) -> NetworkRules:
        return bridge.rules(network, options, direct=self._direct)

    def _publication(
        self, endpoint: EndpointInfo, event: EndpointPublished | None = None
    ) -> Publication:
        """Return what an event asks for, or what all default routes would allow."""
        network = endpoint.network
        options = self._options[network.id]
        index = cast("int", network.driver_state["index"])
        return Publication(
            endpoint=endpoint,
            requests=event.requests if event else endpoint.port_requests,
            mode4=options.gateway_mode_ipv4 if network.ipv4 else None,
            mode6=options.gateway_mode_ipv6 if network.ipv6 else None,
            gateway4=event.gateway4 if event else True,
            gateway6=event.gateway6 if event else True,
            binding4=options.host_binding_ipv4,
            binding6=options.host_binding_ipv6,
            direct=self._direct or bool(options.trusted_host_interfaces),
            bridge=index,
            elsewhere6=event.elsewhere6 if event else False,
        )

    def _port(self, endpoint: EndpointInfo) -> Port:
        network = endpoint.network
        options = self._options[network.id]
        own = (endpoint.address, endpoint.address6)
        return Port(
            name=host_interface(endpoint),
            mark=f"{self._mark}:{endpoint.id}",
            bridge=cast("int", network.driver_state["index"]),
            mac=endpoint.mac,
            mtu=options.mtu,
            isolated=not options.enable_icc,
            addresses=tuple(address.ip for address in own if address),
        )


def _state(built: Bridge, options: BridgeOptions) -> NetworkState:
    return NetworkState(
        interface_prefix=options.container_iface_prefix,
        links=(built.index,),
        state={
            "bridge": built.name,
            "index": built.index,
            "made": built.made,
            "added": [str(address) for address in built.added],
        },
    )
