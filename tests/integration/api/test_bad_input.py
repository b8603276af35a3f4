"""Bad input: what is refused, how it is said, and that nothing is left."""

from __future__ import annotations

import errno
from typing import Any

import pytest

import cnm
from cnm import Controller, PortRequest
from cnm.linux import NetlinkSocket

from ...conftest import host_links
from .traffic import serving, tcp

LONG = "x" * 10_000
NET = "10.9.0.0/24"

#: What is wrong with a parameter is found before anything is awaited.
ONE_BACKEND = pytest.mark.parametrize("anyio_backend", ["asyncio"])

NETWORKS: list[tuple[dict[str, Any], str]] = [
    ({"name": 5}, "name: expected a string, not 5"),
    ({"name": LONG}, "name: expected at most 255 characters, not 10000"),
    ({"name": "nétz"}, "name: expected letters.*'nétz'"),
    ({"name": "-x"}, "name: expected letters.*'-x'"),
    ({"name": "a\n"}, "name: expected letters"),
    ({"driver": None}, "driver: expected a string, not None"),
    ({"driver": LONG}, "driver: expected at most 255"),
    ({"ipam": 5}, "ipam: expected a string, not 5"),
    ({"ipam": "null"}, "bridge networks need addresses"),
    ({"subnets": NET}, "subnets: expected a list, not '10.9.0.0/24'"),
    ({"subnets": 5}, "subnets: expected a list, not 5"),
    ({"subnets": [5]}, "subnets: expected a string, not 5"),
    ({"subnets": [""]}, "subnets: invalid subnet ''"),
    ({"subnets": [LONG]}, "subnets: invalid subnet 'xxx"),
    ({"subnets": ["10.9.0.0"]}, "expected a prefix length"),
    ({"subnets": ["10.9.0.1/24"]}, "10.9.0.1/24: it should be 10.9.0.0/24"),
    ({"subnets": ["10.9.0.0/33"]}, "invalid subnet '10.9.0.0/33'"),
    ({"subnets": ["fd00::1/64"]}, "fd00::1/64: it should be fd00::/64"),
    ({"subnets": ["224.0.0.0/24"]}, "multicast subnet '224.0.0.0/24'"),
    ({"subnets": ["127.1.0.0/24"]}, "loopback subnet '127.1.0.0/24'"),
    ({"subnets": ["126.0.0.0/7"]}, r"loopback subnet '126.0.0.0/7'.*127.0.0.0/8"),
    ({"subnets": ["192.0.0.0/2"]}, r"multicast subnet '192.0.0.0/2'.*224.0.0.0/4"),
    ({"subnets": ["255.255.255.255/32"]}, "broadcast subnet '255.255.255.255/32'"),
    ({"subnets": ["255.255.255.254/31"]}, "broadcast subnet '255.255.255.254/31'"),
    ({"subnets": ["::1/128"]}, "loopback subnet '::1/128'"),
    ({"subnets": ["::fffe:0:0/95"]}, "IPv4-mapped subnet '::fffe:0:0/95'"),
    ({"subnets": ["f000::/4"]}, "multicast subnet 'f000::/4'"),
    ({"driver": "ptp", "subnets": ["169.254.0.0/16"]}, "cannot be routed"),
    ({"driver": "ptp", "subnets": ["fe80::/64"]}, "cannot be routed"),
    ({"subnets": ["fe80::/60"]}, "clashes with the Link-Local prefix"),
    ({"subnets": [NET, NET]}, "10.9.0.0/24 overlaps 10.9.0.0/24"),
    ({"subnets": [NET, "10.9.0.0/16"]}, "10.9.0.0/16 overlaps 10.9.0.0/24"),
    ({"subnets": [NET, "10.8.0.0/24"]}, "doesn't support multiple subnets"),
    ({"subnets": ["fd00::/64"], "ipv6": False}, "fd00::/64 is given, but ipv6"),
    ({"subnets": [NET], "ipv4": False, "ipv6": True}, "10.9.0.0/24 is given, but ipv4"),
    ({"gateways": ["10.9.0.1"]}, "it needs a subnet"),
    ({"subnets": [NET], "gateways": ["10.8.0.1"]}, "10.9.0.0/24 doesn't contain"),
    ({"subnets": [NET], "gateways": ["x"]}, "gateways: invalid address 'x'"),
    (
        {"subnets": [NET], "gateways": ["10.9.0.1", "10.9.0.2"]},
        "10.9.0.2 and 10.9.0.1 are both of 10.9.0.0/24",
    ),
    ({"subnets": [NET], "ip_ranges": ["10.0.0.0/8"]}, "bigger than its parent subnet"),
    ({"subnets": [NET], "ip_ranges": ["10.8.0.0/25"]}, "doesn't contain ip-range"),
    ({"subnets": [NET], "ip_ranges": ["10.9.0.1/25"]}, "invalid ip-range 10.9.0.1/25"),
    ({"subnets": [NET], "aux_addresses": {"a": "10.8.0.1"}}, "auxiliary address a"),
    ({"subnets": [NET], "aux_addresses": ["10.9.0.1"]}, "expected a mapping"),
    ({"ipv4": False}, "IPv4 or IPv6 must be enabled"),
    ({"ipv4": "yes"}, "ipv4: expected True or False, not 'yes'"),
    ({"internal": 1}, "internal: expected True or False, not 1"),
    ({"labels": {"a": 5}}, r"labels\['a'\]: expected a string, not 5"),
    ({"labels": {5: "a"}}, "labels: expected keys.*not 5"),
    ({"labels": {LONG: "a"}}, "labels: expected keys of 1 to 255"),
    ({"options": "mtu=5"}, "options: expected a mapping, not 'mtu=5'"),
    ({"options": {"mtu": object()}}, "expected a JSON value"),
    ({"options": {"mtuu": 5}}, r"unknown option 'mtuu'; did you mean 'mtu'\?.*known:"),
    ({"options": {LONG: 5}}, "options: expected keys of 1 to 255 characters"),
    ({"options": {LONG[:200]: 5}}, "unknown option 'xxx"),
    ({"options": {"mtu": 5}}, "failed to parse mtu value: 5.*68 to 65535"),
    ({"options": {"mtu": True}}, "failed to parse mtu value: True"),
    ({"options": {"mtu": 1000}, "ipv6": True}, "mtu 1000 is too small"),
    (
        {"options": {"mtu": 1500, "com.docker.network.driver.mtu": 1500}},
        "'mtu' is given twice",
    ),
    ({"options": {"name": "sixteen-bytes-xx"}}, "has 16 bytes; the kernel allows 15"),
    ({"options": {"name": "a b"}}, "invalid interface name 'a b'"),
    ({"options": {"enable_icc": "no"}}, "failed to parse enable_icc value: 'no'"),
    ({"options": {"gateway_mode_ipv4": "fast"}}, "expected one of nat, nat-unp"),
    ({"options": {"gateway_mode_ipv4": "isolated"}}, "only be used for an internal"),
    ({"options": {"host_ipv4": "::1"}}, "expected an IPv4 address"),
    ({"options": {"host_ipv6": "::1"}}, "the network has no IPv6"),
    ({"options": {"advertise_addr_ms": 99}}, "from 100 to 2000"),
    ({"options": {"container_iface_prefix": "twelve-bytes"}}, "no room for a number"),
    ({"options": {"mac": "01:00:00:00:00:01"}}, "must be unicast"),
    ({"config_from": 5}, "config_from: expected a string, not 5"),
    ({"options": {"name": "lo"}}, "existing interface 'lo' is not a bridge"),
    (
        {
            "internal": True,
            "subnets": [NET],
            "aux_addresses": {"DefaultGatewayIPv4": "10.9.0.9"},
        },
        "DefaultGatewayIPv4 is not for internal networks",
    ),
    (
        {"subnets": [NET], "aux_addresses": {"DefaultGatewayIPv6": "10.9.0.9"}},
        "DefaultGatewayIPv6: expected an IPv6 address, not 10.9.0.9",
    ),
    ({"subnets": ["::ffff:10.9.0.0/120"]}, "IPv4-mapped subnet '::ffff:.*' is not"),
]


