"""The rules of a controller's table. They never change; what changes is in sets.

::

    set bridges            the controller's bridges
    map policy4 / 6        bridge . source address : verdict  asked before the rest
    map same               bridge . bridge : accept | goto drop_icc
    map leaving            bridge : goto drop_internal       internal networks
    map trusted            family . interface . bridge : goto in_direct
    map entering4 / 6      bridge : goto in_nat | in_direct | in_routed | drop_internal
    set nat4 / 6           bridges whose traffic is masqueraded
    map snat4 / 6          bridge : source address in place of masquerading
    set nets4 / 6          subnets of networks with published ports
    map pub4 / 6           host address . protocol . port : address . port
    map any4 / 6           protocol . port : address . port  any address of the host
    map range4 / 6         host addresses . protocol . ports : address
    set open4 / 6          address . protocol . port         open without translation
    set proxied            protocol . port                   of [::1], sent to the proxy
    map proxy              protocol : port                   at which the proxy listens
    map lb4 / 6            virtual address . slot : address   SLOTS slots, by chance
    set closed             families that are not forwarded but to and from bridges

A packet costs a fixed number of look-ups, however many networks and ports there are.
"Published" is ``ct status dnat``: a packet that was sent to a container's address
directly has never been translated, so no port needs a rule of its own. Whatever drops
packets counts them: ``nft list table inet cnm`` tells why they do not get through.
"""

from __future__ import annotations

from ipaddress import IPv6Address

from ..linux.links import BRIDGE_GROUP
from ..linux.nftables import (
    ACCEPT,
    DROP,
    FAMILY,
    FORWARD,
    INPUT,
    INTERFACE,
    IPV4,
    IPV6,
    MARK,
    OUTPUT,
    PORT,
    POSTROUTING,
    PREROUTING,
    PROTOCOL,
    RETURN,
    VERDICT,
    Batch,
    Hook,
    Set,
    expressions as ex,
    goto,
    jump,
)

#: Slots over which the back ends of a virtual address are dealt out.
SLOTS = 64

BRIDGES = Set("bridges", (INTERFACE,))
POLICY4 = Set("policy4", (INTERFACE, IPV4), (VERDICT,))
POLICY6 = Set("policy6", (INTERFACE, IPV6), (VERDICT,))
SAME = Set("same", (INTERFACE, INTERFACE), (VERDICT,))
LEAVING = Set("leaving", (INTERFACE,), (VERDICT,))
TRUSTED = Set("trusted", (FAMILY, INTERFACE, INTERFACE), (VERDICT,))
ENTERING4 = Set("entering4", (INTERFACE,), (VERDICT,))
ENTERING6 = Set("entering6", (INTERFACE,), (VERDICT,))
NAT4 = Set("nat4", (INTERFACE,))
NAT6 = Set("nat6", (INTERFACE,))
SNAT4 = Set("snat4", (INTERFACE,), (IPV4,))
SNAT6 = Set("snat6", (INTERFACE,), (IPV6,))
NETS4 = Set("nets4", (IPV4,), interval=True)
NETS6 = Set("nets6", (IPV6,), interval=True)
PUB4 = Set("pub4", (IPV4, PROTOCOL, PORT), (IPV4, PORT))
PUB6 = Set("pub6", (IPV6, PROTOCOL, PORT), (IPV6, PORT))
ANY4 = Set("any4", (PROTOCOL, PORT), (IPV4, PORT))
ANY6 = Set("any6", (PROTOCOL, PORT), (IPV6, PORT))
RANGE4 = Set("range4", (IPV4, PROTOCOL, PORT), (IPV4,), interval=True)
RANGE6 = Set("range6", (IPV6, PROTOCOL, PORT), (IPV6,), interval=True)
OPEN4 = Set("open4", (IPV4, PROTOCOL, PORT))
OPEN6 = Set("open6", (IPV6, PROTOCOL, PORT))
PROXIED = Set("proxied", (PROTOCOL, PORT))
PROXY = Set("proxy", (PROTOCOL,), (PORT,))
LB4 = Set("lb4", (IPV4, MARK), (IPV4,))
LB6 = Set("lb6", (IPV6, MARK), (IPV6,))
CLOSED = Set("closed", (FAMILY,))

