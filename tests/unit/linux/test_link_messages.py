from __future__ import annotations

import threading

import pytest
from hypothesis import given, strategies as st
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from cnm.errors import InvalidError
from cnm.linux import (
    REAP_GROUP,
    Link,
    add_bridge,
    add_ifb,
    add_macvlan,
    add_veth,
    choose_index,
    delete_link,
    dump_links,
    get_link,
    parse_link,
    set_bridge_port,
    set_ipv4_configuration,
    set_link,
)
from tests.unit.linux.oracle import decode, encode, nested_attribute, pairs

names = st.text("abcdefghijklmnop-.0123456789", min_size=1, max_size=15)
indexes = st.integers(1, 2**31 - 1)
macs = st.binary(min_size=6, max_size=6).map(lambda packed: packed.hex(":"))
mtus = st.integers(68, 65535)
groups = st.integers(1, 2**32 - 1)

CREATE_EXCLUSIVE = 0x600
NEWLINK, DELLINK, GETLINK = 16, 17, 18


@given(names, indexes, macs, mtus, groups, st.booleans())
def test_bridge(
    name: str, index: int, mac: str, mtu: int, group: int, up: bool
) -> None:
    request = add_bridge(name, index=index, mac=mac, mtu=mtu, group=group, up=up)
    message = decode(ifinfmsg, request)
    assert request.what == f"add bridge {name}"
    assert message["header"]["type"] == NEWLINK
    assert message["header"]["flags"] == CREATE_EXCLUSIVE
    assert message["index"] == index
    assert message["state"] == ("up" if up else "down")
    assert message.get_attr("IFLA_IFNAME") == name
    assert message.get_attr("IFLA_ADDRESS") == mac
    assert message.get_attr("IFLA_MTU") == mtu
    assert message.get_attr("IFLA_GROUP") == group
    assert nested_attribute(message, "IFLA_LINKINFO", "IFLA_INFO_KIND") == "bridge"


@given(names, names, indexes, indexes, st.integers(3, 900), indexes, mtus, macs, macs)
def test_veth(
    name: str,
    peer: str,
    index: int,
    peer_index: int,
    netns: int,
    master: int,
    mtu: int,
    mac: str,
    peer_mac: str,
) -> None:
    request = add_veth(
        name,
        peer,
        index=index,
        peer_index=peer_index,
        peer_netns=netns,
        master=master,
        mtu=mtu,
        mac=mac,
        peer_mac=peer_mac,
        group=REAP_GROUP,
    )
    message = decode(ifinfmsg, request)
    assert (message["index"], message["state"]) == (index, "up")
    assert message.get_attr("IFLA_IFNAME") == name
    assert message.get_attr("IFLA_ADDRESS") == mac
    assert message.get_attr("IFLA_MASTER") == master
    assert message.get_attr("IFLA_GROUP") == REAP_GROUP
    assert message.get_attr("IFLA_NET_NS_FD") is None
    info = message.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    other = nested_attribute(info, "IFLA_INFO_DATA", "VETH_INFO_PEER")
    assert (other["index"], other["flags"], other["change"]) == (peer_index, 0, 0)
    assert other.get_attr("IFLA_IFNAME") == peer
    assert other.get_attr("IFLA_ADDRESS") == peer_mac
    assert other.get_attr("IFLA_NET_NS_FD") == netns
    assert message.get_attr("IFLA_MTU") == other.get_attr("IFLA_MTU") == mtu


def test_an_index_for_one_end_of_a_pair_means_one_for_both() -> None:
    assert decode(ifinfmsg, add_veth("a", "b", peer_index=7))["index"] > 0
    assert decode(ifinfmsg, add_veth("a", "b"))["index"] == 0


@given(names, indexes, st.integers(3, 900), macs)
@pytest.mark.parametrize("mode", ["private", "vepa", "bridge", "passthru", "source"])
def test_macvlan(mode: str, name: str, parent: int, netns: int, mac: str) -> None:
    request = add_macvlan(name, parent=parent, mode=mode, netns=netns, mac=mac)
    message = decode(ifinfmsg, request)
    assert message["state"] == "down"
    assert message.get_attr("IFLA_LINK") == parent
    assert message.get_attr("IFLA_NET_NS_FD") == netns
    assert message.get_attr("IFLA_ADDRESS") == mac
    info = message.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "macvlan"
    assert nested_attribute(info, "IFLA_INFO_DATA", "IFLA_MACVLAN_MODE") == mode


def test_macvlan_modes_are_checked() -> None:
    with pytest.raises(InvalidError, match="'l2' is not one of private, vepa"):
        add_macvlan("m0", parent=1, mode="l2")


def test_ifb() -> None:
    message = decode(ifinfmsg, add_ifb("ifb0", index=9, up=True))
    assert (message["index"], message["state"]) == (9, "up")
    assert nested_attribute(message, "IFLA_LINKINFO", "IFLA_INFO_KIND") == "ifb"


