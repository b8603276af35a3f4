"""The Linux kit: netlink, network namespaces, nftables.

For drivers as much as for the core. Functions such as :func:`add_bridge` return
requests; ``placement.route.call(...)`` or ``sockets.route.call(...)`` sends them, many
at a time, from a plan that :class:`Kernel` runs in a worker thread.
"""

from __future__ import annotations

from . import namespaces, sysctl
from .addresses import (
    LinkAddress,
    add_address,
    delete_address,
    dump_addresses,
    link_local_address,
    parse_address,
)
from .bridge_ports import BridgePort, parse_bridge_port, set_bridge_port
from .conntrack import (
    forget,
    forget_addresses,
    forget_ports,
    original_destination,
)
from .host_routes import HostRoutes
from .kernel import Kernel, Placement, Sockets
from .link_kinds import add_dummy, add_ifb, add_ipvlan, add_macvlan, add_vlan
from .links import (
    BRIDGE_GROUP,
    REAP_GROUP,
    REAP_SINGLY_GROUP,
    Link,
    add_bridge,
    add_veth,
    choose_index,
    delete_link,
    dump_links,
    get_link,
    parse_link,
    set_ipv4_configuration,
    set_link,
)
from .monitor import (
    LinkDown,
    LinkGone,
    Monitor,
    Overrun,
    PortGone,
    RouteGone,
    TableChanged,
    TableGone,
)
from .neighbours import delete_neighbour, set_fdb, set_neighbour
from .netlink import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    Message,
    NetlinkSocket,
    Request,
)
from .procfs import ProcFS
from .randomness import choose_id, choose_mac
from .routes import (
    KernelRoute,
    add_route,
    delete_route,
    dump_routes,
    get_route,
    parse_route,
)
from .sandboxes import SandboxSockets

__all__ = [
    "BRIDGE_GROUP",
    "BridgePort",
    "HostRoutes",
    "Kernel",
    "KernelRoute",
    "Link",
    "LinkAddress",
    "LinkDown",
    "LinkGone",
    "Message",
    "Monitor",
    "NETLINK_NETFILTER",
    "NETLINK_ROUTE",
    "NetlinkSocket",
    "Overrun",
    "Placement",
    "PortGone",
    "ProcFS",
    "REAP_GROUP",
    "REAP_SINGLY_GROUP",
    "Request",
    "RouteGone",
    "SandboxSockets",
    "Sockets",
    "TableChanged",
    "TableGone",
    "add_address",
    "add_bridge",
    "add_dummy",
    "add_ifb",
    "add_ipvlan",
    "add_macvlan",
    "add_route",
    "add_veth",
    "add_vlan",
    "choose_id",
    "choose_index",
    "choose_mac",
    "delete_address",
    "delete_link",
    "delete_neighbour",
    "delete_route",
    "dump_addresses",
    "dump_links",
    "dump_routes",
    "forget",
    "forget_addresses",
    "forget_ports",
    "get_link",
    "get_route",
    "link_local_address",
    "namespaces",
    "original_destination",
    "parse_address",
    "parse_bridge_port",
    "parse_link",
    "parse_route",
    "set_bridge_port",
    "set_fdb",
    "set_ipv4_configuration",
    "set_link",
    "set_neighbour",
    "sysctl",
]
