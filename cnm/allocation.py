"""Getting subnets and addresses from IPAM drivers, and giving them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import cast

from .errors import DriverError, InvalidError, NoAvailableAddress
from .events import (
    AddressReleased,
    AddressRequested,
    PoolInspected,
    PoolReleased,
    PoolRequested,
)
from .plugins import Driver
from .requests import EndpointRequest, NetworkRequest
from .rollback import Rollback
from .types import (
    Address,
    AddressPool,
    EndpointInfo,
    IPAddress,
    IPAMData,
    IPInterface,
    IPNetwork,
    NetworkInfo,
    Pool,
    PoolStatus,
    Requirements,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What a subnet is chosen from, and what it must stay clear of."""

    address_pools: tuple[AddressPool, ...]
    exclude: tuple[IPNetwork, ...]


def aux_owner(network_id: str, name: str) -> str:
    """Return the owner of an auxiliary address."""
    return f"{network_id}/{name}"


async def request_network(
    ipam: Driver,
    network_id: str,
    request: NetworkRequest,
    needs: Requirements,
    around: Surroundings,
    rollback: Rollback,
) -> tuple[IPAMData, ...]:
    """Get all subnets of a network, with their gateways and auxiliary addresses.

    :param rollback: is told how to give back each of them
    """
    data = []
    for subnet in request.subnets:
        pool = await ipam.demand(
            PoolRequested(
                network_id=network_id,
                version=subnet.version,
                subnet=subnet.subnet,
                ip_range=subnet.ip_range,
                options=request.ipam_options,
                address_pools=around.address_pools,
                exclude=tuple(
                    net for net in around.exclude if net.version == subnet.version
                ),
            ),
            Pool,
        )
        # releasing a pool releases the addresses in it
        rollback.push(ipam.handle, PoolReleased(network_id=network_id, pool_id=pool.id))
        _check_family(ipam, "pool.requested", pool.subnet, subnet.version)
        # what was asked for comes before what is chosen
        gateway = subnet.gateway
        if gateway is not None:
            await _request_gateway(ipam, network_id, pool, gateway)
        for name, address in subnet.aux_addresses.items():
            owner = aux_owner(network_id, name)
            found = await _request(ipam, pool.id, owner, address)
            _check_address(ipam, found, pool.subnet, address)
        if gateway is None:
            wanted = needs.gateway4 if subnet.version == 4 else needs.gateway6
            gateway = pool.gateway
            if gateway is not None and gateway not in pool.subnet:
                reason = f"returned gateway {gateway}, which is not in {pool.subnet}"
                raise DriverError(ipam.name, "pool.requested", reason)
            if gateway is None and wanted:
                gateway = await _request_gateway(ipam, network_id, pool, None)
        data.append(
            IPAMData(
                pool_id=pool.id,
                subnet=pool.subnet,
                ip_range=pool.ip_range,
                gateway=gateway,
                aux_addresses=subnet.aux_addresses,
            )
        )
    return tuple(data)


def chosen(request: NetworkRequest, data: tuple[IPAMData, ...]) -> tuple[IPAMData, ...]:
    """Return those of a network's subnets that nobody has asked for.

    :param data: its subnets, in the order of the request
    """
    pairs = zip(request.subnets, data, strict=False)
    return tuple(
        found
        for asked, found in pairs
        # a driver without addresses gives all there are
        if found.subnet.prefixlen and found.subnet != asked.subnet
    )


def _check_family(
    ipam: Driver, event: str, found: IPNetwork | IPInterface, version: int
) -> None:
    if found.version != version:
        raise DriverError(
            ipam.name, event, f"returned {found}, which is not IPv{version}"
        )


def _check_address(
    ipam: Driver,
    found: IPInterface | None,
    subnet: IPNetwork,
    asked: IPAddress | None,
) -> None:
    """Check that an address that a driver gives is one that can be used.

    :param asked: the address that was asked for, or None for any
    """
    if found is None:
        return
    event = "address.requested"
    _check_family(ipam, event, found, subnet.version)
    if found.ip not in subnet:
        reason = f"returned {found}, which is not in {subnet}"
        raise DriverError(ipam.name, event, reason)
    if asked is not None and found.ip != asked:
        reason = f"returned {found}, and was asked for {asked}"
        raise DriverError(ipam.name, event, reason)


async def _request_gateway(
    ipam: Driver, network_id: str, pool: Pool, address: IPAddress | None
) -> IPAddress | None:
    event = AddressRequested(
        pool_id=pool.id, owner=network_id, address=address, gateway=True
    )
    found = (await ipam.demand(event, Address)).interface
    _check_address(ipam, found, pool.subnet, address)
    return None if found is None else found.ip


async def _request(
    ipam: Driver, pool_id: str, owner: str, address: IPAddress | None, mac: str = ""
) -> IPInterface | None:
    event = AddressRequested(pool_id=pool_id, owner=owner, address=address, mac=mac)
    return (await ipam.demand(event, Address)).interface