@given(indexes, names, macs, mtus, indexes, groups, st.text("abc/", max_size=99))
def test_changes(
    index: int, name: str, mac: str, mtu: int, master: int, group: int, alias: str
) -> None:
    request = set_link(
        index,
        up=False,
        rename=name,
        mac=mac,
        mtu=mtu,
        master=master,
        group=group,
        alias=alias,
        netns=5,
    )
    message = decode(ifinfmsg, request)
    assert message["header"]["flags"] == 0
    assert (message["index"], message["flags"], message["change"]) == (index, 0, 1)
    assert message.get_attr("IFLA_IFNAME") == name
    assert message.get_attr("IFLA_ADDRESS") == mac
    assert message.get_attr("IFLA_MTU") == mtu
    assert message.get_attr("IFLA_MASTER") == master
    assert message.get_attr("IFLA_GROUP") == group
    assert message.get_attr("IFLA_IFALIAS") == alias
    assert message.get_attr("IFLA_NET_NS_FD") == 5


def test_what_is_not_given_is_not_changed() -> None:
    message = decode(ifinfmsg, set_link(name="eth0"))
    assert message["change"] == 0
    assert pairs(message) == [("IFLA_IFNAME", "eth0")]
    message = decode(ifinfmsg, set_link(4, master=0, group=0, alias=""))
    assert pairs(message) == [
        ("IFLA_MASTER", 0),
        ("IFLA_GROUP", 0),
        ("IFLA_IFALIAS", ""),
    ]


def test_renaming_needs_the_index() -> None:
    with pytest.raises(InvalidError, match="'a' can be renamed to 'b' by index only"):
        set_link(name="a", rename="b")


@pytest.mark.parametrize(("mode", "number"), [("none", 1), ("eui64", 0)])
def test_address_generation(mode: str, number: int) -> None:
    message = decode(ifinfmsg, set_link(4, address_generation=mode))
    path = ("IFLA_AF_SPEC", "AF_INET6", "IFLA_INET6_ADDR_GEN_MODE")
    assert nested_attribute(message, *path) == number


def test_address_generation_is_checked() -> None:
    with pytest.raises(InvalidError, match="'random' is not one of eui64, none"):
        set_link(4, address_generation="random")


@pytest.mark.parametrize("isolated", [None, False, True])
@pytest.mark.parametrize("hairpin", [None, False, True])
def test_bridge_port(isolated: bool | None, hairpin: bool | None) -> None:
    message = decode(ifinfmsg, set_bridge_port(4, isolated=isolated, hairpin=hairpin))
    info = message.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_SLAVE_KIND") == "bridge"
    data = info.get_attr("IFLA_INFO_SLAVE_DATA")
    assert data.get_attr("IFLA_BRPORT_ISOLATED") == isolated
    assert data.get_attr("IFLA_BRPORT_MODE") == hairpin


def test_ipv4_settings_are_checked() -> None:
    with pytest.raises(InvalidError) as caught:
        set_ipv4_configuration(4, route_localnet=1, route_local=1)
    assert caught.value.problems[0] == "unknown IPv4 setting 'route_local'"
    assert "route_localnet" in caught.value.problems[1]


def test_selections() -> None:
    message = decode(ifinfmsg, delete_link(7))
    assert (message["header"]["type"], message["index"]) == (DELLINK, 7)
    assert decode(ifinfmsg, delete_link(name="x")).get_attr("IFLA_IFNAME") == "x"
    message = decode(ifinfmsg, delete_link(group=REAP_GROUP))
    assert pairs(message) == [("IFLA_GROUP", REAP_GROUP)]
    message = decode(ifinfmsg, get_link(name="x"))
    assert message["header"]["type"] == GETLINK
    assert pairs(message) == [("IFLA_IFNAME", "x"), ("IFLA_EXT_MASK", 8)]
    assert decode(ifinfmsg, dump_links(master=3)).get_attr("IFLA_MASTER") == 3


@pytest.mark.parametrize("mac", ["", "02:00:00:00:00", "02:00:00:00:00:0g", "nonsense"])
def test_mac_addresses_are_checked(mac: str) -> None:
    if not mac:
        assert (
            decode(ifinfmsg, add_bridge("b", mac=mac)).get_attr("IFLA_ADDRESS") is None
        )
        return
    with pytest.raises(InvalidError, match=f"MAC address '{mac}' is not of the form"):
        add_bridge("b", mac=mac)


@given(indexes, names, macs, mtus, indexes, groups, st.booleans())
def test_parsing(
    index: int, name: str, mac: str, mtu: int, other: int, group: int, up: bool
) -> None:
    message = encode(
        ifinfmsg,
        NEWLINK,
        {"index": index, "flags": int(up), "ifi_type": 1},
        ("IFLA_IFNAME", name),
        ("IFLA_ADDRESS", mac),
        ("IFLA_MTU", mtu),
        ("IFLA_MASTER", other),
        ("IFLA_LINK", other),
        ("IFLA_GROUP", group),
        ("IFLA_IFALIAS", "net/abc"),
        ("IFLA_LINKINFO", {"attrs": [["IFLA_INFO_KIND", "veth"]]}),
    )
    assert parse_link(message) == Link(
        index=index,
        name=name,
        kind="veth",
        mac=mac,
        mtu=mtu,
        master=other,
        link_index=other,
        group=group,
        alias="net/abc",
        up=up,
    )


def test_parsing_what_has_little() -> None:
    message = encode(ifinfmsg, NEWLINK, {"index": 1}, ("IFLA_IFNAME", "lo"))
    assert parse_link(message) == Link(index=1, name="lo")


def test_chosen_indexes_differ_between_threads() -> None:
    chosen: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: chosen.extend([choose_index() for _ in range(500)])
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(chosen)) == 2000
    assert min(chosen) >= 1 << 20