@ONE_BACKEND
@pytest.mark.parametrize(("wrong", "what"), NETWORKS)
async def test_networks(
    controller: Controller, wrong: dict[str, Any], what: str
) -> None:
    links = host_links()
    with pytest.raises(cnm.InvalidError, match=what) as caught:
        await controller.create_network(**{"name": "front", **wrong})
    assert all(problem for problem in caught.value.problems)
    assert len(str(caught.value)) < 1000
    assert (controller.networks, host_links()) == ((), links)
    await controller.create_network("front", subnets=[NET])


@pytest.mark.parametrize(
    "subnet", ["255.255.255.0/24", "240.0.0.0/24", "0.1.0.0/16", "169.254.0.0/16"]
)
async def test_what_works_is_not_refused(controller: Controller, subnet: str) -> None:
    network = await controller.create_network("front", subnets=[subnet])
    boxes = [await controller.create_sandbox(name) for name in ("one", "two")]
    for box in boxes:
        await network.connect(box)
    async with serving(boxes[0]):
        one, two = (it.address.ip for it in network.endpoints if it.address)
        assert await tcp(boxes[1], one) == str(two)


async def test_all_problems_of_a_network_are_told_at_once(
    controller: Controller,
) -> None:
    with pytest.raises(cnm.InvalidError) as caught:
        await controller.create_network(
            "",
            subnets=["10.9.0.1/24", "bad", "10.8.0.0/24"],
            gateways=["10.7.0.1"],
            labels={"a": 5},  # type: ignore[dict-item]
            internal="no",  # type: ignore[arg-type]
        )
    assert len(caught.value.problems) == 6
    with pytest.raises(cnm.InvalidError) as caught:
        await controller.create_network("n", options={"mtu": -1, "b": 1, "c": 2})
    assert len(caught.value.problems) == 3


