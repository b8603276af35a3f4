"""What the requests do to a real kernel, in a namespace of their own."""

from __future__ import annotations

import ctypes
import errno
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network

import pytest

from cnm.errors import MissingCapability, MissingFeature, NetlinkError
from cnm.linux import (
    REAP_GROUP,
    Link,
    NetlinkSocket,
    Request,
    add_address,
    add_bridge,
    add_macvlan,
    add_route,
    add_veth,
    choose_index,
    delete_address,
    delete_link,
    delete_neighbour,
    delete_route,
    dump_addresses,
    dump_links,
    dump_routes,
    get_link,
    parse_address,
    parse_link,
    parse_route,
    set_bridge_port,
    set_fdb,
    set_ipv4_configuration,
    set_link,
    set_neighbour,
    sysctl,
)
from cnm.linux.links import add_link
from cnm.linux.nftables import list_tables
from cnm.linux.wire import NEIGHBOUR, attributes
from tests.integration.lab import Namespace

MAC = "02:00:00:00:00:0a"
PEER_MAC = "02:00:00:00:00:0b"


@pytest.fixture
def host() -> Iterator[Namespace]:
    with Namespace("host") as namespace:
        yield namespace


@pytest.fixture
def box() -> Iterator[Namespace]:
    with Namespace("box") as namespace:
        yield namespace


def link(namespace: Namespace, index: int = 0, *, name: str = "") -> Link:
    (message,) = namespace.route.call(get_link(index, name=name))
    return parse_link(message)


def names(namespace: Namespace, master: int = 0) -> set[str]:
    found = namespace.route.dump(dump_links(master=master))
    return {parse_link(message).name for message in found} - {"lo"}


def neighbours(namespace: Namespace, family: int) -> dict[bytes, tuple[str, int]]:
    request = Request(30, 0, NEIGHBOUR.pack(family, 0, 0, 0, 0), "list neighbours")
    found = {}
    for message in namespace.route.dump(request):
        state = NEIGHBOUR.unpack_from(message.body)[2]
        attrs = attributes(message.body, NEIGHBOUR.size)
        if 2 in attrs:
            found[attrs.get(1, b"")] = (attrs[2].hex(":"), state)
    return found


def test_a_bridge(host: Namespace) -> None:
    index = choose_index()
    request = add_bridge("br0", index=index, mac=MAC, mtu=1400, group=7, up=True)
    host.route.call(request)
    assert link(host, name="br0") == Link(
        index=index, name="br0", kind="bridge", mac=MAC, mtu=1400, group=7, up=True
    )
    with pytest.raises(NetlinkError, match="add bridge br0: File exists"):
        host.route.call(request)


def test_a_veth_pair_across_namespaces(host: Namespace, box: Namespace) -> None:
    bridge, index, peer = choose_index(), choose_index(), choose_index()
    host.route.call(
        add_bridge("br0", index=bridge, up=True),
        add_veth(
            "v0",
            "eth0",
            index=index,
            peer_index=peer,
            peer_netns=box.netns,
            master=bridge,
            mtu=1300,
            mac=MAC,
            peer_mac=PEER_MAC,
            group=5,
        ),
    )
    outer, inner = link(host, index), link(box, peer)
    assert (outer.name, outer.mac, outer.mtu) == ("v0", MAC, 1300)
    assert (outer.master, outer.group, outer.link_index) == (bridge, 5, peer)
    assert outer.up
    assert (inner.name, inner.mac, inner.mtu) == ("eth0", PEER_MAC, 1300)
    assert (inner.link_index, inner.up) == (index, False)
    assert names(host, bridge) == {"v0"}


def test_a_taken_index(host: Namespace) -> None:
    host.route.call(add_bridge("br0", index=77))
    for pair in (
        add_veth("v0", "v1", index=77),
        add_veth("v0", "v1", index=78, peer_index=77),
    ):
        with pytest.raises(NetlinkError) as caught:
            host.route.call(pair)
        assert caught.value.errno in (errno.EEXIST, errno.EBUSY)
    assert names(host) == {"br0"}


@pytest.mark.parametrize("mode", ["bridge", "private", "vepa", "passthru"])
def test_a_macvlan_in_another_namespace(
    host: Namespace, box: Namespace, mode: str
) -> None:
    host.route.call(add_veth("v0", "v1", index=50))
    # passthru takes the parent's address
    mac = "" if mode == "passthru" else MAC
    host.route.call(
        add_macvlan("eth0", parent=50, mode=mode, index=60, netns=box.netns, mac=mac)
    )
    made = link(box, 60)
    assert (made.name, made.kind, made.link_index) == ("eth0", "macvlan", 50)
    assert made.mac == (mac or link(host, 50).mac)


