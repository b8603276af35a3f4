"""The events of IPAM drivers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from ..types import (
    JSON,
    Address,
    AddressPool,
    IPAddress,
    IPNetwork,
    Pool,
    PoolStatus,
)
from .base import DriverEvent


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolRequested(DriverEvent[Pool]):
    """A network needs a subnet.

    :ivar network_id: the network
    :ivar version: 4 or 6
    :ivar subnet: the subnet that was asked for. ``0.0.0.0/24`` and ``::/120`` ask for
        any subnet of that size, None for any subnet
    :ivar ip_range: the part of the subnet from which addresses are to be chosen
    :ivar options: the network's ``ipam_options``
    :ivar address_pools: the blocks that the controller was told to take subnets from
    :ivar exclude: what a chosen subnet must not overlap: routes and name servers of
        the host. It does not concern a subnet that was asked for
    """

    name: ClassVar[str] = "pool.requested"
    network_id: str
    version: int
    subnet: IPNetwork | None = None
    ip_range: IPNetwork | None = None
    options: Mapping[str, JSON] = field(default_factory=dict)
    address_pools: tuple[AddressPool, ...] = ()
    exclude: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolReleased(DriverEvent[None]):
    """A network no longer needs a subnet."""

    name: ClassVar[str] = "pool.released"
    network_id: str
    pool_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AddressRequested(DriverEvent[Address]):
    """An endpoint, or a network for its gateway or for somebody else, needs an address.

    :ivar owner: id of what the address is for; only the owner can release it
    :ivar address: the address that was asked for, or None for any
    :ivar gateway: whether it is for the network's gateway
    :ivar mac: the endpoint's MAC address, if it is known
    """

    name: ClassVar[str] = "address.requested"
    pool_id: str
    owner: str
    address: IPAddress | None = None
    gateway: bool = False
    mac: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AddressReleased(DriverEvent[None]):
    """An address is no longer needed. Releasing it twice is no error."""

    name: ClassVar[str] = "address.released"
    pool_id: str
    owner: str
    address: IPAddress


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolInspected(DriverEvent[PoolStatus | None]):
    """Somebody asked how full a pool is."""

    name: ClassVar[str] = "pool.inspected"
    pool_id: str