ENDPOINTS: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name is empty"),
    ({"name": None}, "name: expected a string, not None"),
    ({"name": LONG}, "name: expected at most 255"),
    ({"address": 5}, "address: expected a string, not 5"),
    ({"address": ""}, "address: invalid address ''"),
    ({"address": "10.9.0.5/24"}, "address: invalid address '10.9.0.5/24'"),
    ({"address": "fd00:9::5"}, "address: expected an IPv4 address, not fd00:9::5"),
    ({"address6": "10.9.0.5"}, "address6: expected an IPv6 address"),
    ({"address6": "fe80::1%eth0"}, "must have no zone"),
    ({"address": "10.8.0.5"}, "invalid address 10.8.0.5.*10.9.0.0/24"),
    ({"mac": 5}, "mac: expected a string, not 5"),
    ({"mac": "02:00"}, "invalid MAC address '02:00'"),
    ({"mac": "ff:ff:ff:ff:ff:ff"}, "must be unicast"),
    ({"link_local": ["10.0.0.1"]}, "invalid link-local address '10.0.0.1'"),
    ({"link_local": "169.254.0.1"}, "link_local: expected a list"),
    ({"aliases": ["a b"]}, "aliases: invalid name 'a b'"),
    ({"aliases": [""]}, "aliases: "),
    ({"aliases": "db"}, "aliases: expected a list, not 'db'"),
    ({"ports": ["80", 80.5]}, "ports: expected .*, not 80.5"),
    ({"ports": [PortRequest(container_port=0)]}, "ports: .* from 1 to 65535"),
    ({"ports": "80:80"}, "ports: expected a list, not '80:80'"),
    ({"exposed": ["80/x"]}, "exposed: .*protocol 'x'"),
    ({"publish_all": "yes"}, "publish_all: expected True or False"),
    ({"labels": {"a": None, "b": 1}}, r"labels\['b'\]"),
    ({"options": {"nothing": 1}}, r"unknown option 'nothing' \(known: none\)"),
    ({"gateway_priority": "1"}, "gateway_priority: expected an integer, not '1'"),
    ({"gateway_priority": True}, "gateway_priority: expected an integer, not True"),
    ({"interface_name": "x" * 16}, "has 16 bytes; the kernel allows 15"),
    ({"interface_name": "a/b"}, "invalid interface name 'a/b'"),
    ({"interface_name": "é"}, "invalid interface name 'é'"),
    ({"sysctls": {"net.ipv4.ip_forward": "1"}}, "unrecognised network interface"),
    ({"sysctls": {"net.ipv4.conf.eth0.x": "1"}}, "'net.ipv4.conf.eth0.x'; represent"),
    ({"sysctls": {"net.ipv4.conf.IFNAME.x": "a\nb"}}, "expected 1 to 255 ASCII"),
    (
        {"options": {"com.docker.network.endpoint.sysctls": "net.ipv4"}},
        "expected 'net.X.Y.IFNAME.Z=V', not 'net.ipv4'",
    ),
    (
        {
            "sysctls": {"net.ipv6.conf.IFNAME.disable_ipv6": "1"},
            "address6": "fd00:9::5",
        },
        "a sysctl disables IPv6",
    ),
]


