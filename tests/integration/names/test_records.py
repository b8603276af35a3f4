"""Who sees which names."""

# ruff: noqa: ASYNC230 - tests may block

from __future__ import annotations

import dns.flags
import dns.rcode
import pytest

import cnm

from .ask import NameServer, ask, resolve


async def test_all_names_of_a_sandbox(controller: cnm.Controller) -> None:
    front = await controller.create_network(
        "front.lab", subnets=["10.9.0.0/24", "fd00:9::/64"]
    )
    api = await controller.create_sandbox("api")
    db = await controller.create_sandbox("db", hostname="pg-01")
    await front.connect(api)
    await front.connect(db, name="endpoint", aliases=["Postgres", "a.b", "*.app"])
    for name in ("db", "endpoint", "postgres", "a.b", "pg-01", db.id[:12]):
        for asked in (name, name.upper(), f"{name}.front.lab", f"{name}.FRONT.lab."):
            assert await resolve(api, asked) == ["10.9.0.3"], asked
            assert await resolve(api, asked, "AAAA") == ["fd00:9::3"], asked
    assert await resolve(api, "x.app") == ["10.9.0.3"]
    assert await resolve(api, "x.y.app.front.lab") == ["10.9.0.3"]
    assert await resolve(api, "3.0.9.10.in-addr.arpa", "PTR") == ["db.front.lab."]
    # its own name, too
    assert await resolve(db, "db") == ["10.9.0.3"]