SETS = (
    *(BRIDGES, POLICY4, POLICY6, SAME, LEAVING, TRUSTED, ENTERING4, ENTERING6),
    *(NAT4, NAT6, SNAT4, SNAT6, NETS4, NETS6),
    *(PUB4, PUB6, ANY4, ANY6, RANGE4, RANGE6, OPEN4, OPEN6),
    *(PROXIED, PROXY, LB4, LB6, CLOSED),
)

#: The administrator's chain: made once, put back as it was, never changed.
USER = "user"
#: What is let into a bridge: published ports; these, and open ones; exposed ports.
IN_NAT = goto("in_nat")
IN_DIRECT = goto("in_direct")
IN_ROUTED = goto("in_routed")
#: What is dropped and counted, between containers; of internal and isolated networks.
DROP_ICC = goto("drop_icc")
DROP_INTERNAL = goto("drop_internal")

_GUARD = "guard"
_PUBLISH = "publish"
_PREROUTING = "prerouting"
_OUTPUT = "output"
_INPUT = "input"
_FORWARD = "forward"
_POSTROUTING = "postrouting"

# Priorities: include/uapi/linux/netfilter_ipv4.h, NF_IP_PRI_RAW, _NAT_DST, _FILTER,
# _NAT_SRC.
CHAINS: dict[str, Hook | None] = {
    USER: None,
    _PUBLISH: None,
    IN_NAT.chain: None,
    IN_DIRECT.chain: None,
    IN_ROUTED.chain: None,
    DROP_ICC.chain: None,
    DROP_INTERNAL.chain: None,
    _GUARD: Hook("filter", PREROUTING, -300),
    _PREROUTING: Hook("nat", PREROUTING, -100),
    _OUTPUT: Hook("nat", OUTPUT, -100),
    _INPUT: Hook("filter", INPUT, 0),
    _FORWARD: Hook("filter", FORWARD, 0),
    _POSTROUTING: Hook("nat", POSTROUTING, 100),
}

# include/uapi/linux/rtnetlink.h: RTN_LOCAL
_RTN_LOCAL = 2
_LOOPBACK_OCTET = 127
_ACCEPT = ex.verdict(ACCEPT)
_DROP = ex.counter() + ex.verdict(DROP)
_RETURN = ex.verdict(RETURN)
_IPV4_ONLY = ex.equal(ex.NETWORK_PROTOCOL, "ipv4")
_IPV6_ONLY = ex.equal(ex.NETWORK_PROTOCOL, "ipv6")
_IS_ICMP = ex.equal(ex.TRANSPORT_PROTOCOL, "icmp")
_IS_ICMP6 = ex.equal(ex.TRANSPORT_PROTOCOL, "icmpv6")
_FROM_LOOPBACK = ex.equal(ex.first_octet(ex.SOURCE4), _LOOPBACK_OCTET)
_TO_LOOPBACK = ex.equal(ex.first_octet(ex.DESTINATION4), _LOOPBACK_OCTET)
_TO_LOOPBACK6 = ex.equal(ex.DESTINATION6, IPv6Address("::1"))
_PORT = ex.TRANSPORT_PROTOCOL + ex.DESTINATION_PORT
_PORT4 = ex.DESTINATION4 + ex.TRANSPORT_PROTOCOL + ex.DESTINATION_PORT
_PORT6 = ex.DESTINATION6 + ex.TRANSPORT_PROTOCOL + ex.DESTINATION_PORT
_TO_BRIDGE = ex.member(ex.OUTPUT, BRIDGES)
_FROM_BRIDGE = ex.member(ex.INPUT, BRIDGES)


