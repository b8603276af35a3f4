"""A controller's table in the kernel: transactions, rebuilding, what others do."""

from __future__ import annotations

import threading
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from cnm.errors import ConflictError, InvalidError, NetlinkError
from cnm.firewall import (
    Element,
    Firewall,
    administration,
    completeness,
    table_name,
    tables,
)
from cnm.firewall.ruleset import ANY4, BRIDGES, CHAINS, PUB4, SAME, SETS, USER
from cnm.linux import NETLINK_NETFILTER, NetlinkSocket
from cnm.linux.nftables import (
    ACCEPT,
    DROP,
    PORT,
    PROTOCOL,
    Batch,
    Set,
    commit,
    expressions as ex,
    generation,
    jump,
    list_chains,
    list_elements,
    list_rules,
    list_sets,
)
from cnm.linux.nftables.sets import NFTA_SET_FLAGS
from cnm.linux.wire import attribute, attribute_list, be32, nested, string
from tests.integration.lab import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST = IPv4Address("10.1.0.2")
SECOND = IPv4Address("10.1.0.3")
WEB = Element(ANY4, ("tcp", 8080), (FIRST, 80))
DNS = Element(ANY4, ("udp", 5353), (FIRST, 53))


@pytest.fixture
def host() -> Iterator[Namespace]:
    with Namespace("host") as namespace:
        yield namespace


@pytest.fixture
def firewall() -> Firewall:
    return Firewall("cnm")


def in_kernel(host: Namespace, of: Set, table: str = "cnm") -> int:
    return len(list_elements(host.nft, table, of.name))


def test_names_of_tables() -> None:
    assert table_name("cnm") == "cnm"
    assert table_name("lab") == "cnm-lab"


def test_nothing_happens_before_the_first_rebuild(
    host: Namespace, firewall: Firewall
) -> None:
    firewall.update(host, add=[WEB, DNS])
    assert tables(host) == []
    assert not firewall.exists(host)
    firewall.rebuild(host)
    assert firewall.exists(host)
    assert in_kernel(host, ANY4) == 2


def test_a_firewall_that_is_off_never_touches_the_kernel() -> None:
    class Sockets:
        @property
        def nft(self) -> NetlinkSocket:
            pytest.fail("it wants to talk to the kernel")

    sockets, off = Sockets(), Firewall("cnm", enabled=False)
    off.update(sockets, add=[WEB, Element(BRIDGES, ("br1",))])
    off.rebuild(sockets)
    off.update(sockets, remove=[WEB], add=[DNS])
    assert not off.mend(sockets)
    assert not off.exists(sockets)
    off.remove(sockets)
    assert DNS in off
    assert WEB not in off
    assert off.bridges == ("br1",)
    assert not off.enabled


def test_the_bridges(host: Namespace, firewall: Firewall) -> None:
    assert list(firewall.bridges) == []
    bridges = [Element(BRIDGES, (name,)) for name in ("br1", "br0")]
    firewall.update(host, add=[WEB, *bridges])
    assert list(firewall.bridges) == ["br0", "br1"]
    firewall.update(host, remove=bridges[1:])
    assert list(firewall.bridges) == ["br1"]


def test_a_table_has_the_rule_set(host: Namespace, firewall: Firewall) -> None:
    firewall.rebuild(host)
    assert tables(host) == ["cnm"]
    assert [it.name for it in list_chains(host.nft, "cnm")] == list(CHAINS)
    assert sorted(it.name for it in list_sets(host.nft, "cnm")) == sorted(
        it.name for it in SETS
    )
    assert len(list_rules(host.nft, "cnm", "forward")) == 15


def test_updates_are_repeatable(host: Namespace, firewall: Firewall) -> None:
    firewall.rebuild(host)
    firewall.update(host, add=[WEB])
    firewall.update(host, add=[WEB, DNS])
    assert in_kernel(host, ANY4) == 2
    firewall.update(host, remove=[WEB])
    firewall.update(host, remove=[WEB])
    assert in_kernel(host, ANY4) == 1


def test_data_of_a_key_can_only_be_replaced_in_one_update(
    host: Namespace, firewall: Firewall
) -> None:
    other = Element(ANY4, WEB.key, (SECOND, 80))
    firewall.rebuild(host)
    firewall.update(host, add=[WEB])
    with pytest.raises(ConflictError, match=r"\('tcp', 8080\) in set 'any4'"):
        firewall.update(host, add=[other])
    # what belongs to somebody else is not removed, either
    firewall.update(host, remove=[other])
    assert in_kernel(host, ANY4) == 1
    firewall.update(host, remove=[WEB], add=[other])
    (element,) = list_elements(host.nft, "cnm", "any4")
    assert SECOND.packed in element


