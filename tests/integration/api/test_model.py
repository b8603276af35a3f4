"""libnetwork's acceptance tests of the model: names, rules, typed errors."""

# ruff: noqa: ASYNC240 - tests may block

from __future__ import annotations

import os

import anyio
import pytest

import cnm
from cnm import Controller

from ...conftest import host_links
from .fakes import FakeDriver

SUBNET = ["10.9.0.0/24"]


async def test_names_are_not_blank_and_unique(controller: Controller) -> None:
    for blank in ("", "   "):
        with pytest.raises(cnm.InvalidError, match="name is empty"):
            await controller.create_network(blank)
    await controller.create_network("front")
    with pytest.raises(
        cnm.NameConflict, match="network with name 'front' already exists"
    ):
        await controller.create_network("front")
    await controller.create_sandbox("web")
    with pytest.raises(cnm.NameConflict, match="sandbox with name 'web'"):
        await controller.create_sandbox("web")


async def test_unknown_driver_leaves_nothing(controller: Controller) -> None:
    with pytest.raises(cnm.DriverNotFound, match=r"'brigde' not found.*bridge"):
        await controller.create_network("front", driver="brigde", subnets=SUBNET)
    assert controller.networks == ()
    await controller.create_network("front", subnets=SUBNET)


async def test_network_with_endpoints_stays(controller: Controller) -> None:
    network = await controller.create_network("front", subnets=SUBNET)
    endpoint = await network.create_endpoint("ep")
    with pytest.raises(cnm.ActiveEndpointsError, match="name:'ep' id:") as caught:
        await network.delete()
    assert caught.value.endpoints == ("ep",)
    await endpoint.delete()
    await network.delete()
    await network.delete()
    with pytest.raises(cnm.NetworkNotFound):
        await network.create_endpoint("late")


async def test_forced_deletion_of_a_network(controller: Controller) -> None:
    network = await controller.create_network("front", subnets=SUBNET)
    sandbox = await controller.create_sandbox("web")
    endpoint = await network.connect(sandbox)
    await network.delete(force=True)
    assert (controller.networks, sandbox.endpoints) == ((), ())
    assert not endpoint.joined
    again = await controller.create_network("front", subnets=SUBNET)
    await again.connect(sandbox, interface_name="eth0")


async def test_duplicate_endpoint_name(controller: Controller) -> None:
    network = await controller.create_network("testnetwork")
    await network.create_endpoint("ep1")
    before = await network.ipam_status()
    with pytest.raises(
        cnm.NameConflict,
        match="endpoint with name 'ep1' already exists in network testnetwork",
    ):
        await network.create_endpoint("ep1")
    assert await network.ipam_status() == before


async def test_deleting_a_joined_endpoint(controller: Controller) -> None:
    network = await controller.create_network("front", subnets=SUBNET)
    sandbox = await controller.create_sandbox("web")
    endpoint = await network.connect(sandbox, address="10.9.0.7")
    with pytest.raises(cnm.ActiveSandboxError, match="has active containers"):
        await endpoint.delete()
    assert endpoint.joined
    await endpoint.delete(force=True)
    result = await sandbox.run(["ls", "/sys/class/net"])
    assert b"eth0" not in result.stdout
    await endpoint.delete(force=True)
    with pytest.raises(cnm.EndpointNotFound):
        await endpoint.join(sandbox)
    await network.create_endpoint("again", address="10.9.0.7")


async def test_joining_twice(controller: Controller) -> None:
    network = await controller.create_network("front")
    one = await controller.create_sandbox("one")
    two = await controller.create_sandbox("two")
    endpoint = await network.connect(one)
    for sandbox in (one, two):
        with pytest.raises(
            cnm.ActiveSandboxError,
            match="another container is attached to the same network endpoint",
        ):
            await endpoint.join(sandbox)
    await endpoint.leave()
    await endpoint.join(two)
    assert (endpoint.sandbox, one.endpoints, two.endpoints) == (two, (), (endpoint,))