@ONE_BACKEND
@pytest.mark.parametrize(("wrong", "what"), ENDPOINTS)
async def test_endpoints(
    controller: Controller, wrong: dict[str, Any], what: str
) -> None:
    network = await controller.create_network("front", subnets=[NET, "fd00:9::/64"])
    before = await network.ipam_status()
    with pytest.raises(cnm.InvalidError, match=what):
        await network.create_endpoint(**{"name": "ep", **wrong})
    assert network.endpoints == ()
    assert await network.ipam_status() == before


async def test_addresses_in_use(controller: Controller) -> None:
    network = await controller.create_network("front", subnets=[NET])
    await network.create_endpoint("one", address="10.9.0.5")
    before = await network.ipam_status()
    for taken in ("10.9.0.5", "10.9.0.1"):
        with pytest.raises(cnm.AddressInUse, match=taken.replace(".", r"\.")):
            await network.create_endpoint("two", address=taken)
    assert await network.ipam_status() == before


async def test_exhausted_network(controller: Controller) -> None:
    network = await controller.create_network("tiny", subnets=["10.9.0.0/30"])
    await network.create_endpoint("one")
    with pytest.raises(
        cnm.NoAvailableAddress,
        match=f"no available IPv4 addresses.*: tiny .{network.id[:12]}",
    ):
        await network.create_endpoint("two")
    await network.endpoint("one").delete()
    await network.create_endpoint("two")


async def test_subnets_in_use(controller: Controller) -> None:
    await controller.create_network("front", subnets=[NET], options={"name": "br0"})
    with pytest.raises(cnm.PoolOverlap, match=r"10\.9\.0\.0"):
        await controller.create_network("back", subnets=["10.9.0.128/25"])
    with pytest.raises(cnm.CNMError, match="same bridge name"):
        await controller.create_network("back", options={"name": "br0"})
    await controller.create_network("back", subnets=["10.8.0.0/24"])


SANDBOXES: list[tuple[dict[str, Any], str]] = [
    ({"name": " "}, "name is empty"),
    ({"name": b"x"}, "name: expected a string, not b'x'"),
    ({"name": "x/y"}, "name: expected letters"),
    ({"hostname": LONG}, "hostname: expected at most 253 characters, not 10000"),
    ({"hostname": "a" * 64}, "hostname: invalid name"),
    ({"hostname": "a b"}, "hostname: invalid name 'a b'"),
    ({"domainname": "a..b"}, "domainname: invalid name 'a..b'"),
    ({"dns": ["dns.google"]}, "dns: invalid address 'dns.google'"),
    ({"dns": "8.8.8.8"}, "dns: expected a list"),
    ({"dns_search": ["a b"]}, "dns_search: expected 1 to 253 ASCII"),
    ({"dns_search": ["a\nnameserver 1.2.3.4"]}, "dns_search: expected"),
    ({"dns_options": [5]}, "dns_options: expected a string, not 5"),
    ({"extra_hosts": {"a b": "10.0.0.1"}}, "extra_hosts: invalid name 'a b'"),
    ({"extra_hosts": {"a": "nowhere"}}, "invalid address 'nowhere'"),
    ({"netns": "relative"}, "netns: expected an absolute path.*'relative'"),
    ({"netns": True}, "netns: expected an absolute path.*True"),
    ({"netns": -5}, "netns: expected an absolute path.*-5"),
    ({"netns": "/a\0b"}, "netns: expected an absolute path"),
    ({"netns": "/" + LONG}, "has no network namespace"),
]


@ONE_BACKEND
@pytest.mark.parametrize(("wrong", "what"), SANDBOXES)
async def test_sandboxes(
    controller: Controller, wrong: dict[str, Any], what: str
) -> None:
    with pytest.raises(cnm.InvalidError, match=what):
        await controller.create_sandbox(**{"name": "box", **wrong})
    assert controller.sandboxes == ()


