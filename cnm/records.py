"""Networks, endpoints and sandboxes as records of a store."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from types import MappingProxyType
from typing import Any, cast

from .requests import SandboxRequest, specs
from .types import (
    JSON,
    EndpointInfo,
    IPAddress,
    IPAMData,
    IPInterface,
    IPNetwork,
    NetworkInfo,
    NetworkState,
    PortBinding,
    Proto,
    SandboxInfo,
    ServiceRecord,
    address_text,
)

NETWORK = "network/"
ENDPOINT = "endpoint/"
SANDBOX = "sandbox/"
CONTROLLER = "controller/"

#: Most mappings are empty: thousands of them would be looked at as possible garbage.
_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class Attachment:
    """How an endpoint is joined to a sandbox.

    :ivar order: position of the joining among those of the controller
    """

    sandbox: str
    interface: str
    index: int
    order: int
    gateway: IPAddress | None = None
    gateway6: IPAddress | None = None
    connected4: bool = False
    connected6: bool = False

    @classmethod
    def without_interface(cls, sandbox: str, order: int) -> Attachment:
        """Return that of an endpoint which leaves its sandbox as it is."""
        return cls(sandbox=sandbox, interface="", index=0, order=order)


def frozen(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a mapping that cannot be changed."""
    return MappingProxyType(dict(values)) if values else _EMPTY


@lru_cache(4096)  # the endpoints of a network have one gateway
def _ip_address(text: str) -> IPAddress:
    if "%" in text:
        return ipaddress.ip_address(text)
    return IPv6Address(_number(text)) if ":" in text else IPv4Address(_number(text))