async def test_leaving_twice(controller: Controller) -> None:
    network = await controller.create_network("front")
    sandbox = await controller.create_sandbox("web")
    endpoint = await network.connect(sandbox)
    await endpoint.leave()
    with pytest.raises(cnm.ForbiddenError, match="with no attached sandbox"):
        await endpoint.leave()
    with pytest.raises(cnm.EndpointNotFound):
        await network.disconnect(sandbox)  # an endpoint that is not joined is kept
    assert network.endpoints == (endpoint,)


@pytest.mark.parametrize("wrong", [None, "web", 5, object()])
async def test_joining_what_is_no_sandbox(
    controller: Controller, wrong: object
) -> None:
    network = await controller.create_network("front")
    endpoint = await network.create_endpoint("ep")
    with pytest.raises(cnm.InvalidError, match="invalid sandbox"):
        await endpoint.join(wrong)  # type: ignore[arg-type]
    with pytest.raises(cnm.InvalidError, match="sandbox"):
        await network.connect(wrong)  # type: ignore[arg-type]
    with pytest.raises(cnm.InvalidError, match="sandbox"):
        await network.disconnect(wrong)  # type: ignore[arg-type]
    assert network.endpoints == (endpoint,)


async def test_joining_a_deleted_sandbox(controller: Controller) -> None:
    network = await controller.create_network("front")
    sandbox = await controller.create_sandbox("web")
    await sandbox.delete()
    endpoint = await network.create_endpoint("ep")
    with pytest.raises(cnm.CNMError):
        await endpoint.join(sandbox)
    with pytest.raises(cnm.SandboxNotFound):
        await sandbox.run(["true"])


@pytest.mark.parametrize("extra", ["internal", "attachable"])
async def test_configuration_networks_have_no_operator_fields(
    controller: Controller, extra: str
) -> None:
    with pytest.raises(cnm.ForbiddenError, match="network specific fields"):
        await controller.create_network("conf", config_only=True, **{extra: True})  # type: ignore[arg-type]


async def test_configuration_networks(controller: Controller) -> None:
    conf = await controller.create_network(
        "conf", config_only=True, subnets=SUBNET, options={"mtu": 1400}
    )
    with pytest.raises(cnm.ForbiddenError, match="configuration-only"):
        await conf.create_endpoint("ep")
    with pytest.raises(cnm.ForbiddenError, match="cannot depend on another"):
        await controller.create_network("c2", config_only=True, config_from="conf")
    for more in (
        {"subnets": SUBNET},
        {"labels": {"a": "b"}},
        {"ipv6": True},
        {"ipam_options": {"serial": True}},
    ):
        with pytest.raises(cnm.ForbiddenError, match="user-specified"):
            await controller.create_network("net", config_from="conf", **more)
    with pytest.raises(cnm.ForbiddenError, match="driver options"):
        await controller.create_network("n", config_from="conf", options={"mtu": 1280})
    with pytest.raises(cnm.NetworkNotFound, match="no configuration network"):
        await controller.create_network("net", config_from="nothing")
    network = await controller.create_network("net", config_from="conf")
    assert [str(subnet) for subnet in network.subnets] == SUBNET
    assert network.options == {"mtu": 1400}
    with pytest.raises(cnm.ForbiddenError, match="'conf' is in use"):
        await conf.delete()
    await network.delete()
    await conf.delete()
    assert controller.networks == ()


async def test_host_sandboxes_share_their_key(controller: Controller) -> None:
    one = await controller.create_sandbox("one", netns="host")
    two = await controller.create_sandbox("two", netns="host")
    own = await controller.create_sandbox("own")
    assert one.key == two.key != own.key
    await one.delete()
    assert os.path.exists(two.key)
    links = host_links()
    result = await two.run(["ls", "/sys/class/net"])
    assert result.stdout.decode().split() == links
    await two.delete()
    assert host_links() == links
    assert not os.path.exists(two.key)