async def release_network(ipam: Driver, network: NetworkInfo) -> None:
    """Give back all subnets of a network."""
    for data in network.ipam_data:
        await ipam.handle(PoolReleased(network_id=network.id, pool_id=data.pool_id))


async def restore_network(ipam: Driver, network: NetworkInfo) -> None:
    """Reserve again what a network has, after a restart.

    :raises CNMError: if the driver gives something else than before
    """
    for data in network.ipam_data:
        event = PoolRequested(
            network_id=network.id,
            version=data.subnet.version,
            subnet=data.subnet,
            ip_range=data.ip_range,
            options=network.ipam_options,
        )
        if not data.subnet.prefixlen:  # a driver without addresses is not told any
            event = PoolRequested(
                network_id=network.id,
                version=data.subnet.version,
                options=network.ipam_options,
            )
        pool = await ipam.demand(event, Pool)
        if pool.id != data.pool_id:
            raise InvalidError(
                f"IPAM driver {ipam.name!r} gave pool {pool.id!r} for {data.pool_id!r}"
            )
        if data.gateway is not None and pool.gateway is None:
            await ipam.demand(
                AddressRequested(
                    pool_id=pool.id,
                    owner=network.id,
                    address=data.gateway,
                    gateway=True,
                ),
                Address,
            )
        for name, address in data.aux_addresses.items():
            await _request(ipam, pool.id, aux_owner(network.id, name), address)


def _pools(network: NetworkInfo, version: int) -> Sequence[IPAMData]:
    return [data for data in network.ipam_data if data.subnet.version == version]


async def request_address(
    ipam: Driver,
    network: NetworkInfo,
    version: int,
    owner: str,
    address: IPAddress | None,
    rollback: Rollback,
    mac: str = "",
) -> IPInterface | None:
    """Get an address of a family for an endpoint.

    :param address: the address that was asked for, or None for any
    :return: the address, or None if the network has none of the family
    :raises InvalidError: if the address is in no subnet of the network
    :raises NoAvailableAddress: if all subnets are full
    """
    pools = _pools(network, version)
    if address is not None:
        pools = [data for data in pools if address in data.subnet]
        if not pools:
            subnets = ", ".join(str(d.subnet) for d in network.ipam_data) or "none"
            raise InvalidError(
                f"invalid address {address}: it does not belong to any of this "
                f"network's subnets ({subnets})"
            )
    for data in pools:
        try:
            found = await _request(ipam, data.pool_id, owner, address, mac)
        except NoAvailableAddress:
            continue
        if found is not None:
            released = AddressReleased(
                pool_id=data.pool_id, owner=owner, address=found.ip
            )
            rollback.push(ipam.handle, released)
            _check_address(ipam, found, data.subnet, address)
        return found
    if pools:
        raise NoAvailableAddress(
            f"no available IPv{version} addresses on this network's address pools: "
            f"{network.name} ({network.id[:12]})"
        )
    return None


async def request_addresses(
    ipam: Driver,
    network: NetworkInfo,
    owner: str,
    request: EndpointRequest,
    rollback: Rollback,
) -> tuple[IPv4Interface | None, IPv6Interface | None]:
    """Get an address of each family for an endpoint, as :func:`request_address`."""
    found: list[IPInterface | None] = []
    for version, wanted in ((4, request.address), (6, request.address6)):
        if version == 6 and request.refuses_ipv6:
            found.append(None)
            continue
        found.append(
            await request_address(
                ipam, network, version, owner, wanted, rollback, request.mac
            )
        )
    return cast("tuple[IPv4Interface | None, IPv6Interface | None]", tuple(found))


async def restore_addresses(ipam: Driver, endpoint: EndpointInfo) -> None:
    """Reserve again what an endpoint has, after a restart.

    :raises CNMError: if that is not possible
    """
    for interface in (endpoint.address, endpoint.address6):
        for data in endpoint.network.ipam_data if interface else ():
            if interface is not None and interface.ip in data.subnet:
                await _request(ipam, data.pool_id, endpoint.id, interface.ip)


async def release_addresses(
    ipam: Driver,
    network: NetworkInfo,
    owner: str,
    addresses: Sequence[IPInterface | None],
) -> None:
    """Give back an endpoint's addresses."""
    for interface in addresses:
        if interface is None:
            continue
        for data in _pools(network, interface.version):
            if interface.ip in data.subnet:
                await ipam.handle(
                    AddressReleased(
                        pool_id=data.pool_id, owner=owner, address=interface.ip
                    )
                )


async def status(ipam: Driver, network: NetworkInfo) -> Mapping[IPNetwork, PoolStatus]:
    """Return how full each subnet of a network is, if the driver tells."""
    answers = {
        data.subnet: await ipam.handle(PoolInspected(pool_id=data.pool_id))
        for data in network.ipam_data
    }
    return {subnet: answer for subnet, answer in answers.items() if answer}