def test_changing_a_link(host: Namespace, box: Namespace) -> None:
    host.route.call(
        add_bridge("br0", index=40),
        add_veth("v0", "v1", index=41, peer_index=42),
        set_link(name="v0", mac=MAC, mtu=1280, master=40, group=3),
        set_link(41, rename="w0", alias="cnm/endpoint", up=False),
        set_link(42, netns=box.netns),
    )
    changed = link(host, 41)
    assert (changed.name, changed.mac, changed.mtu) == ("w0", MAC, 1280)
    assert (changed.master, changed.group, changed.up) == (40, 3, False)
    assert changed.alias == "cnm/endpoint"
    assert names(box) == {"v1"}
    host.route.call(set_link(41, master=0, alias="", group=0, up=True))
    changed = link(host, 41)
    assert (changed.master, changed.alias, changed.group) == (0, "", 0)
    assert changed.up


def test_links_without_ipv6_addresses(host: Namespace) -> None:
    host.route.call(
        add_veth("v0", "v1", index=41, peer_index=42, up=False),
        set_link(41, address_generation="none"),
        set_link(42, address_generation="eui64", up=True),
        set_link(41, up=True),
    )
    found: list[int] = []
    deadline = time.monotonic() + 5
    # the kernel gives the address when a worker of its own has seen the carrier
    while not found and time.monotonic() < deadline:
        listed = map(parse_address, host.route.dump(dump_addresses()))
        found = [it.index for it in listed if it.interface.ip.is_link_local]
    assert found == [42]


def test_bridge_ports(host: Namespace) -> None:
    host.route.call(
        add_bridge("br0", index=40, up=True),
        add_veth("v0", "v1", index=41, master=40),
        set_bridge_port(41, isolated=True, hairpin=True),
    )
    (message,) = host.route.call(get_link(41))
    info = attributes(attributes(message.body, 16)[18])
    port = attributes(info[5])
    assert (port[33], port[4]) == (b"\1", b"\1")


def test_ipv4_settings(host: Namespace) -> None:
    def read(name: str) -> str:
        return host.run(lambda: sysctl.read(f"net.ipv4.conf.br0.{name}"))

    host.route.call(add_bridge("br0", index=40))
    settings = {"route_localnet": 1, "arp_ignore": 2, "rp_filter": 0, "proxy_arp": 1}
    assert read("route_localnet") == "0"
    host.route.call(set_ipv4_configuration(40, **settings))
    assert {name: int(read(name)) for name in settings} == settings


def test_deleting_a_group(host: Namespace) -> None:
    host.route.call(
        add_bridge("br0"),
        *(add_veth(f"v{it}", f"w{it}", group=REAP_GROUP) for it in range(3)),
    )
    host.route.call(delete_link(group=REAP_GROUP))
    assert names(host) == {"br0"}
    host.route.call(delete_link(name="br0"))
    assert names(host) == set()


def test_addresses(host: Namespace) -> None:
    wanted = [
        ip_interface(it)
        for it in ("10.1.0.1/24", "10.2.0.1/32", "169.254.7.7/16", "fd00::1/64")
    ]
    host.route.call(add_bridge("br0", index=40, up=True))
    host.route.call(
        set_link(40, address_generation="none"),
        *(add_address(40, it) for it in wanted),
    )
    found = [parse_address(it) for it in host.route.dump(dump_addresses(40))]
    assert {it.interface for it in found if it.permanent} >= set(wanted)
    assert {it.scope for it in found if it.interface.ip.is_link_local} == {253}
    with pytest.raises(
        NetlinkError, match=r"add address 10.1.0.1/24 to link 40: ipv4:"
    ):
        host.route.call(add_address(40, wanted[0]))
    host.route.call(*(add_address(40, it, replace=True) for it in wanted))
    host.route.call(*(delete_address(40, it) for it in wanted))
    found = [parse_address(it) for it in host.route.dump(dump_addresses(40))]
    assert not {it.interface for it in found} & set(wanted)


def test_an_ipv6_address_can_be_used_at_once(host: Namespace) -> None:
    for scope in ("all", "default"):
        host.sysctl(f"net.ipv6.conf.{scope}.accept_dad", "1")
    host.route.call(add_veth("v0", "v1", index=41, peer_index=42))
    host.route.call(set_link(42, up=True), add_address(41, ip_interface("fd00::1/64")))
    (message,) = [
        it
        for it in host.route.dump(dump_addresses(41))
        if parse_address(it).interface == ip_interface("fd00::1/64")
    ]
    tentative = 0x40
    assert not int.from_bytes(attributes(message.body, 8)[8], "little") & tentative


