from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, strategies as st
from pyroute2.netlink.nfnetlink.nftsocket import (
    nft_chain_msg,
    nft_rule_msg,
    nft_set_elem_list_msg,
    nft_set_msg,
    nft_table_msg,
)

from cnm.errors import InvalidError
from cnm.linux.nftables import (
    ACCEPT,
    DROP,
    FAMILY,
    INTERFACE,
    IPV4,
    IPV6,
    MARK,
    PORT,
    POSTROUTING,
    PROTOCOL,
    VERDICT,
    Batch,
    DataType,
    Element,
    Hook,
    Set,
    Value,
    expressions as ex,
    goto,
)
from cnm.linux.nftables.comments import decode_comment, encode_comment
from tests.unit.linux.oracle import decode, nested_attribute

PUBLISHED = Set("pub4", (IPV4, PROTOCOL, PORT), (IPV4, PORT))
JUMPS = Set("jumps", (INTERFACE,), (VERDICT,))
SUBNETS = Set("nets4", (IPV4,), interval=True)
RANGES = Set("range6", (IPV6, PROTOCOL, PORT), (IPV6,), interval=True)


def elements(*wanted: Element) -> list[object]:
    batch = Batch("cnm")
    batch.add_elements(wanted)
    (request,) = batch.requests
    message = decode(nft_set_elem_list_msg, request)
    assert message.get_attr("NFTA_SET_ELEM_LIST_TABLE") == "cnm"
    assert message.get_attr("NFTA_SET_ELEM_LIST_SET") == wanted[0].set.name
    found: list[object] = message.get_attr("NFTA_SET_ELEM_LIST_ELEMENTS")
    return found


def value(element: object, which: str) -> object:
    return nested_attribute(element, f"NFTA_SET_ELEM_{which}", "NFTA_DATA_VALUE")


def expressions(*parts: bytes) -> list[tuple[str, dict[str, object]]]:
    batch = Batch("cnm")
    batch.add_rule("forward", *parts)
    message = decode(nft_rule_msg, batch.requests[0])
    assert message.get_attr("NFTA_RULE_TABLE") == "cnm"
    assert message.get_attr("NFTA_RULE_CHAIN") == "forward"
    return [
        (
            it.get_attr("NFTA_EXPR_NAME"),
            {name: data for name, data, *_ in it.get_attr("NFTA_EXPR_DATA")["attrs"]},
        )
        for it in message.get_attr("NFTA_RULE_EXPRESSIONS")
    ]


def test_tables() -> None:
    batch = Batch("cnm-lab")
    batch.add_table()
    batch.delete_table()
    for request, kind in zip(batch.requests, (0, 2), strict=True):
        message = decode(nft_table_msg, request)
        assert message["header"]["type"] == 10 << 8 | kind
        assert message["nfgen_family"] == 1
        assert message.get_attr("NFTA_TABLE_NAME") == "cnm-lab"


def test_chains() -> None:
    batch = Batch("cnm")
    batch.add_chain("user")
    batch.add_chain("guard", Hook("filter", POSTROUTING, -300))
    plain, base = (decode(nft_chain_msg, request) for request in batch.requests)
    assert plain.get_attr("NFTA_CHAIN_NAME") == "user"
    assert plain.get_attr("NFTA_CHAIN_HOOK") is None
    assert base.get_attr("NFTA_CHAIN_TYPE") == "filter"
    assert base.get_attr("NFTA_CHAIN_POLICY") == 1
    hook = base.get_attr("NFTA_CHAIN_HOOK")
    assert hook.get_attr("NFTA_HOOK_HOOKNUM") == 4
    assert hook.get_attr("NFTA_HOOK_PRIORITY") == -300


