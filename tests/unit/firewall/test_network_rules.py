from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest

from cnm.firewall import Element, NetworkRules
from cnm.firewall.ruleset import (
    BRIDGES,
    DROP_ICC,
    DROP_INTERNAL,
    ENTERING4,
    ENTERING6,
    IN_DIRECT,
    IN_NAT,
    IN_ROUTED,
    LEAVING,
    NAT4,
    NAT6,
    NETS4,
    NETS6,
    SAME,
    SNAT4,
    SNAT6,
    TRUSTED,
)
from cnm.linux.nftables import ACCEPT

NET4 = IPv4Network("10.9.0.0/24")
NET6 = IPv6Network("fd00:9::/64")
ALWAYS = {
    Element(BRIDGES, ("br9",)),
    Element(SAME, ("br9", "br9"), ACCEPT),
}
RANGE4 = Element(NETS4, (IPv4Address("10.9.0.0"),), end=(IPv4Address("10.9.0.255"),))
RANGE6 = Element(
    NETS6,
    (IPv6Address("fd00:9::"),),
    end=(IPv6Address("fd00:9::ffff:ffff:ffff:ffff"),),
)
NO_IPV6 = Element(ENTERING6, ("br9",), DROP_INTERNAL)


def elements(**options: Any) -> set[Element]:
    made = NetworkRules(
        interface="br9", subnets4=(NET4,), subnets6=(NET6,), **options
    ).elements()
    assert len(set(made)) == len(made)
    return set(made)


def test_nat() -> None:
    assert elements() == ALWAYS | {
        Element(ENTERING4, ("br9",), IN_NAT),
        NO_IPV6,
        RANGE4,
        Element(NAT4, ("br9",)),
    }


def test_both_families() -> None:
    assert elements(mode6="nat") == ALWAYS | {
        Element(ENTERING4, ("br9",), IN_NAT),
        Element(ENTERING6, ("br9",), IN_NAT),
        RANGE4,
        RANGE6,
        Element(NAT4, ("br9",)),
        Element(NAT6, ("br9",)),
    }


def test_no_ipv4() -> None:
    assert elements(mode4=None, mode6="routed") == ALWAYS | {
        Element(ENTERING4, ("br9",), DROP_INTERNAL),
        Element(ENTERING6, ("br9",), IN_ROUTED),
    }


def test_unprotected() -> None:
    assert elements(mode4="nat-unprotected") == ALWAYS | {
        NO_IPV6,
        RANGE4,
        Element(NAT4, ("br9",)),
    }


def test_routed() -> None:
    assert elements(mode4="routed") == ALWAYS | {
        Element(ENTERING4, ("br9",), IN_ROUTED),
        NO_IPV6,
    }


@pytest.mark.parametrize("mode", ["nat", "nat-unprotected", "routed", "isolated"])
def test_internal(mode: str) -> None:
    assert elements(internal=True, mode4=mode, mode6=mode) == ALWAYS | {
        Element(LEAVING, ("br9",), DROP_INTERNAL),
        Element(ENTERING4, ("br9",), DROP_INTERNAL),
        NO_IPV6,
    }


def test_no_icc() -> None:
    made = elements(icc=False)
    assert Element(SAME, ("br9", "br9"), DROP_ICC) in made
    assert Element(SAME, ("br9", "br9"), ACCEPT) not in made


def test_without_masquerading_ports_can_still_be_published() -> None:
    assert elements(masquerade=False) == ALWAYS | {
        Element(ENTERING4, ("br9",), IN_NAT),
        NO_IPV6,
        RANGE4,
    }


def test_chosen_source_addresses() -> None:
    first, second = IPv4Address("192.0.2.7"), IPv6Address("2001:db8::7")
    made = elements(mode6="nat", snat4=first, snat6=second)
    assert Element(SNAT4, ("br9",), (first,)) in made
    assert Element(SNAT6, ("br9",), (second,)) in made
    assert not {it.set for it in made} & {NAT4, NAT6}
    assert not elements(snat4=first, masquerade=False) - elements(masquerade=False)


def test_direct_routing() -> None:
    made = elements(mode6="nat", direct=True)
    assert made - elements(mode6="nat") == {
        Element(ENTERING4, ("br9",), IN_DIRECT),
        Element(ENTERING6, ("br9",), IN_DIRECT),
    }


def test_trusted_interfaces() -> None:
    trusted = ("vpn0", "vpn1", "vpn0")
    made = elements(mode6="nat", trusted=trusted) - elements(mode6="nat")
    assert made == {
        Element(TRUSTED, (family, name, "br9"), IN_DIRECT)
        for family in ("ipv4", "ipv6")
        for name in ("vpn0", "vpn1")
    }


@pytest.mark.parametrize("mode", ["nat-unprotected", "routed", "isolated", None])
def test_direct_routing_changes_nothing_in_other_modes(mode: str | None) -> None:
    usual = elements(mode4=mode, mode6=mode)
    assert elements(mode4=mode, mode6=mode, trusted=("vpn0",), direct=True) == usual


def test_nobody_is_trusted_to_reach_internal_networks() -> None:
    trusted = elements(internal=True, mode6="nat", trusted=("vpn0",), direct=True)
    assert trusted == elements(internal=True, mode6="nat")


def test_every_element_can_be_encoded() -> None:
    for element in elements(mode6="nat", snat4=IPv4Address(1), trusted=("vpn0",)):
        assert element.encoded