def add_ruleset(batch: Batch, fwmark: tuple[int, int] | None = None) -> None:
    """Add the sets, the chains and their rules to a new table.

    :param fwmark: mark and mask of packets that are let into networks from elsewhere
    """
    for definition in SETS:
        batch.add_set(definition)
    for name, hook in CHAINS.items():
        batch.add_chain(name, hook)
    _add_guard(batch)
    _add_publishing(batch)
    _add_input(batch)
    _add_entering(batch, fwmark)
    _add_forwarding(batch)
    _add_postrouting(batch)


def _add_guard(batch: Batch) -> None:
    """Keep containers from the host's loopback, which route_localnet opens to them."""
    batch.add_rule(_GUARD, _FROM_BRIDGE, _TO_LOOPBACK, _DROP)
    batch.add_rule(_GUARD, _FROM_BRIDGE, _FROM_LOOPBACK, _DROP)


def _add_publishing(batch: Batch) -> None:
    slot = ex.random_number(SLOTS)
    batch.add_rule(_PUBLISH, ex.destination_nat(ex.DESTINATION4 + slot, LB4))
    batch.add_rule(_PUBLISH, ex.destination_nat(ex.DESTINATION6 + slot, LB6))
    # without this, any4 would take what containers send to the same port elsewhere
    elsewhere = ex.not_equal(ex.DESTINATION_TYPE, _RTN_LOCAL)
    batch.add_rule(_PUBLISH, elsewhere, _RETURN)
    batch.add_rule(_PUBLISH, ex.destination_nat(_PORT4, PUB4))
    batch.add_rule(_PUBLISH, _IPV4_ONLY, ex.destination_nat(_PORT, ANY4))
    batch.add_rule(_PUBLISH, ex.destination_nat(_PORT4, RANGE4))
    batch.add_rule(_PUBLISH, ex.destination_nat(_PORT6, PUB6))
    batch.add_rule(_PUBLISH, _IPV6_ONLY, ex.destination_nat(_PORT, ANY6))
    batch.add_rule(_PUBLISH, ex.destination_nat(_PORT6, RANGE6))
    # 127.0.0.1 is nobody's but the host's: a neighbour may have a route to it
    batch.add_rule(_PREROUTING, _TO_LOOPBACK, _RETURN)
    # what is sent to ::1 cannot leave the host, so it is not translated but proxied
    proxied = _TO_LOOPBACK6, ex.member(_PORT, PROXIED)
    batch.add_rule(_OUTPUT, *proxied, ex.redirect(ex.TRANSPORT_PROTOCOL, PROXY))
    batch.add_rule(_OUTPUT, _TO_LOOPBACK6, _RETURN)
    for chain in (_PREROUTING, _OUTPUT):
        batch.add_rule(chain, ex.verdict(jump(_PUBLISH)))


def _add_input(batch: Batch) -> None:
    """Keep containers from speaking to the host in the name of somebody else."""
    # of IPv4 the kernel takes nothing that pretends to come from the host itself
    as_host = _IPV6_ONLY, ex.equal(ex.SOURCE_TYPE, _RTN_LOCAL)
    batch.add_rule(_INPUT, _FROM_BRIDGE, *as_host, _DROP)
    # who asks whether an address is free has none
    nobody = ex.equal(ex.SOURCE6, IPv6Address("::"))
    batch.add_rule(_INPUT, nobody, _IS_ICMP6, _RETURN)
    # rp_filter is for IPv4 only, and anybody may loosen it for all links
    stranger = ex.equal(ex.WAY_BACK, 0)
    internal = ex.verdict_map(ex.INPUT, LEAVING)
    batch.add_rule(_INPUT, _FROM_BRIDGE, stranger, internal)