@pytest.mark.parametrize(
    ("definition", "flags", "key", "data"),
    [
        (Set("s", (INTERFACE,)), set(), (41, 16), None),
        (Set("s", (PORT,)), set(), (13, 2), None),
        (JUMPS, {"NFT_SET_MAP"}, (41, 16), (0xFFFFFF00, 0)),
        (SUBNETS, {"NFT_SET_INTERVAL"}, (7, 4), None),
        (
            Set("s", (IPV4,), timeout=True),
            {"NFT_SET_TIMEOUT"},
            (7, 4),
            None,
        ),
        (
            PUBLISHED,
            {"NFT_SET_MAP", "NFT_SET_CONCAT"},
            (7 << 12 | 12 << 6 | 13, 12),
            (7 << 6 | 13, 8),
        ),
    ],
)
def test_sets(
    definition: Set, flags: set[str], key: tuple[int, int], data: tuple[int, int] | None
) -> None:
    batch = Batch("cnm")
    batch.add_set(definition)
    message = decode(nft_set_msg, batch.requests[0])
    attr = message.get_attr
    assert attr("NFTA_SET_NAME") == definition.name
    assert attr("NFTA_SET_FLAGS") == flags
    assert (attr("NFTA_SET_KEY_TYPE"), attr("NFTA_SET_KEY_LEN")) == key
    if data is None:
        assert attr("NFTA_SET_DATA_TYPE") is None
    else:
        assert (attr("NFTA_SET_DATA_TYPE"), attr("NFTA_SET_DATA_LEN")) == data
    assert attr("NFTA_SET_ID") == 1


@given(st.ip_addresses(v=4), st.integers(0, 65535), st.ip_addresses(v=4))
def test_elements_of_a_map(key: IPv4Address, port: int, to: IPv4Address) -> None:
    (element,) = elements(Element(PUBLISHED, (key, "udp", port), (to, port)))
    packed_port = port.to_bytes(2, "big") + b"\0\0"
    assert value(element, "KEY") == key.packed + b"\x11\0\0\0" + packed_port
    assert value(element, "DATA") == to.packed + packed_port


@pytest.mark.parametrize(
    ("verdict", "code", "chain"),
    [
        (ACCEPT, "NF_ACCEPT", None),
        (DROP, "NF_DROP", None),
        (goto("x"), "NFT_GOTO", "x"),
    ],
)
def test_elements_of_a_verdict_map(
    verdict: object, code: str, chain: str | None
) -> None:
    (element,) = elements(Element(JUMPS, ("br0",), verdict))  # type: ignore[arg-type]
    assert value(element, "KEY") == b"br0".ljust(16, b"\0")
    found = nested_attribute(element, "NFTA_SET_ELEM_DATA", "NFTA_DATA_VERDICT")
    assert found.get_attr("NFTA_VERDICT_CODE") == code
    assert found.get_attr("NFTA_VERDICT_CHAIN") == chain


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_intervals_of_one_field_are_two_elements(
    one: IPv4Address, other: IPv4Address
) -> None:
    first, last = sorted((one, other))
    found = elements(Element(SUBNETS, (first,), end=(last,)))
    assert value(found[0], "KEY") == first.packed
    if last == IPv4Address("255.255.255.255"):
        assert len(found) == 1
        return
    assert value(found[1], "KEY") == (last + 1).packed
    flags = nested_attribute(found[1], "NFTA_SET_ELEM_FLAGS")
    assert flags == {1}  # NFT_SET_ELEM_INTERVAL_END, whose name pyroute2 misses


def test_an_interval_up_to_the_last_address_has_no_end() -> None:
    last = IPv4Address("255.255.255.255")
    assert len(elements(Element(SUBNETS, (last,)))) == 1


def test_intervals_of_several_fields_are_one_element() -> None:
    low, high = IPv6Address("::"), IPv6Address("::ff")
    to = IPv6Address("fd00::1")
    (element,) = elements(
        Element(RANGES, (low, "tcp", 80), (to,), end=(high, "tcp", 90))
    )
    assert value(element, "KEY") == low.packed + b"\x06\0\0\0\0\x50\0\0"
    assert value(element, "KEY_END") == high.packed + b"\x06\0\0\0\0\x5a\0\0"
    assert value(element, "DATA") == to.packed