@pytest.mark.parametrize("name", ["a..b", "x" * 64])
async def test_an_address_without_a_name_that_dns_can_have(
    controller: cnm.Controller, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    box = await controller.create_sandbox(name, hostname="box")
    endpoint = await front.connect(box, name="web")
    assert endpoint.address
    answer = await ask(box, endpoint.address.ip.reverse_pointer, "PTR")
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    assert caplog.text == ""


async def test_a_name_of_ours_is_never_asked_elsewhere(
    upstream: NameServer, controller: cnm.Controller
) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    api = await controller.create_sandbox("api")
    await front.connect(api)
    for kind in ("AAAA", "MX", "HTTPS", "TXT", "SRV", "ANY"):
        assert await resolve(api, "api", kind) == []
    assert upstream.asked == []
    assert await resolve(api, "known.example") == ["192.0.2.80"]
    assert upstream.asked == ["known.example."]


async def test_names_come_with_connect_and_go_with_disconnect(
    upstream: NameServer, controller: cnm.Controller
) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    api = await controller.create_sandbox("api")
    await front.connect(api)
    for number in range(20):
        other = await controller.create_sandbox(f"other{number}")
        assert await resolve(api, other.name) == "NXDOMAIN"
        endpoint = await front.connect(other, aliases=["other"])
        assert endpoint.address is not None
        assert await resolve(api, "other") == [str(endpoint.address.ip)]
        assert await resolve(other, "api") == ["10.9.0.2"]
        await (front.disconnect(other) if number % 2 else other.delete())
        assert await resolve(api, "other") == "NXDOMAIN"
        assert await resolve(api, f"other{number}.front") == "NXDOMAIN"


async def test_only_those_on_the_network_see_a_name(
    upstream: NameServer, controller: cnm.Controller
) -> None:
    front = await controller.create_network("front", subnets=["10.1.0.0/24"])
    back = await controller.create_network("back", subnets=["10.2.0.0/24"])
    web, both, db = [
        await controller.create_sandbox(name) for name in ("web", "both", "db")
    ]
    await front.connect(web)
    await front.connect(both, aliases=["here"])
    await back.connect(both, aliases=["there"])
    await back.connect(db)
    assert await resolve(web, "both") == ["10.1.0.3"]
    assert await resolve(db, "both") == ["10.2.0.2"]
    for hidden in ("db", "db.back", "there", "both.back"):
        assert await resolve(web, hidden) == "NXDOMAIN", hidden
    assert await resolve(both, "web") == ["10.1.0.2"]
    assert await resolve(both, "db") == ["10.2.0.3"]
    assert await resolve(both, "both.back") == ["10.2.0.2"]
    assert await resolve(web, "3.0.2.10.in-addr.arpa", "PTR") == "NXDOMAIN"
    # what is joined later is seen by those who are there, and what leaves is not
    endpoint = await back.connect(web)
    assert await resolve(web, "db") == ["10.2.0.3"]
    await endpoint.delete(force=True)
    assert await resolve(web, "db") == "NXDOMAIN"


async def test_several_endpoints_of_one_alias_take_turns(
    controller: cnm.Controller,
) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    boxes = [await controller.create_sandbox(f"box{number}") for number in range(4)]
    for box in boxes:
        await front.connect(box, aliases=["web"])
    firsts = []
    for _ in range(8):
        (rrset,) = (await ask(boxes[0], "web")).answer
        addresses = [str(rdata) for rdata in rrset]
        assert sorted(addresses) == [f"10.9.0.{number}" for number in range(2, 6)]
        firsts.append(addresses[0])
    assert sorted(firsts) == sorted([f"10.9.0.{number}" for number in range(2, 6)] * 2)
    await front.disconnect(boxes[3])
    assert len(await resolve(boxes[0], "web")) == 3


async def test_more_addresses_than_fit(controller: cnm.Controller) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    sandboxes = [await controller.create_sandbox(f"box{n}") for n in range(50)]
    for each in sandboxes:
        await front.connect(each, aliases=["web"])
    box = sandboxes[0]
    short = await ask(box, "web")
    assert short.flags & dns.flags.TC
    assert len(short.to_wire()) <= 512
    assert 20 < len(short.answer[0]) < 50
    for answer in (await ask(box, "web", edns=4096), await ask(box, "web", tcp=True)):
        assert not answer.flags & dns.flags.TC
        assert len(answer.answer[0]) == 50


async def test_links_are_for_their_own_sandbox(
    upstream: NameServer, controller: cnm.Controller
) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    api = await controller.create_sandbox("api")
    db = await controller.create_sandbox("db")
    await front.connect(db)
    endpoint = await front.connect(api, links={"Storage": "DB"})
    assert await resolve(api, "storage") == ["10.9.0.2"]
    assert await resolve(db, "storage") == "NXDOMAIN"
    assert dict(endpoint.info.links) == {"Storage": "DB"}


async def test_extra_hosts_and_the_host(controller: cnm.Controller) -> None:
    inner = await controller.create_network(
        "inner", subnets=["10.8.0.0/24"], internal=True
    )
    front = await controller.create_network(
        "front", subnets=["10.9.0.0/24", "fd00:9::/64"]
    )
    box = await controller.create_sandbox(
        "box",
        extra_hosts={"printer": "192.0.2.9", "Host.Docker.Internal": "host-gateway"},
    )
    await inner.connect(box)
    name = "host.docker.internal"
    assert await resolve(box, "printer") == ["192.0.2.9"]
    assert await resolve(box, name) == []
    await front.connect(box)
    assert await resolve(box, name) == ["10.9.0.1"]
    assert await resolve(box, name, "AAAA") == ["fd00:9::1"]
    with open(box.hosts_path, encoding="utf-8") as file:
        assert "10.9.0.1\tHost.Docker.Internal\n" in file.read()
    await front.disconnect(box)
    assert await resolve(box, name) == []
    with open(box.hosts_path, encoding="utf-8") as file:
        assert "Host.Docker" not in file.read()


async def test_services(controller: cnm.Controller) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    api = await controller.create_sandbox("api")
    await front.connect(api)
    one = await front.services.add("_http._tcp.web", target="api", port=80, priority=1)
    two = await front.services.add("_http._tcp.web", texts=['a "b"', "ünder"])
    assert tuple(front.services) == (one, two)
    answer = await ask(api, "_HTTP._tcp.web.front", "SRV")
    assert [str(rdata) for rdata in answer.answer[0]] == ["1 0 80 api.front."]
    assert [str(rdata) for rdata in answer.additional[0]] == ["10.9.0.2"]
    texts = (await ask(api, "_http._tcp.web", "TXT")).answer[0]
    assert [rdata.strings[0].decode() for rdata in texts] == ['a "b"', "ünder"]
    with pytest.raises(cnm.ConflictError, match="already"):
        await front.services.add("_HTTP._tcp.web", target="Api", port=80, priority=1)
    with pytest.raises(cnm.InvalidError, match="name: expected a string, not None"):
        await front.services.remove(None)  # type: ignore[arg-type]
    await front.services.remove("_http._tcp.WEB")
    assert len(front.services) == 0
    assert (await ask(api, "_http._tcp.web", "SRV")).rcode() != dns.rcode.NOERROR


async def test_a_configuration_has_no_services(controller: cnm.Controller) -> None:
    conf = await controller.create_network("conf", config_only=True)
    with pytest.raises(cnm.ForbiddenError, match="'conf' has no services"):
        await conf.services.add("_http._tcp", target="api", port=80)


BAD_SERVICES = [
    ({"name": ""}, "name: expected a name"),
    ({"name": "a b"}, "name: invalid name 'a b'"),
    ({"target": "-x"}, "target: invalid name '-x'"),
    ({"port": 65536}, "port: expected 0 to 65535, not 65536"),
    ({"port": 0}, "port: expected 1 to 65535 with a target, not 0"),
    ({"weight": -1}, "weight: expected 0 to 65535, not -1"),
    ({"priority": True}, "priority: expected an integer"),
    ({"texts": "abc"}, "texts: expected a list"),
    ({"texts": ["x" * 256]}, "texts: expected at most 255 bytes, not 'xxx"),
    ({"target": "", "port": 0}, "target, texts: expected one of them"),
]


@pytest.mark.parametrize(("wrong", "message"), BAD_SERVICES)
async def test_bad_services(
    controller: cnm.Controller, wrong: dict[str, object], message: str
) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    arguments = {"name": "_http._tcp", "target": "api", "port": 80, **wrong}
    with pytest.raises(cnm.InvalidError) as info:
        await front.services.add(**arguments)  # type: ignore[arg-type]
    assert message in str(info.value)
    assert len(front.services) == 0


BAD_NAMES = [
    ({"aliases": ["*"]}, "aliases: invalid name '*'"),
    ({"aliases": ["*."]}, "aliases: expected a name"),
    ({"aliases": ["a.*.b"]}, "aliases: invalid name 'a.*.b'"),
    ({"links": {"a b": "db"}}, "links: invalid name 'a b'"),
    ({"links": {"a": ""}}, "links['a']: expected a name"),
    ({"links": ["a"]}, "links: expected a mapping"),
]


@pytest.mark.parametrize(("wrong", "message"), BAD_NAMES)
async def test_bad_names(
    controller: cnm.Controller, wrong: dict[str, object], message: str
) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    with pytest.raises(cnm.InvalidError) as info:
        await front.create_endpoint("x", **wrong)  # type: ignore[arg-type]
    assert message in str(info.value)