def _add_entering(batch: Batch, fwmark: tuple[int, int] | None) -> None:
    """Say what new connections are let into networks, depending on their mode."""
    modes = (IN_NAT.chain, IN_DIRECT.chain, IN_ROUTED.chain)
    for chain in modes:
        batch.add_rule(chain, ex.translated(), _ACCEPT)
        if fwmark is not None:
            batch.add_rule(chain, ex.marked(*fwmark), _ACCEPT)
    for is_icmp in (_IS_ICMP, _IS_ICMP6):
        batch.add_rule(IN_ROUTED.chain, is_icmp, _ACCEPT)
    for chain in (IN_DIRECT.chain, IN_ROUTED.chain):
        batch.add_rule(chain, ex.member(_PORT4, OPEN4), _ACCEPT)
        batch.add_rule(chain, ex.member(_PORT6, OPEN6), _ACCEPT)
    # what goes back to the bridge that it came from has not left the network
    batch.add_rule(DROP_INTERNAL.chain, ex.verdict_map(ex.INPUT + ex.OUTPUT, SAME))
    for chain in (*modes, DROP_ICC.chain, DROP_INTERNAL.chain):
        batch.add_rule(chain, _DROP)


def _add_forwarding(batch: Batch) -> None:
    batch.add_rule(_FORWARD, ex.verdict(jump(USER)))
    # A connection of somebody else's is established, whoever sends in his name.
    batch.add_rule(_FORWARD, ex.verdict_map(ex.INPUT, LEAVING))
    batch.add_rule(_FORWARD, ex.established(), _ACCEPT)
    batch.add_rule(_FORWARD, ex.verdict_map(ex.INPUT + ex.SOURCE4, POLICY4))
    batch.add_rule(_FORWARD, ex.verdict_map(ex.INPUT + ex.SOURCE6, POLICY6))
    batch.add_rule(_FORWARD, ex.verdict_map(ex.INPUT + ex.OUTPUT, SAME))
    direction = ex.NETWORK_PROTOCOL + ex.INPUT + ex.OUTPUT
    batch.add_rule(_FORWARD, ex.verdict_map(direction, TRUSTED))
    batch.add_rule(_FORWARD, _IPV4_ONLY, ex.verdict_map(ex.OUTPUT, ENTERING4))
    batch.add_rule(_FORWARD, _IPV6_ONLY, ex.verdict_map(ex.OUTPUT, ENTERING6))
    batch.add_rule(_FORWARD, _FROM_BRIDGE, _ACCEPT)
    batch.add_rule(_FORWARD, _TO_BRIDGE, _ACCEPT)
    # What is closed is closed for strangers: not for other controllers, nor for what
    # stays on a bridge of somebody else's, which br_netfilter sends by here.
    for group in (ex.INPUT_GROUP, ex.OUTPUT_GROUP):
        batch.add_rule(_FORWARD, ex.equal(group, BRIDGE_GROUP), _ACCEPT)
    bridged = ex.equal(ex.INPUT_KIND, "bridge"), ex.equal(ex.OUTPUT_KIND, "bridge")
    batch.add_rule(_FORWARD, *bridged, _ACCEPT)
    batch.add_rule(_FORWARD, ex.member(ex.NETWORK_PROTOCOL, CLOSED), _DROP)


def _add_postrouting(batch: Batch) -> None:
    # Back to where it came from: the answer has to pass here, too. With br_netfilter
    # there is no incoming interface, so these go by the subnet of the source.
    for source, nets in ((ex.SOURCE4, NETS4), (ex.SOURCE6, NETS6)):
        hairpin = (ex.translated(), _TO_BRIDGE, ex.member(source, nets))
        batch.add_rule(_POSTROUTING, *hairpin, ex.masquerade())
    batch.add_rule(_POSTROUTING, _IPV4_ONLY, ex.source_nat(ex.INPUT, SNAT4))
    batch.add_rule(_POSTROUTING, _IPV6_ONLY, ex.source_nat(ex.INPUT, SNAT6))
    for only, nat in ((_IPV4_ONLY, NAT4), (_IPV6_ONLY, NAT6)):
        masqueraded = ex.member(ex.INPUT, nat)
        batch.add_rule(_POSTROUTING, only, masqueraded, ex.masquerade())
    batch.add_rule(_POSTROUTING, _FROM_LOOPBACK, _TO_BRIDGE, ex.masquerade())