def test_timeouts() -> None:
    expiring = Set("seen", (IPV4,), timeout=True)
    (element,) = elements(Element(expiring, (IPv4Address(1),), timeout=1500))
    assert nested_attribute(element, "NFTA_SET_ELEM_TIMEOUT") == 1500


def test_many_elements_are_many_messages() -> None:
    names = Set("names", (INTERFACE,))
    wanted = [Element(names, (f"br{number}",)) for number in range(5000)]
    batch = Batch("cnm")
    batch.add_elements(wanted)
    found = [
        it
        for request in batch.requests
        for it in decode(nft_set_elem_list_msg, request).get_attr(
            "NFTA_SET_ELEM_LIST_ELEMENTS"
        )
    ]
    assert all(len(request.body) < 65536 for request in batch.requests)
    assert len(found) == 5000
    assert value(found[-1], "KEY") == b"br4999".ljust(16, b"\0")


def test_rules_look_properties_up_together() -> None:
    key = ex.DESTINATION4 + ex.TRANSPORT_PROTOCOL + ex.DESTINATION_PORT
    found = expressions(ex.destination_nat(key, PUBLISHED))
    names = [name for name, _ in found]
    assert names == ["meta", "cmp", "payload", "meta", "payload", "lookup", "nat"]
    registers = [found[2][1], found[3][1], found[4][1]]
    assert [
        list(it.values())[0 if "NFTA_PAYLOAD_DREG" in it else 1] for it in registers
    ] == [
        "NFT_REG32_00",
        "NFT_REG32_01",
        "NFT_REG32_02",
    ]
    assert found[5][1]["NFTA_LOOKUP_SET"] == "pub4"
    assert found[6][1] == {
        "NFTA_NAT_TYPE": "NFT_NAT_DNAT",
        "NFTA_NAT_FAMILY": 2,
        "NFTA_NAT_REG_ADDR_MIN": "NFT_REG32_00",
        "NFTA_NAT_REG_ADDR_MAX": "NFT_REG32_00",
        "NFTA_NAT_REG_PROTO_MIN": "NFT_REG32_01",
        "NFTA_NAT_REG_PROTO_MAX": "NFT_REG32_01",
    }


def test_comparisons() -> None:
    (load, compare) = expressions(ex.equal(ex.DESTINATION_PORT, 80))
    assert load[1]["NFTA_PAYLOAD_BASE"] == "NFT_PAYLOAD_TRANSPORT_HEADER"
    assert compare[1]["NFTA_CMP_OP"] == "NFT_CMP_EQ"
    assert nested_attribute(compare[1]["NFTA_CMP_DATA"], "NFTA_DATA_VALUE") == b"\0\x50"
    (_, compare) = expressions(ex.not_equal(ex.INPUT, "lo"))
    assert compare[1]["NFTA_CMP_OP"] == "NFT_CMP_NEQ"


def test_connections() -> None:
    found = expressions(ex.established(), ex.translated())
    assert [name for name, _ in found] == ["ct", "bitwise", "cmp"] * 2
    assert found[0][1]["NFTA_CT_KEY"] == "NFT_CT_STATE"
    assert found[3][1]["NFTA_CT_KEY"] == "NFT_CT_STATUS"
    mask = found[4][1]["NFTA_BITWISE_MASK"]
    assert nested_attribute(mask, "NFTA_DATA_VALUE") == (0x20).to_bytes(4, "little")


def test_marks() -> None:
    (load, select, compare) = expressions(ex.marked(0x10, 0xF0))
    assert load[1]["NFTA_META_KEY"] == "NFT_META_MARK"
    mask = nested_attribute(select[1]["NFTA_BITWISE_MASK"], "NFTA_DATA_VALUE")
    assert mask == (0xF0).to_bytes(4, sys.byteorder)
    mark = nested_attribute(compare[1]["NFTA_CMP_DATA"], "NFTA_DATA_VALUE")
    assert mark == (0x10).to_bytes(4, sys.byteorder)


