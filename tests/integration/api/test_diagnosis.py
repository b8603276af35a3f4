"""What the controller finds that keeps traffic from flowing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import cnm
from cnm import diagnosis
from cnm.linux import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    delete_link,
    get_link,
    namespaces,
    parse_link,
    set_link,
    sysctl,
)
from cnm.linux.nftables import FORWARD, Batch, commit, expressions as ex, jump
from cnm.linux.nftables.batch import (
    NFTA_CHAIN_HOOK,
    NFTA_CHAIN_NAME,
    NFTA_CHAIN_POLICY,
    NFTA_CHAIN_TYPE,
)
from cnm.linux.wire import be32, nested, string
from tests.integration.lab import Namespace, in_thread
from tests.integration.publishing.reach import none_reached, reach

from .conftest import HOST4
from .traffic import serving

# include/uapi/linux/netfilter.h
IPV4 = 2


@contextmanager
def foreign_firewall(*chains: str) -> Iterator[None]:
    """Have iptables drop what is forwarded, as dockerd or an administrator does."""
    batch = Batch("filter", IPV4)
    batch.add_table()
    for name in chains:
        batch.add_chain(name)
    batch.add_raw_chain(
        "FORWARD",
        string(NFTA_CHAIN_NAME, "FORWARD")
        + nested(NFTA_CHAIN_HOOK, be32(1, FORWARD), be32(2, 0))
        + be32(NFTA_CHAIN_POLICY, 0)
        + string(NFTA_CHAIN_TYPE, "filter"),
    )
    if "DOCKER-USER" in chains:
        batch.add_rule("FORWARD", ex.verdict(jump("DOCKER-USER")))
    with NetlinkSocket(NETLINK_NETFILTER) as nft:
        commit(nft, batch)
        yield
        batch = Batch("filter", IPV4)
        batch.delete_table()
        commit(nft, batch)


def subjects(findings: tuple[cnm.Finding, ...]) -> list[str]:
    return [finding.subject for finding in findings]


async def test_all_is_well(controller: cnm.Controller) -> None:
    assert await controller.diagnose() == ()
    network = await controller.create_network("front", ipv6=True)
    await network.connect(await controller.create_sandbox("box"))
    assert await controller.diagnose() == ()


async def test_links(controller: cnm.Controller) -> None:
    await controller.create_network("front", options={"name": "br-front"})
    await controller.create_network("back", options={"name": "br-back"})
    with NetlinkSocket() as route:
        index = parse_link(route.call(get_link(name="br-front"))[0]).index
        route.call(set_link(index, up=False))
        route.call(delete_link(name="br-back"))
    found = {it.subject: it for it in await controller.diagnose()}
    assert found.keys() == {"network 'front'", "network 'back'"}
    front, back = found["network 'front'"], found["network 'back'"]
    assert "is down" in front.problem
    assert "ip link set br-front up" in front.advice
    assert "deleted" in back.problem
    assert {front.severity, back.severity} == {"error"}


async def test_sandboxes(controller: cnm.Controller) -> None:
    box = await controller.create_sandbox("box")
    in_thread(lambda: namespaces.unpin(box.key))
    (finding,) = await controller.diagnose()
    assert finding.subject == "sandbox 'box'"
    assert box.key in finding.problem


async def test_forwarding(controller: cnm.Controller) -> None:
    await controller.create_network("front")
    in_thread(lambda: sysctl.write("net.ipv4.ip_forward", "0"))
    (finding,) = await controller.diagnose()
    assert finding.advice == "Switch it on: sysctl -w net.ipv4.ip_forward=1"
    assert str(finding).startswith("error: net.ipv4.ip_forward: the host does not")
    in_thread(lambda: sysctl.write("net.ipv4.ip_forward", "1"))


@pytest.mark.parametrize(
    ("chains", "advice"),
    [((), "iptables"), (("DOCKER-USER", "DOCKER-FORWARD"), "DOCKER-USER")],
)
async def test_other_firewalls(
    outside: Namespace, chains: tuple[str, ...], advice: str
) -> None:
    with foreign_firewall(*chains):
        async with cnm.Controller() as controller:
            network = await controller.create_network(
                "front", subnets=["10.9.0.0/24"], options={"name": "br-front"}
            )
            box = await controller.create_sandbox("box")
            await network.connect(box, ports=["8080:80"])
            (finding,) = await controller.diagnose()
            assert "FORWARD" in finding.subject
            assert "manage_forward" in finding.advice
            assert advice in finding.advice
            async with serving(box):
                assert await none_reached([(outside, HOST4, 8080, "tcp")]) == {}
        async with cnm.Controller(manage_forward=True) as controller:
            network = await controller.create_network(
                "front", subnets=["10.9.0.0/24"], options={"name": "br-front"}
            )
            box = await controller.create_sandbox("box")
            await network.connect(box, ports=["8080:80"])
            assert await controller.diagnose() == ()
            async with serving(box):
                assert await reach(outside, HOST4, 8080) == "203.0.113.2"
            await box.delete()
            await network.delete()


async def test_too_many_connections(
    controller: cnm.Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"net.netfilter.nf_conntrack_max": "100"}
    values["net.netfilter.nf_conntrack_count"] = "95"
    monkeypatch.setattr(diagnosis, "_setting", lambda name: values.get(name, "1"))
    (finding,) = await controller.diagnose()
    assert finding.severity == "warning"
    assert "95 of 100" in finding.problem
