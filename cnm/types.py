"""The values that pass between applications, the core and drivers.

All of them are frozen: a snapshot never changes after it has been handed out.
Addresses are those of the standard library's :mod:`ipaddress`.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from types import MappingProxyType
from typing import Literal, TypeAlias

JSON: TypeAlias = "None | bool | int | float | str | list[JSON] | Mapping[str, JSON]"
IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network
IPInterface: TypeAlias = IPv4Interface | IPv6Interface
#: Transport protocols that have ports.
Proto: TypeAlias = Literal["tcp", "udp", "sctp"]


def _empty() -> MappingProxyType[str, JSON]:
    return MappingProxyType({})


def _no_labels() -> MappingProxyType[str, str]:
    return MappingProxyType({})


def _no_addresses() -> MappingProxyType[str, IPAddress]:
    return MappingProxyType({})


class Scope(StrEnum):
    """How far a driver's networks reach."""

    LOCAL = "local"
    GLOBAL = "global"


@dataclass(frozen=True, kw_only=True, slots=True)
class AddressPool:
    """A block from which networks without a subnet of their own get one.

    :ivar base: the block, e.g. ``172.16.0.0/12``
    :ivar size: prefix length of the subnets it is cut into, e.g. ``24``
    """

    base: IPNetwork
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class IPAMData:
    """One subnet of a network (libnetwork's IPAMData).

    :ivar pool_id: how the IPAM driver calls the pool
    :ivar subnet: the subnet
    :ivar ip_range: the part of it from which addresses are chosen, or None for all
    :ivar gateway: the gateway's address, or None if there is none
    :ivar aux_addresses: addresses that are never given to endpoints, by name
    """

    pool_id: str
    subnet: IPNetwork
    ip_range: IPNetwork | None = None
    gateway: IPAddress | None = None
    aux_addresses: Mapping[str, IPAddress] = field(default_factory=_no_addresses)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceRecord:
    """What a network says of a service: an SRV record (RFC 2782), TXT records, or both.

    :ivar name: the name that is asked for, on its network, such as ``_http._tcp.web``
    :ivar target: name of a sandbox on the network that serves it; ``""`` for no SRV
        record
    :ivar port: the port at which it serves
    :ivar priority: clients take those of the lowest priority first
    :ivar weight: share of the clients among those of the same priority
    :ivar texts: the TXT records, at most 255 bytes each
    """

    name: str
    target: str = ""
    port: int = 0
    priority: int = 0
    weight: int = 0
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkInfo:
    """A snapshot of a network.

    :ivar services: what it says of services
    :ivar driver_state: what the driver returned from ``network.created``
    """

    id: str
    name: str
    driver: str
    created: datetime
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    config_only: bool = False
    config_from: str = ""
    ipam: str = "default"
    ipam_options: Mapping[str, JSON] = field(default_factory=_empty)
    ipam_data: tuple[IPAMData, ...] = ()
    labels: Mapping[str, str] = field(default_factory=_no_labels)
    options: Mapping[str, JSON] = field(default_factory=_empty)
    services: tuple[ServiceRecord, ...] = ()
    driver_state: Mapping[str, JSON] = field(default_factory=_empty)

    @property
    def subnets(self) -> tuple[IPNetwork, ...]:
        """The subnets, IPv4 first."""
        return tuple(data.subnet for data in self.ipam_data)

    @property
    def gateways(self) -> tuple[IPAddress, ...]:
        """The gateways, in the order of their subnets."""
        return tuple(d.gateway for d in self.ipam_data if d.gateway is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxInfo:
    """A snapshot of a sandbox.

    :ivar key: path of its network namespace
    :ivar bound_to: id of the process that it ends with, or 0
    """

    id: str
    name: str
    key: str
    created: datetime
    hostname: str = ""
    domainname: str = ""
    bound_to: int = 0
    labels: Mapping[str, str] = field(default_factory=_no_labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class TransportPort:
    """A port of a transport protocol, as in ``80/tcp``."""

    port: int
    proto: Proto = "tcp"

    def __str__(self) -> str:
        return f"{self.port}/{self.proto}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PortRequest:
    """A port of a sandbox that is to be reachable at addresses of the host.

    :ivar host_port: port of the host, or 0 for any that is free
    :ivar host_port_end: last port of a range of which one is taken, or 0
    :ivar host_address: address of the host, ``0.0.0.0`` and ``::`` standing for all of
        a family; None for what the network, or else the controller, has for a default
    """

    container_port: int
    proto: Proto = "tcp"
    host_port: int = 0
    host_port_end: int = 0
    host_address: IPAddress | None = None

    def __str__(self) -> str:
        host = "" if self.host_address is None else f"{_bracketed(self.host_address)}:"
        ports = str(self.host_port or "")
        if self.host_port_end > self.host_port:
            ports += f"-{self.host_port_end}"
        if host or ports:
            ports += ":"
        return f"{host}{ports}{self.container_port}/{self.proto}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PortBinding:
    """A port of a sandbox that is reachable.

    :ivar host_address: address of the host, ``0.0.0.0`` and ``::`` standing for all of
        the family
    :ivar host_port: port of the host; 0 if the port is not translated, but open under
        the sandbox's own address, as in networks of mode ``routed``
    :ivar container_address: the sandbox's address
    """

    container_port: int
    proto: Proto = "tcp"
    host_port: int
    host_address: IPAddress
    container_address: IPAddress

    def __str__(self) -> str:
        target = f"{_bracketed(self.container_address)}:{self.container_port}"
        if not self.host_port:
            return f"{target}/{self.proto}"
        host = f"{_bracketed(self.host_address)}:{self.host_port}"
        return f"{host}->{target}/{self.proto}"


def _bracketed(address: IPAddress) -> str:
    return f"[{address_text(address)}]" if address.version == 6 else str(address)


def address_text(address: IPAddress | IPInterface) -> str:
    """Return an address as text, as ``str()`` does, in a tenth of the time."""
    if address.version == 4 or address.scope_id is not None:
        return str(address)
    text = socket.inet_ntop(socket.AF_INET6, address.packed)
    if isinstance(address, IPv6Interface):
        return f"{text}/{address.network.prefixlen}"
    return text


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointInfo:
    """A snapshot of an endpoint.

    :ivar address: IPv4 address with the subnet's prefix length, or None
    :ivar address6: IPv6 address with the subnet's prefix length, or None
    :ivar mac: MAC address, ``""`` until the driver has chosen one
    :ivar configured_mac: the MAC address that was asked for, or ``""``
    :ivar aliases: further names of the sandbox on the network
    :ivar links: names on the network by names that only the sandbox itself knows
    :ivar port_requests: the ports that are to be published
    :ivar ports: the ports that are published by way of this endpoint
    :ivar exposed: the ports on which the sandbox is said to serve
    :ivar interface_name: the interface name that was asked for, or ``""``
    :ivar sysctls: ``net.X.Y.IFNAME.Z`` to value
    :ivar driver_state: what the driver returned from ``endpoint.created``
    """

    id: str
    name: str
    network: NetworkInfo
    created: datetime
    address: IPv4Interface | None = None
    address6: IPv6Interface | None = None
    mac: str = ""
    configured_mac: str = ""
    link_local: tuple[IPInterface, ...] = ()
    aliases: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=_no_labels)
    port_requests: tuple[PortRequest, ...] = ()
    ports: tuple[PortBinding, ...] = ()
    exposed: tuple[TransportPort, ...] = ()
    labels: Mapping[str, str] = field(default_factory=_no_labels)
    options: Mapping[str, JSON] = field(default_factory=_empty)
    gateway_priority: int = 0
    interface_name: str = ""
    sysctls: Mapping[str, str] = field(default_factory=_no_labels)
    driver_state: Mapping[str, JSON] = field(default_factory=_empty)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that keeps traffic from flowing.

    :ivar severity: ``"error"`` if it certainly does, ``"warning"`` if it may
    :ivar subject: what it is about, e.g. ``"table ip filter, chain FORWARD"``
    :ivar problem: what is wrong
    :ivar advice: what to do about it
    """

    severity: Literal["error", "warning"]
    subject: str
    problem: str
    advice: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.subject}: {self.problem}. {self.advice}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """A static route of an endpoint.

    :ivar via: the next hop, or None if the destination is on the link
    """

    destination: IPNetwork
    via: IPAddress | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirements:
    """What a driver needs for a network that has been asked for.

    :ivar gateway4: whether the IPv4 subnets need a gateway address
    :ivar gateway6: whether the IPv6 subnets need a gateway address
    :ivar addresses: whether there are addresses at all; if not, no IPAM driver is asked
    :ivar internal: whether the network leads nowhere, even if that was not asked for
    :ivar state: what ``network.created`` finds as the network's ``driver_state``, and
        ``network.deleted`` if the creation is interrupted by the end of the process
    """

    gateway4: bool = True
    gateway6: bool = True
    addresses: bool = True
    internal: bool = False
    state: Mapping[str, JSON] = field(default_factory=_empty)


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkState:
    """What a driver wants remembered about a network; stored, and handed back.

    :ivar interface_prefix: what the names of interfaces in sandboxes begin with
    :ivar links: indexes of the network's links in the controller's namespace, whose
        routes are not taken for somebody else's
    :ivar parents: indexes of others' links there that the network cannot do without. It
        is looked at when one of them is deleted
    """

    interface_prefix: str = "eth"
    links: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    state: Mapping[str, JSON] = field(default_factory=_empty)


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointState:
    """What a driver chose for an endpoint, and what it wants remembered.

    :ivar mac: the MAC address, ``""`` if the interface has none of its own
    """

    mac: str = ""
    state: Mapping[str, JSON] = field(default_factory=_empty)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """A subnet that an IPAM driver has handed out.

    :ivar id: how the driver calls it
    :ivar subnet: the subnet; 0.0.0.0/0 or ::/0 from a driver without addresses
    :ivar ip_range: the part of it from which addresses are chosen, or None
    :ivar gateway: a gateway that the driver dictates, or None
    """

    id: str
    subnet: IPNetwork
    ip_range: IPNetwork | None = None
    gateway: IPAddress | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """An address that an IPAM driver has handed out.

    :ivar interface: the address with its subnet's prefix length, or None from a
        driver without addresses
    """

    interface: IPInterface | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolStatus:
    """How full a pool is.

    :ivar in_use: addresses that are taken, network and broadcast included
    :ivar available: addresses that can still be chosen; within the range, if any
    """

    in_use: int
    available: int