CONTROLLERS: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name: expected 1 to 32 lower-case"),
    ({"name": "Upper"}, "not 'Upper'"),
    ({"name": "x" * 33}, "name: expected 1 to 32"),
    ({"name": "../x"}, "not '../x'"),
    ({"store": "file.db"}, "store: expected a Store, not 'file.db'"),
    ({"netns": "relative"}, "netns: expected an absolute path, not 'relative'"),
    ({"netns": 5}, "netns: expected an absolute path, not 5"),
    ({"netns": "/a\0b"}, "netns: "),
    ({"address_pools": "10.0.0.0/8:24"}, "address_pools: expected a list"),
    ({"address_pools": ["10.0.0.0/8"]}, "invalid address pool '10.0.0.0/8'"),
    ({"address_pools": ["10.0.0.0/8:4"]}, "must be from 8 to 32, not 4"),
    ({"address_pools": ["ff00::/8:64"]}, "address_pools: multicast subnet 'ff00::/8'"),
    ({"address_pools": [("10.0.0.0/8", "24")]}, "expected an integer, not '24'"),
    ({"run_dir": 5}, "run_dir: expected a path, not 5"),
    ({"drivers": ["bridge"]}, "drivers: expected a mapping"),
]


@pytest.mark.parametrize(("wrong", "what"), CONTROLLERS)
def test_controllers(wrong: dict[str, Any], what: str) -> None:
    with pytest.raises(cnm.InvalidError, match=what):
        Controller(**wrong)


async def test_address_pools() -> None:
    pools: list[str | tuple[str, int]] = ["10.64.0.0/15:16", ("fd00:7::/48", 64)]
    async with Controller(address_pools=pools) as controller:
        made = [await controller.create_network(f"n{n}", ipv6=n == 0) for n in (0, 1)]
        assert [str(s) for network in made for s in network.subnets] == [
            "10.64.0.0/16",
            "fd00:7::/64",
            "10.65.0.0/16",
        ]
        with pytest.raises(cnm.NoAvailablePool):
            await controller.create_network("n3")
        await made[0].delete()
        again = await controller.create_network("n3")
        assert [str(subnet) for subnet in again.subnets] == ["10.64.0.0/16"]


async def test_no_such_namespace() -> None:
    with pytest.raises(cnm.KernelError, match="/no/such/namespace: No such file"):
        async with Controller(netns="/no/such/namespace"):
            pass
    with pytest.raises(cnm.KernelError, match="not a network namespace"):
        async with Controller(netns="/etc/hostname"):
            pass


async def test_no_privilege(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnm.linux.privileges.effective_capabilities", lambda: 1 << 12)
    with pytest.raises(cnm.MissingCapability, match="CAP_SYS_ADMIN") as caught:
        async with Controller():
            pass
    assert caught.value.capability == "CAP_SYS_ADMIN"
    assert isinstance(caught.value, PermissionError | cnm.ForbiddenError)


async def test_the_kernel_lacks_bridges(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = NetlinkSocket.call

    def refuse(self: NetlinkSocket, *requests: Any) -> Any:
        for request in requests:
            if b"bridge\0" in bytes(request.body):
                raise cnm.NetlinkError(errno.EOPNOTSUPP, "add bridge br0")
        return call(self, *requests)

    with monkeypatch.context() as patch:
        patch.setattr(NetlinkSocket, "call", refuse)
        with pytest.raises(cnm.KernelError, match="add bridge") as caught:
            await controller.create_network("front", subnets=[NET])
        assert caught.value.errno == errno.EOPNOTSUPP
    await controller.create_network("front", subnets=[NET])


async def test_faults_of_the_core_and_of_the_driver_come_together(
    controller: Controller,
) -> None:
    with pytest.raises(cnm.InvalidError) as caught:
        await controller.create_network(
            "front",
            subnets=["10.9.0.1/24"],
            labels={"a": 1},  # type: ignore[dict-item]
            options={"enable_icx": False, "mtu": "big"},
        )
    assert len(caught.value.problems) == 4
    for word in ("10.9.0.1/24", "labels", "enable_icx", "mtu"):
        assert word in str(caught.value)
    assert controller.networks == ()