@pytest.mark.parametrize("version", [4, 6])
def test_routes(host: Namespace, version: int) -> None:
    subnet, gateway, target = {
        4: ("10.1.0.1/24", "10.1.0.9", "10.8.0.0/16"),
        6: ("fd00:1::1/64", "fd00:1::9", "fd08::/32"),
    }[version]
    via, network = ip_address(gateway), ip_network(target)

    def routes() -> dict[str, tuple[str, int, int]]:
        found = [parse_route(it) for it in host.route.dump(dump_routes(version))]
        return {
            str(it.destination): (str(it.via), it.index, it.metric)
            for it in found
            if it.protocol == 4 and it.table == 254
        }

    host.route.call(add_bridge("br0", index=40, up=True))
    host.route.call(add_address(40, ip_interface(subnet)))
    default = "0.0.0.0/0" if version == 4 else "::/0"
    least = 0 if version == 4 else 1024  # IPv6's metric, if none is asked for
    host.route.call(
        add_route(None, via=via, version=version),
        add_route(network, via=via, metric=5),
        add_route(ip_network(f"{network[1]}"), index=40),
    )
    assert routes() == {
        default: (gateway, 40, least),
        target: (gateway, 40, 5),
        str(ip_network(f"{network[1]}")): ("None", 40, least),
    }
    with pytest.raises(NetlinkError, match=f"add route {target} via {gateway}: File"):
        host.route.call(add_route(network, via=via, metric=5))
    host.route.call(add_route(network, via=via + 1, metric=5, replace=True))
    assert routes()[target] == (str(via + 1), 40, 5)
    host.route.call(delete_route(network), delete_route(None, version=version))
    assert routes().keys() == {str(ip_network(f"{network[1]}"))}
    with pytest.raises(NetlinkError) as caught:
        host.route.call(delete_route(network))
    assert caught.value.errno == errno.ESRCH


def test_a_default_route_without_a_next_hop(host: Namespace) -> None:
    host.route.call(add_bridge("br0", index=40, up=True))
    host.route.call(add_route(None, index=40), add_route(None, index=40, version=6))
    for version in (4, 6):
        found = [parse_route(it) for it in host.route.dump(dump_routes(version))]
        defaults = [it for it in found if it.destination.prefixlen == 0]
        assert [(it.index, it.gatewayed) for it in defaults if it.protocol == 4] == [
            (40, False)
        ]


@pytest.mark.parametrize("address", [IPv4Address("10.1.0.9"), IPv6Address("fd00::9")])
def test_neighbours(host: Namespace, address: IPv4Address | IPv6Address) -> None:
    family = 2 if address.version == 4 else 10
    host.route.call(add_bridge("br0", index=40, up=True))
    for state, number in (("stale", 4), ("permanent", 0x80), ("reachable", 2)):
        host.route.call(set_neighbour(40, address, MAC, state=state))
        assert neighbours(host, family)[address.packed] == (MAC, number)
    host.route.call(set_neighbour(40, address, PEER_MAC))
    assert neighbours(host, family)[address.packed] == (PEER_MAC, 4)
    host.route.call(delete_neighbour(40, address))
    assert neighbours(host, family).get(address.packed, ("", 0))[0] == ""
    other = type(address)(int(address) + 1)
    host.route.call(delete_neighbour(40, other), delete_neighbour(41, address))


def test_forwarding_database_of_a_bridge(host: Namespace) -> None:
    host.route.call(
        add_bridge("br0", index=40, up=True), add_veth("v0", "v1", index=41, master=40)
    )
    host.route.call(set_fdb(41, MAC))
    request = Request(30, 0, NEIGHBOUR.pack(7, 0, 0, 0, 0), "list forwarding")
    found = [
        NEIGHBOUR.unpack_from(it.body)[1:3]
        for it in host.route.dump(request)
        if attributes(it.body, NEIGHBOUR.size)[2].hex(":") == MAC
    ]
    assert (41, 0x40) in found


def test_errors_of_a_batch_do_not_stop_it(host: Namespace) -> None:
    with pytest.raises(NetlinkError) as caught:
        host.route.call(
            add_bridge("br0"), add_bridge("br0"), add_bridge("br1"), delete_link(999)
        )
    assert (caught.value.index, caught.value.what) == (1, "add bridge br0")
    assert [it.errno for it in caught.value.others] == [errno.ENODEV]
    assert names(host) == {"br0", "br1"}


def test_large_batches_and_dumps(host: Namespace) -> None:
    host.route.call(add_bridge("br0", index=40, up=True))
    wanted = {ip_interface(f"10.1.{it // 250}.{it % 250 + 1}/32") for it in range(5000)}
    host.route.call(*(add_address(40, it) for it in wanted))
    found = host.route.dump(dump_addresses(40))
    assert {parse_address(it).interface for it in found} >= wanted


def test_a_link_type_that_the_kernel_does_not_have(
    host: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(add_link.__globals__["_FEATURES"], "cnm", "CONFIG_CNM")
    with pytest.raises(MissingFeature, match="this kernel lacks CONFIG_CNM") as caught:
        host.route.call(add_link("cnm", "x0", 0, False, b""))
    assert caught.value.feature == "CONFIG_CNM"


def without_capabilities(work: Callable[[], None]) -> None:
    """Run something in a thread that has dropped its capabilities (capset(2))."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).syscall(126, header, nothing) == 0
    work()


def test_an_unprivileged_process_is_told_so(host: Namespace) -> None:
    def work() -> None:
        with (
            NetlinkSocket() as socket,
            pytest.raises(MissingCapability, match=r"add bridge br0: .*CAP_NET_ADMIN"),
        ):
            socket.call(add_bridge("br0"))

    host.run(lambda: without_capabilities(work))
    assert names(host) == set()


def test_a_socket_stays_in_its_namespace(host: Namespace, box: Namespace) -> None:
    host.route.call(add_bridge("br0"))
    with box.run(NetlinkSocket) as socket:
        assert len(socket.dump(dump_links())) == 1
    assert list_tables(box.nft) == []
