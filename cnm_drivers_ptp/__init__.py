"""Point-to-point networks: a veth pair and host routes for each endpoint, no bridge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from cnm.driver import (
    JSON,
    Capability,
    ConflictError,
    Difference,
    DriverLoaded,
    EndpointCreated,
    EndpointInfo,
    EndpointInspected,
    EndpointJoined,
    EndpointLeft,
    EndpointState,
    InvalidError,
    JoinInfo,
    LeaveInfo,
    NetworkChecked,
    NetworkCreated,
    NetworkDriver,
    NetworkInfo,
    NetworkRequested,
    NetworkRestored,
    NoOptions,
    Requirements,
    hookimpl,
    option,
    parse_options,
)
from cnm.linux import choose_mac
from cnm.options import integer

from .line import Line, look, name_of, open_network, take_up

__all__ = ["PTPDriver"]

_LINK_LOCAL = (IPv4Network("169.254.0.0/16"), IPv6Network("fe80::/10"))


@dataclass(frozen=True, kw_only=True, slots=True)
class PTPOptions:
    """What can be asked for of a network."""

    #: 1280 bytes is the least that IPv6 works with (RFC 8200, section 5).
    mtu: int = option(
        0,
        integer(1280, 65535),
        label="com.docker.network.driver.mtu",
        help="MTU in bytes of both ends, 0 for the kernel's default",
    )


class PTPDriver(NetworkDriver):
    """Handles the events of networks with ``driver="ptp"``."""

    network_options = PTPOptions

    @hookimpl
    async def cnm_driver_loaded(self, event: DriverLoaded) -> Capability:
        """Keep the controller's kernel and firewall."""
        self._kernel = event.kernel
        self._firewall = event.firewall
        self._mark = f"cnm:{event.controller}"
        return Capability(planned=True)

    @hookimpl
    async def cnm_network_requested(self, event: NetworkRequested) -> Requirements:
        """Refuse what cannot be made; both families need a gateway address."""
        problems = list(_problems(event.network))
        try:
            parse_options(PTPOptions, event.network.options)
        except InvalidError as exc:
            problems += exc.problems
        if problems:
            raise InvalidError(*problems)
        return Requirements(gateway4=True, gateway6=True)

    @hookimpl
    async def cnm_network_created(self, event: NetworkCreated) -> None:
        """Have the host forward packets; there is nothing else to make yet."""
        await self._kernel.run(open_network, self._firewall, event.network)

    @hookimpl
    async def cnm_network_restored(self, event: NetworkRestored) -> None:
        """Tell the firewall of the lines that are still there, and mend them."""
        await self._kernel.run(open_network, self._firewall, event.network)
        lines = [self._line(endpoint) for endpoint in event.endpoints]
        await self._kernel.run(take_up, self._firewall, self._mark, lines)

    @hookimpl
    async def cnm_network_checked(
        self, event: NetworkChecked
    ) -> tuple[Difference, ...]:
        """Look at the host's ends of the lines."""
        host = await self._kernel.run(look)
        return tuple(
            Difference(subject=endpoint, problem=problem)
            for endpoint in event.endpoints
            if (problem := self._line(endpoint).problem(host))
        )

    @hookimpl
    async def cnm_endpoint_created(self, event: EndpointCreated) -> EndpointState:
        """Choose a MAC address."""
        parse_options(NoOptions, event.endpoint.options)
        mac = event.endpoint.mac or choose_mac()
        return EndpointState(mac=mac)

    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> JoinInfo:
        """Say how the line is made, and that all goes to the gateway."""
        network = event.endpoint.network
        for other in event.others:
            if other.network.id == network.id:
                raise ConflictError(
                    f"sandbox {event.sandbox.name!r} has endpoint {other.name!r} of "
                    f"network {network.name!r} already: a point-to-point network has "
                    "one line to each sandbox"
                )
        line = self._line(event.endpoint)
        return JoinInfo(
            plan=line.plug,
            gateway=line.gateway(4),
            gateway6=line.gateway(6),
            routes=line.routes(),
        )

    @hookimpl
    async def cnm_endpoint_left(self, event: EndpointLeft) -> LeaveInfo:
        """Say how the line is removed."""
        return LeaveInfo(plan=self._line(event.endpoint).unplug)

    @hookimpl
    async def cnm_endpoint_inspected(
        self, event: EndpointInspected
    ) -> Mapping[str, JSON]:
        """Tell the name of the host's end."""
        return {"host_interface": name_of(event.endpoint)}

    def _line(self, endpoint: EndpointInfo) -> Line:
        network = endpoint.network
        own = [a for a in (endpoint.address, endpoint.address6) if a is not None]
        return Line(
            name=name_of(endpoint),
            mark=f"{self._mark}:{endpoint.id}",
            mac=endpoint.mac,
            mtu=parse_options(PTPOptions, network.options).mtu,
            ends=tuple(
                (data.gateway, address)
                for data in network.ipam_data
                for address in own
                if data.gateway is not None and address.ip in data.subnet
            ),
            firewall=self._firewall,
        )


def _problems(network: NetworkInfo) -> list[str]:
    """Return what is wrong with a network that has been asked for."""
    problems = []
    if network.ipam == "null":
        problems.append("ipam: endpoints need addresses, and 'null' has none")
    if network.internal:
        problems.append("internal: the host routes point-to-point networks, always")
    problems += [
        f"subnets: {subnet} is too small: expected at most /{subnet.max_prefixlen - 2}"
        for subnet in network.subnets
        if subnet.prefixlen > subnet.max_prefixlen - 2
    ]
    problems += [
        f"subnets: {subnet} has link-local addresses, which cannot be routed"
        for subnet in network.subnets
        for reserved in _LINK_LOCAL
        if subnet.version == reserved.version and subnet.overlaps(reserved)
    ]
    return problems
