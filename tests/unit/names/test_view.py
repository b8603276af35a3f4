"""Which names a sandbox sees."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from cnm.dns.records import Found, Target
from cnm.dns.view import Membership, SandboxView
from cnm.dns.zone import Host, Zone
from cnm.types import IPAddress, ServiceRecord

WEB4, WEB6 = ip_address("10.1.0.2"), ip_address("fd00:1::2")
DB, OTHER = ip_address("10.1.0.3"), ip_address("10.2.0.3")


def host(*names: str, at: tuple[IPAddress, ...]) -> Host:
    return Host(names=names, addresses=at)


class World:
    """Two networks, ``front`` and ``back.lab``, and a sandbox on both."""

    def __init__(self, **links: str) -> None:
        self.front, self.back = Zone("front"), Zone("Back.LAB")
        self.front.add("web", host("web", "www", "shared", at=(WEB4, WEB6)))
        self.front.add("db", host("db", "shared", "*.app", at=(DB,)))
        self.back.add("db2", host("db", "a.b", at=(OTHER,)))
        self.changes = 0
        self.view = SandboxView(self.changed)
        self.view.show(
            [
                Membership(zone=self.front, links=links),
                Membership(zone=self.back, links={}),
            ],
            {"printer": (ip_address("192.0.2.9"),)},
        )
        self.changes = 0

    def changed(self) -> None:
        self.changes += 1

    def addresses(self, name: str, kind: str = "A") -> list[str] | None:
        found = self.view.find(name, kind)
        return None if found is None else [str(each) for each in found.addresses]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web", "A", ["10.1.0.2"]),
        ("web", "AAAA", ["fd00:1::2"]),
        ("www", "A", ["10.1.0.2"]),
        ("web", "HTTPS", []),
        ("db", "AAAA", []),
        ("shared", "A", ["10.1.0.2", "10.1.0.3"]),
        # the first network that has a name has the say
        ("db", "A", ["10.1.0.3"]),
        ("db.front", "A", ["10.1.0.3"]),
        ("db.back.lab", "A", ["10.2.0.3"]),
        ("a.b", "A", ["10.2.0.3"]),
        ("a.b.back.lab", "A", ["10.2.0.3"]),
        ("web.back.lab", "A", None),
        ("printer", "A", ["192.0.2.9"]),
        ("printer", "AAAA", []),
        ("x.app", "A", ["10.1.0.3"]),
        ("x.y.app", "A", ["10.1.0.3"]),
        ("x.app.front", "A", ["10.1.0.3"]),
        ("app", "A", None),
        ("xapp", "A", None),
        ("nobody", "A", None),
        ("front", "A", None),
        ("", "A", None),
        (".front", "A", None),
    ],
)
def test_names(name: str, kind: str, expected: list[str] | None) -> None:
    assert World().addresses(name, kind) == expected


def test_links_are_ones_own_and_go_first() -> None:
    world = World(db="web", store="db", lost="nobody")
    assert world.addresses("db") == ["10.1.0.2"]
    assert world.addresses("db.front") == ["10.1.0.2"]
    assert world.addresses("store") == ["10.1.0.3"]
    assert world.addresses("lost") is None
    assert World().addresses("store") is None


def test_a_host_goes_before_a_wildcard() -> None:
    world = World()
    world.front.add("x", host("x.app", at=(WEB4,)))
    assert world.addresses("x.app") == ["10.1.0.2"]
    assert world.addresses("y.app") == ["10.1.0.3"]
    world.front.add("z", host("*.y.app", at=(OTHER,)))
    assert world.addresses("x.y.app") == ["10.2.0.3"]
    world.front.remove("db")
    assert world.addresses("y.app") is None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (WEB4, ("web.front",)),
        (WEB6, ("web.front",)),
        (OTHER, ("db.back.lab",)),
        (ip_address("10.1.0.9"), None),
    ],
)
def test_addresses_have_names(address: IPAddress, expected: object) -> None:
    found = World().view.find(address.reverse_pointer, "PTR")
    assert (found and found.names) == expected


@pytest.mark.parametrize(
    "name",
    ["in-addr.arpa", "x.in-addr.arpa", "1.2.3.in-addr.arpa", "0.ip6.arpa", "ip6.arpa"],
)
def test_what_is_no_address_is_not_ours(name: str) -> None:
    assert World().view.find(name, "PTR") is None


def test_services() -> None:
    world = World()
    http = ServiceRecord(name="_http._tcp.Web", target="WEB", port=80, weight=5)
    world.front.serve([http, ServiceRecord(name="_http._tcp.web", texts=("v=1",))])
    target = Target(host="web.front", port=80, weight=5, addresses=(WEB4, WEB6))
    for name in ("_http._tcp.web", "_http._tcp.web.front"):
        assert world.view.find(name, "SRV") == Found(services=(target,))
        assert world.view.find(name, "TXT") == Found(texts=("v=1",))
        assert world.view.find(name, "A") == Found()
    world.front.remove("web")
    found = world.view.find("_http._tcp.web", "SRV")
    assert found is not None
    assert found.services[0].addresses == ()
    world.front.serve([])
    assert world.view.find("_http._tcp.web", "SRV") is None


def test_whoever_sees_a_name_hears_of_changes() -> None:
    world = World()
    world.back.add("other", host("other", at=(DB,)))
    assert world.changes == 0  # nobody has looked yet
    assert world.addresses("new") is None
    world.back.add("new", host("new", at=(DB,)))
    assert (world.changes, world.addresses("new")) == (1, ["10.1.0.3"])
    world.back.remove("new")
    world.back.remove("new")
    assert (world.changes, world.addresses("new")) == (2, None)
    world.back.serve([])
    assert (world.changes, world.addresses("web")) == (3, ["10.1.0.2"])
    world.view.show([Membership(zone=world.front, links={})], {})
    assert world.changes == 4
    world.back.add("new", host("new", at=(DB,)))
    assert (world.changes, world.addresses("new")) == (4, None)
    assert world.addresses("printer") is None


def test_a_host_that_changes() -> None:
    world = World()
    world.front.add("web", host("web2", at=(OTHER,)))
    assert world.addresses("web") is None
    assert world.addresses("shared") == ["10.1.0.3"]
    assert world.addresses("web2") == ["10.2.0.3"]
    assert world.view.find(WEB4.reverse_pointer, "PTR") is None


def test_names_without_a_dot_may_be_kept() -> None:
    world = World()
    memberships = [Membership(zone=world.front, links={})]
    world.view.show(memberships, {}, keeps_single=True)
    assert world.addresses("nobody") == []
    assert world.addresses("nobody", "AAAA") == []
    assert world.view.find("nobody", "MX") is None
    assert world.addresses("no.body") is None
