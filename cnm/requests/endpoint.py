"""An endpoint that is asked for: checked, and normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .. import validation as check
from ..types import JSON, IPAddress, IPInterface, PortRequest, TransportPort
from ..validation import Faults
from . import specs
from .ports import all_exposed, flat, parse_requests

#: A gateway's priority is a number of 64 bits, as in libnetwork.
_PRIORITIES = range(-(2**63), 2**63)
#: libnetwork's netlabels that stand for a parameter of an endpoint.
SYSCTLS_LABEL = "com.docker.network.endpoint.sysctls"
INTERFACE_LABEL = "com.docker.network.endpoint.ifname"
MAC_LABEL = "com.docker.network.endpoint.macaddress"


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointRequest:
    """An endpoint that is asked for."""

    name: str
    address: IPAddress | None
    address6: IPAddress | None
    mac: str
    link_local: tuple[IPInterface, ...]
    aliases: tuple[str, ...]
    links: Mapping[str, str]
    ports: tuple[PortRequest, ...]
    exposed: tuple[TransportPort, ...]
    labels: Mapping[str, str]
    options: Mapping[str, JSON]
    gateway_priority: int
    interface_name: str
    sysctls: Mapping[str, str]

    @property
    def refuses_ipv6(self) -> bool:
        """Whether a kernel setting that was asked for leaves no room for IPv6."""
        return self.sysctls.get("net.ipv6.conf.IFNAME.disable_ipv6") == "1"


def endpoint_request(
    name: object,
    *,
    address: object,
    address6: object,
    mac: object,
    link_local: object,
    aliases: object,
    links: object,
    ports: object,
    exposed: object,
    publish_all: object,
    labels: object,
    options: object,
    gateway_priority: object,
    interface_name: object,
    sysctls: object,
    driver: str,
    publishes: bool,
) -> EndpointRequest:
    """Check the parameters of an endpoint.

    :param driver: name of the network's driver, for error messages
    :param publishes: whether it publishes ports
    :raises InvalidError: with everything that is wrong with them
    """
    faults = Faults()
    rest = faults.mapping("options", check.json, options)
    asked = faults.mapping("sysctls", check.sysctl_value, sysctls)
    asked.update(_sysctl_label(faults, rest.pop(SYSCTLS_LABEL, "")))
    settings = {}
    for key, value in asked.items():
        if checked := faults.parse("sysctls", check.sysctl_name, key):
            settings[checked.replace(".ifname.", ".IFNAME.")] = value
    mac = rest.pop(MAC_LABEL, "") if mac == "" else mac
    interface_name = (
        rest.pop(INTERFACE_LABEL, "") if interface_name == "" else interface_name
    )
    served = flat(faults.each("exposed", specs.parse_exposed, exposed))
    published = parse_requests(faults, ports)
    if faults.flag("publish_all", publish_all):
        published += all_exposed(served, published)
    if published and not publishes:
        faults.add(f"ports: the driver {driver!r} does not publish ports")
    request = EndpointRequest(
        name=faults.parse("name", check.name, name) or "",
        address=_address(faults, "address", address, 4),
        address6=_address(faults, "address6", address6, 6),
        mac="" if mac == "" else faults.parse("mac", check.mac_address, mac) or "",
        link_local=faults.each("link_local", check.link_local, link_local),
        aliases=faults.each("aliases", check.alias, aliases),
        links=_links(faults, links),
        ports=published,
        exposed=served,
        labels=faults.mapping("labels", check.text, labels),
        options=rest,
        gateway_priority=faults.parse("gateway_priority", _priority, gateway_priority)
        or 0,
        interface_name=""
        if interface_name == ""
        else faults.parse("interface_name", check.interface_name, interface_name) or "",
        sysctls=settings,
    )
    if request.refuses_ipv6 and request.address6:
        faults.add(f"address6: {request.address6} is given, but a sysctl disables IPv6")
    faults.check()
    return request


def _priority(value: object) -> int:
    priority = check.integer(value)
    if priority not in _PRIORITIES:
        raise ValueError(f"expected a number of 64 bits, not {check.shown(value)}")
    return priority


def _links(faults: Faults, links: object) -> dict[str, str]:
    checked = faults.mapping("links", check.dns_name, links)
    for link in checked:
        faults.parse("links", check.dns_name, link)
    return checked


def _address(
    faults: Faults, what: str, value: object, version: int
) -> IPAddress | None:
    if value is None:
        return None
    parsed = faults.parse(what, check.address, value)
    if parsed is not None and parsed.version != version:
        faults.add(f"{what}: expected an IPv{version} address, not {parsed}")
    return parsed


def _sysctl_label(faults: Faults, value: JSON) -> dict[str, str]:
    """Parse libnetwork's comma-separated list of ``name=value``."""
    what = f"options[{SYSCTLS_LABEL!r}]"
    result = {}
    for item in str(value).split(",") if value else ():
        key, equals, setting = item.partition("=")
        if not equals:
            faults.add(
                f"{what}: expected 'net.X.Y.IFNAME.Z=V', not {check.shown(item)}"
            )
        elif checked := faults.parse(what, check.sysctl_value, setting.strip()):
            result[key.strip()] = checked
    return result