def _number(address: str) -> int:
    """Return an address as a number, in a third of the time that ipaddress takes."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return int.from_bytes(socket.inet_pton(family, address), "big")


def _interface(text: str) -> IPInterface:
    if "%" in text:
        return ipaddress.ip_interface(text)
    address, _, length = text.partition("/")
    kind = IPv6Interface if ":" in address else IPv4Interface
    return kind((_number(address), int(length)))


def _address(value: Any) -> IPAddress | None:
    return _ip_address(value) if value else None


def _string(value: IPAddress | IPInterface | IPNetwork | None) -> str | None:
    if value is None:
        return None
    if isinstance(value, IPv4Network | IPv6Network):
        return str(value)
    return address_text(value)


def network_record(info: NetworkInfo, state: NetworkState) -> dict[str, JSON]:
    """Return the record of a network."""
    return {
        "id": info.id,
        "name": info.name,
        "driver": info.driver,
        "created": info.created.isoformat(),
        "ipv4": info.ipv4,
        "ipv6": info.ipv6,
        "internal": info.internal,
        "attachable": info.attachable,
        "config_only": info.config_only,
        "config_from": info.config_from,
        "ipam": info.ipam,
        "ipam_options": dict(info.ipam_options),
        "ipam_data": [
            {
                "pool_id": data.pool_id,
                "subnet": str(data.subnet),
                "ip_range": _string(data.ip_range),
                "gateway": _string(data.gateway),
                "aux_addresses": {k: str(a) for k, a in data.aux_addresses.items()},
            }
            for data in info.ipam_data
        ],
        "labels": dict(info.labels),
        "options": dict(info.options),
        "services": [asdict(record) for record in info.services],
        "driver_state": dict(info.driver_state),
        "prefix": state.interface_prefix,
        "links": list(state.links),
        # few have any, and those of former versions had none
        **({"parents": list(state.parents)} if state.parents else {}),
    }


def network_info(record: Mapping[str, JSON]) -> NetworkInfo:
    """Return the network of a record."""
    value = cast("dict[str, Any]", record)
    return NetworkInfo(
        id=value["id"],
        name=value["name"],
        driver=value["driver"],
        created=datetime.fromisoformat(value["created"]),
        ipv4=value["ipv4"],
        ipv6=value["ipv6"],
        internal=value["internal"],
        attachable=value["attachable"],
        config_only=value["config_only"],
        config_from=value["config_from"],
        ipam=value["ipam"],
        ipam_options=frozen(value["ipam_options"]),
        ipam_data=tuple(_ipam_data(data) for data in value["ipam_data"]),
        labels=frozen(value["labels"]),
        options=frozen(value["options"]),
        services=tuple(map(_service, value["services"])),
        driver_state=frozen(value["driver_state"]),
    )


def network_state(record: Mapping[str, JSON]) -> NetworkState:
    """Return what the driver wanted remembered about the network of a record."""
    value = cast("dict[str, Any]", record)
    return NetworkState(
        interface_prefix=value["prefix"],
        links=tuple(value["links"]),
        parents=tuple(value.get("parents", ())),
        state=frozen(value["driver_state"]),
    )


def _service(value: dict[str, Any]) -> ServiceRecord:
    return ServiceRecord(**{**value, "texts": tuple(value["texts"])})


def _ipam_data(value: dict[str, Any]) -> IPAMData:
    aux = value["aux_addresses"].items()
    return IPAMData(
        pool_id=value["pool_id"],
        subnet=ipaddress.ip_network(value["subnet"]),
        ip_range=ipaddress.ip_network(value["ip_range"]) if value["ip_range"] else None,
        gateway=_address(value["gateway"]),
        aux_addresses=frozen({key: ipaddress.ip_address(a) for key, a in aux}),
    )


def endpoint_record(
    info: EndpointInfo, attachment: Attachment | None
) -> dict[str, JSON]:
    """Return the record of an endpoint."""
    return {
        "id": info.id,
        "name": info.name,
        "network": info.network.id,
        "created": info.created.isoformat(),
        "address": _string(info.address),
        "address6": _string(info.address6),
        "mac": info.mac,
        "configured_mac": info.configured_mac,
        "link_local": [str(address) for address in info.link_local],
        "aliases": list(info.aliases),
        "links": dict(info.links),
        "port_requests": [str(request) for request in info.port_requests],
        "ports": [str(binding) for binding in info.ports],
        "exposed": [str(port) for port in info.exposed],
        "labels": dict(info.labels),
        "options": dict(info.options),
        "gateway_priority": info.gateway_priority,
        "interface_name": info.interface_name,
        "sysctls": dict(info.sysctls),
        "driver_state": dict(info.driver_state),
        "attachment": _attachment_record(attachment),
    }


def joined_record(
    record: Mapping[str, JSON], info: EndpointInfo, attachment: Attachment
) -> dict[str, JSON]:
    """Return the record of an endpoint that has joined since its record was made."""
    return {
        **record,
        "ports": [str(binding) for binding in info.ports],
        "attachment": _attachment_record(attachment),
    }


def _attachment_record(attachment: Attachment | None) -> dict[str, JSON] | None:
    if attachment is None:
        return None
    return {
        "sandbox": attachment.sandbox,
        "interface": attachment.interface,
        "index": attachment.index,
        "order": attachment.order,
        "gateway": _string(attachment.gateway),
        "gateway6": _string(attachment.gateway6),
        "connected4": attachment.connected4,
        "connected6": attachment.connected6,
    }


def _binding(text: str) -> PortBinding:
    """Return the binding that says ``text`` of itself. There may be thousands."""
    host, arrow, target = text.rpartition("->")
    target, _, proto = target.rpartition("/")
    container_address, container_port = _place(target)
    host_address, host_port = _place(host) if arrow else (None, 0)
    if host_address is None:
        anywhere = "0.0.0.0" if container_address.version == 4 else "::"
        host_address = _ip_address(anywhere)
    return PortBinding(
        container_port=container_port,
        proto=cast("Proto", proto),
        host_port=host_port,
        host_address=host_address,
        container_address=container_address,
    )


def _place(text: str) -> tuple[IPAddress, int]:
    address, _, port = text.rpartition(":")
    return _ip_address(address.strip("[]")), int(port)


def endpoint_info(record: Mapping[str, JSON], network: NetworkInfo) -> EndpointInfo:
    """Return the endpoint of a record."""
    value = cast("dict[str, Any]", record)
    address, address6 = value["address"], value["address6"]
    return EndpointInfo(
        id=value["id"],
        name=value["name"],
        network=network,
        created=datetime.fromisoformat(value["created"]),
        address=cast("IPv4Interface", _interface(address)) if address else None,
        address6=cast("IPv6Interface", _interface(address6)) if address6 else None,
        mac=value["mac"],
        configured_mac=value["configured_mac"],
        link_local=tuple(map(_interface, value["link_local"])),
        aliases=tuple(value["aliases"]),
        links=frozen(value["links"]),
        port_requests=tuple(
            request
            for spec in value["port_requests"]
            for request in specs.parse_ports(spec)
        ),
        ports=tuple(_binding(binding) for binding in value["ports"]),
        exposed=tuple(
            port for spec in value["exposed"] for port in specs.parse_exposed(spec)
        ),
        labels=frozen(value["labels"]),
        options=frozen(value["options"]),
        gateway_priority=value["gateway_priority"],
        interface_name=value["interface_name"],
        sysctls=frozen(value["sysctls"]),
        driver_state=frozen(value["driver_state"]),
    )


def joined_to(record: Mapping[str, JSON]) -> str:
    """Return the id of the sandbox that an endpoint is joined to, or ``""``."""
    attachment = cast("dict[str, Any] | None", record["attachment"])
    return attachment["sandbox"] if attachment else ""


def attachment_of(record: Mapping[str, JSON]) -> Attachment | None:
    """Return how the endpoint of a record is joined, or None."""
    value = cast("dict[str, Any] | None", record["attachment"])
    if value is None:
        return None
    return Attachment(
        sandbox=value["sandbox"],
        interface=value["interface"],
        index=value["index"],
        order=value["order"],
        gateway=_address(value["gateway"]),
        gateway6=_address(value["gateway6"]),
        connected4=value["connected4"],
        connected6=value["connected6"],
    )


def sandbox_record(
    info: SandboxInfo, request: SandboxRequest, since: int
) -> dict[str, JSON]:
    """Return the record of a sandbox.

    :param since: when the process started that it is bound to, or 0
    """
    return {
        "id": info.id,
        "name": info.name,
        "key": info.key,
        "created": info.created.isoformat(),
        "hostname": info.hostname,
        "domainname": info.domainname,
        "labels": dict(info.labels),
        "dns": [str(server) for server in request.dns],
        "dns_search": list(request.dns_search),
        "dns_options": list(request.dns_options),
        "extra_hosts": dict(request.extra_hosts),
        "netns": request.netns,
        "bound_to": request.bound_to,
        "bound_since": since,
    }


def sandbox_info(record: Mapping[str, JSON]) -> tuple[SandboxInfo, SandboxRequest]:
    """Return the sandbox of a record, and how it was asked for."""
    value = cast("dict[str, Any]", record)
    labels = frozen(value["labels"])
    info = SandboxInfo(
        id=value["id"],
        name=value["name"],
        key=value["key"],
        created=datetime.fromisoformat(value["created"]),
        hostname=value["hostname"],
        domainname=value["domainname"],
        bound_to=value["bound_to"],
        labels=labels,
    )
    request = SandboxRequest(
        name=info.name,
        hostname=info.hostname,
        domainname=info.domainname,
        dns=tuple(map(ipaddress.ip_address, value["dns"])),
        dns_search=tuple(value["dns_search"]),
        dns_options=tuple(value["dns_options"]),
        extra_hosts=frozen(value["extra_hosts"]),
        netns=value["netns"],
        bound_to=info.bound_to,
        labels=labels,
    )
    return info, request