def test_redirection() -> None:
    ports = Set("proxy", (PROTOCOL,), (PORT,))
    found = expressions(ex.redirect(ex.TRANSPORT_PROTOCOL, ports))
    assert [name for name, _ in found] == ["meta", "lookup", "redir"]
    assert found[1][1]["NFTA_LOOKUP_SET"] == "proxy"
    assert found[1][1]["NFTA_LOOKUP_DREG"] == "NFT_REG32_00"
    assert found[2][1] == {
        "NFTA_REDIR_REG_PROTO_MIN": "NFT_REG32_00",
        "NFTA_REDIR_REG_PROTO_MAX": "NFT_REG32_00",
    }


def test_rules_in_front_and_their_end() -> None:
    batch = Batch("filter", 2)
    batch.insert_rule("FORWARD", ex.counter(), comment="mine")
    batch.delete_rule("FORWARD", 7)
    insert, delete = (decode(nft_rule_msg, request) for request in batch.requests)
    assert insert["header"]["flags"] & 0xC00 == 0x400  # NLM_F_CREATE, not APPEND
    assert insert["nfgen_family"] == delete["nfgen_family"] == 2
    assert insert.get_attr("NFTA_RULE_CHAIN") == "FORWARD"
    assert b"\0\5mine\0" in batch.requests[0].body
    assert delete["header"]["type"] == 10 << 8 | 8
    assert delete.get_attr("NFTA_RULE_HANDLE") == 7


def test_comments() -> None:
    userdata = encode_comment("cnm:cnm from br0")
    assert userdata == b"\0\x11cnm:cnm from br0\0"
    assert decode_comment(userdata) == "cnm:cnm from br0"
    # NFTNL_UDATA_RULE_EBTABLES_POLICY comes first
    assert decode_comment(b"\1\4abcd" + userdata) == "cnm:cnm from br0"
    assert decode_comment(b"\1\4abcd") == decode_comment(b"") == ""


def test_names_as_iptables_has_them() -> None:
    (load, compare) = expressions(ex.named(ex.OUTPUT, "br0"))
    assert load[1]["NFTA_META_KEY"] == "NFT_META_OIFNAME"
    name = nested_attribute(compare[1]["NFTA_CMP_DATA"], "NFTA_DATA_VALUE")
    assert name == b"br0\0"


def test_random_numbers() -> None:
    lb = Set("lb4", (IPV4, MARK), (IPV4,))
    found = expressions(ex.destination_nat(ex.DESTINATION4 + ex.random_number(64), lb))
    (numgen,) = [data for name, data in found if name == "numgen"]
    assert numgen["NFTA_NG_MODULUS"] == 64
    assert numgen["NFTA_NG_TYPE"] == "NFT_NG_RANDOM"


def test_verdict_maps() -> None:
    (_, lookup) = expressions(ex.verdict_map(ex.OUTPUT, JUMPS))
    assert lookup[1]["NFTA_LOOKUP_DREG"] == "NFT_REG_VERDICT"


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (INTERFACE, ""),
        (INTERFACE, "x" * 16),
        (INTERFACE, 3),
        (IPV4, IPv6Address("::1")),
        (IPV6, IPv4Address("10.0.0.1")),
        (IPV4, "10.0.0.1"),
        (PORT, 65536),
        (PORT, -1),
        (PROTOCOL, "http"),
        (PROTOCOL, 256),
        (FAMILY, "ipx"),
        (MARK, 1 << 32),
        (VERDICT, 1),
    ],
)
def test_values_are_checked(kind: DataType, wrong: Value) -> None:
    with pytest.raises(InvalidError, match=f"is not of type {kind.name}"):
        kind.pack(wrong)


def test_the_number_of_fields_is_checked() -> None:
    with pytest.raises(InvalidError, match=r"ipv4_addr \. inet_proto \. inet_service"):
        Element(PUBLISHED, ("tcp", 80))
    with pytest.raises(InvalidError, match="no data"):
        Element(SUBNETS, (IPv4Address(1),), (80,))