async def test_parallel(controller: Controller) -> None:
    networks = [await controller.create_network(f"net{n}") for n in range(3)]

    async def work(number: int) -> None:
        sandbox = await controller.create_sandbox(f"box{number}")
        for network in networks:
            endpoint = await network.create_endpoint(f"ep{number}")
            await endpoint.join(sandbox)
        for network in networks:
            endpoint = network.endpoint(f"ep{number}")
            await endpoint.leave()
            await endpoint.delete()
        await sandbox.delete()

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(work, number)
    assert controller.sandboxes == ()
    for network in networks:
        assert network.endpoints == ()
        await network.delete()


async def test_failing_driver_gives_addresses_back() -> None:
    fake = FakeDriver()
    async with Controller(drivers={"fake": fake}) as controller:
        fake.fail["network.created"] = RuntimeError("no")
        with pytest.raises(cnm.DriverError, match=r"'fake' failed.*network.created"):
            await controller.create_network("net", "fake", subnets=SUBNET)
        fake.fail.clear()
        network = await controller.create_network("net", "fake", subnets=SUBNET)
        fake.fail["endpoint.created"] = RuntimeError("no")
        with pytest.raises(cnm.DriverError, match=r"endpoint.created: no"):
            await network.create_endpoint("ep", address="10.9.0.9")
        fake.fail.clear()
        endpoint = await network.create_endpoint("ep", address="10.9.0.9")
        assert str(endpoint.address) == "10.9.0.9/24"


async def test_names_that_look_like_ids(controller: Controller) -> None:
    first = await controller.create_network("first")
    prefix = await controller.create_network(first.id[:12])
    assert controller.network(first.id[:12]) is prefix  # a name beats a prefix
    assert controller.network(first.id[:11]) is first
    whole = await controller.create_network(first.id)
    assert controller.network(first.id) is first  # a full id beats a name
    assert controller.network(whole.id) is whole
    with pytest.raises(cnm.NetworkNotFound, match="network 'nothing' not found"):
        controller.network("nothing")
    for wrong in ("", " ", None, 5):
        with pytest.raises(cnm.InvalidError, match="invalid network name or id"):
            controller.network(wrong)  # type: ignore[arg-type]


async def test_lookup_of_sandboxes_and_endpoints(controller: Controller) -> None:
    network = await controller.create_network("front")
    sandbox = await controller.create_sandbox("web", labels={"tier": "1"})
    endpoint = await network.connect(sandbox, aliases=["www"], labels={"a": "b"})
    assert controller.sandbox("web") is controller.sandbox(sandbox.id[:20]) is sandbox
    assert network.endpoint("web") is network.endpoint(endpoint.id[:20]) is endpoint
    assert (sandbox.labels, endpoint.labels) == ({"tier": "1"}, {"a": "b"})
    assert endpoint.aliases == ("www",)
    with pytest.raises(cnm.EndpointNotFound, match=r"in network|not found"):
        network.endpoint("nothing")
    with pytest.raises(cnm.SandboxNotFound):
        controller.sandbox("nothing")
    assert len(sandbox.id) == 64
    inspected = await endpoint.inspect()
    assert inspected["mac"] == endpoint.mac


async def test_one_of_a_hundred_wins(controller: Controller) -> None:
    outcomes: list[str] = []

    async def create() -> None:
        try:
            await controller.create_network("front", subnets=SUBNET)
            outcomes.append("made")
        except cnm.NameConflict:
            outcomes.append("conflict")

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(create)
    assert sorted(outcomes) == ["conflict"] * 99 + ["made"]


async def test_a_hundred_join_at_once(controller: Controller) -> None:
    network = await controller.create_network("front", subnets=SUBNET)

    async def connect(number: int) -> None:
        sandbox = await controller.create_sandbox(f"box{number}")
        await network.connect(sandbox)

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(connect, number)
    assert len({endpoint.address for endpoint in network.endpoints}) == 100
    assert len({endpoint.mac for endpoint in network.endpoints}) == 100