def test_an_update_is_atomic(host: Namespace, firewall: Firewall) -> None:
    firewall.update(host, add=[WEB])
    firewall.rebuild(host)
    nowhere = Element(SAME, ("br0", "br0"), jump("nowhere"))
    with pytest.raises(NetlinkError) as caught:
        firewall.update(host, add=[DNS, nowhere], remove=[WEB])
    assert caught.value.what == "add to set same"
    assert in_kernel(host, ANY4) == 1
    # nor has it been taken down
    firewall.rebuild(host)
    assert in_kernel(host, SAME) == 0
    assert in_kernel(host, ANY4) == 1


def test_a_wrong_value_is_found_before_it_is_taken_down(
    host: Namespace, firewall: Firewall
) -> None:
    with pytest.raises(InvalidError, match="70000 is not of type inet_service"):
        firewall.update(host, add=[Element(ANY4, ("tcp", 70000), (FIRST, 80))])
    with pytest.raises(InvalidError, match="does not fit set 'bridges'"):
        firewall.update(host, add=[Element(BRIDGES, ("br0", "br1"))])
    firewall.rebuild(host)


@pytest.mark.parametrize("gone", ["table", "element"])
def test_an_update_notices_that_something_is_gone(
    host: Namespace, firewall: Firewall, gone: str
) -> None:
    firewall.update(host, add=[WEB])
    firewall.rebuild(host)
    if gone == "table":
        Firewall("cnm").remove(host)
    else:
        batch = Batch("cnm")
        batch.delete_elements([WEB])
        commit(host.nft, batch)
    firewall.update(host, add=[DNS], remove=[WEB])
    assert in_kernel(host, ANY4) == 1
    assert len(list_chains(host.nft, "cnm")) == len(CHAINS)


def test_what_an_update_puts_back_is_told(host: Namespace, firewall: Firewall) -> None:
    """Others hear of a table that was gone, whoever has noticed it first."""
    firewall.rebuild(host)
    assert not firewall.mend(host)
    batch = Batch(firewall.table)
    batch.delete_table()
    commit(host.nft, batch)
    firewall.update(host, add=[Element(BRIDGES, ("front",))])
    assert firewall.exists(host)
    assert firewall.mend(host)
    assert not firewall.mend(host)


def vanish(host: Namespace, monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    """Have somebody delete the table once, just before elements of it are listed."""
    left = ["cnm"]

    def listed(nft: NetlinkSocket, table: str, name: str) -> list[bytes]:
        while left:
            batch = Batch(left.pop())
            batch.delete_table()
            commit(host.nft, batch)
        return list_elements(nft, table, name)

    monkeypatch.setattr(module, "list_elements", listed)


def test_a_table_that_goes_while_it_is_looked_at(
    host: Namespace, firewall: Firewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    firewall.update(host, add=[WEB])
    firewall.rebuild(host)
    vanish(host, monkeypatch, completeness)
    assert firewall.check(host) == ("it is gone",)


def test_a_table_that_goes_while_it_is_put_back(
    host: Namespace, firewall: Firewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    firewall.update(host, add=[WEB])
    firewall.rebuild(host)
    batch = Batch("cnm")
    batch.add_set(Set("theirs", (PORT,)))
    batch.add_rule(USER, ex.member(ex.DESTINATION_PORT, Set("theirs", (PORT,))))
    commit(host.nft, batch)
    vanish(host, monkeypatch, administration)
    firewall.rebuild(host)
    assert in_kernel(host, ANY4) == 1


def test_removal(host: Namespace, firewall: Firewall) -> None:
    firewall.remove(host)
    firewall.rebuild(host)
    other = Firewall("cnm-other")
    other.rebuild(host)
    firewall.remove(host)
    firewall.remove(host)
    assert tables(host) == ["cnm-other"]
    firewall.update(host, add=[WEB])
    assert tables(host) == ["cnm-other"]


def test_thousands_of_elements(host: Namespace, firewall: Firewall) -> None:
    elements = [
        Element(PUB4, (FIRST, "tcp", port), (SECOND, port)) for port in range(1, 5001)
    ]
    firewall.update(host, add=elements)
    firewall.rebuild(host)
    assert in_kernel(host, PUB4) == 5000
    firewall.update(host, remove=elements)
    assert in_kernel(host, PUB4) == 0


def test_threads_do_not_get_in_each_others_way(
    host: Namespace, firewall: Firewall
) -> None:
    firewall.rebuild(host)

    class Sockets:
        def __init__(self) -> None:
            self.nft = host.run(lambda: NetlinkSocket(NETLINK_NETFILTER))

    def publish(number: int) -> None:
        sockets = Sockets()
        with sockets.nft:
            for port in range(50):
                element = Element(PUB4, (FIRST, number, port), (SECOND, port))
                firewall.update(sockets, add=[element])
                if port % 10 == 0:
                    firewall.rebuild(sockets)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert in_kernel(host, PUB4) == 200
    firewall.rebuild(host)
    assert in_kernel(host, PUB4) == 200


def anonymous_set(batch: Batch, *ports: int) -> bytes:
    """Add ``{ 80, 443 }`` as nft(8) does; return the expression that looks into it."""
    name = "__set%d"
    definition = Set(name, (PORT,)).definition()
    parts = [
        be32(kind, 0x3) if kind == NFTA_SET_FLAGS else attribute(kind, data)
        for kind, data in attribute_list(definition)
    ]
    batch.add_raw_set(name, b"".join(parts))
    ident = len([it for it in batch.requests if "add set" in it.what])
    elements = [Element(Set(name, (PORT,)), (port,)).encoded for port in ports]
    body = string(2, name) + be32(4, ident) + nested(3, *elements)
    batch._append(12, 0x400, body, "add to anonymous set")
    look_up = nested(
        1, string(1, "lookup"), nested(2, string(1, name), be32(2, 8), be32(4, ident))
    )
    return ex.DESTINATION_PORT.load(8) + look_up


def test_what_the_administrator_did_survives(
    host: Namespace, firewall: Firewall
) -> None:
    firewall.update(host, add=[WEB])
    firewall.rebuild(host)
    blocked = Set("blocked", (PROTOCOL, PORT))
    admin = Batch("cnm")
    admin.add_chain("mine")
    admin.add_set(blocked)
    admin.add_set(Set("unused", (PORT,)))
    admin.add_elements([Element(blocked, ("tcp", 25)), Element(blocked, ("udp", 25))])
    admin.add_rule(USER, ex.verdict(jump("mine")))
    in_set = ex.member(ex.TRANSPORT_PROTOCOL + ex.DESTINATION_PORT, blocked)
    admin.add_rule("mine", in_set, ex.verdict(DROP))
    admin.add_rule(USER, anonymous_set(admin, 80, 443), ex.verdict(DROP))
    admin.add_rule("mine", anonymous_set(admin, 22), ex.verdict(ACCEPT))
    # a rule in a chain that is not the administrator's does not stay
    admin.add_rule("guard", anonymous_set(admin, 99), ex.verdict(DROP))
    commit(host.nft, admin)

    def contents() -> dict[str, object]:
        return {
            "user": list_rules(host.nft, "cnm", USER),
            "mine": list_rules(host.nft, "cnm", "mine"),
            "sets": [it for it in list_sets(host.nft, "cnm") if it.name in theirs],
            "elements": [sorted(list_elements(host.nft, "cnm", it)) for it in theirs],
        }

    theirs = ("blocked", "__set0", "__set1")
    before = contents()
    assert [len(it) for it in before["elements"]] == [2, 2, 1]  # type: ignore[attr-defined]
    for _ in range(2):
        firewall.rebuild(host)
        after = contents()
        assert after["user"] == before["user"]
        assert after["mine"] == before["mine"]
        assert after["elements"] == before["elements"]
    assert len(list_rules(host.nft, "cnm", "guard")) == 2
    names = {it.name for it in list_sets(host.nft, "cnm")}
    assert names == {*theirs, *(it.name for it in SETS)}
    # another run of the program finds the table, and does the same
    Firewall("cnm").rebuild(host)
    assert contents()["user"] == before["user"]
    assert in_kernel(host, ANY4) == 0


def test_a_commit_can_depend_on_nobody_having_been_faster(host: Namespace) -> None:
    batch = Batch("cnm")
    batch.add_table()
    before = generation(host.nft)
    commit(host.nft, batch, generation=before)
    assert generation(host.nft) != before
    with pytest.raises(NetlinkError, match="Interrupted system call"):
        commit(host.nft, batch, generation=before)
