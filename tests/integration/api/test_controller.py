"""Controllers: names, lifetimes, namespaces, cancellation."""

# ruff: noqa: ASYNC240, SIM117 - tests wait for the kernel, and may block

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest

import cnm
from cnm import Controller
from cnm.linux import dump_links, parse_link

from ...conftest import host_links, host_tables
from ..lab import Namespace, until_links
from .fakes import Slow
from .traffic import serving, tcp


async def test_one_of_a_name(controller: Controller) -> None:
    with pytest.raises(cnm.ConflictError, match="named 'cnm' runs on this host"):
        async with Controller():
            pass
    await controller.create_network("front")
    async with Controller("other") as other:
        network = await other.create_network("front")
        sandbox = await other.create_sandbox("box")
        await network.connect(sandbox)
        assert other.networks != controller.networks
        assert host_tables() == ["cnm", "cnm-other"]
    assert host_tables() == ["cnm"]
    assert [network.name for network in controller.networks] == ["front"]


async def test_controllers_side_by_side_carry_traffic(controller: Controller) -> None:
    async with Controller("other") as other:
        for each in (controller, other):
            network = await each.create_network("front", ipv6=True)
            one = await each.create_sandbox("one")
            two = await each.create_sandbox("two")
            await network.connect(one)
            endpoint = await network.connect(two)
            assert endpoint.address is not None
            async with serving(two):
                assert await tcp(one, endpoint.address.ip, timeout=1)
        subnets = [n.subnets[0] for c in (controller, other) for n in c.networks]
        assert not subnets[0].overlaps(subnets[1])


async def test_used_twice_and_again() -> None:
    controller = Controller("mine")
    assert repr(controller) == "<Controller 'mine', not running>"
    for _ in range(2):
        async with controller:
            with pytest.raises(RuntimeError, match="has already been entered"):
                async with controller:
                    pass
            await controller.create_network("front")
            assert "1 networks" in repr(controller)


async def test_use_outside_of_the_block() -> None:
    controller = Controller()
    uses: list[Callable[[], object]] = [
        lambda: controller.networks,
        lambda: controller.sandboxes,
        lambda: controller.network("x"),
        lambda: controller.sandbox("x"),
        lambda: controller.drivers,
        lambda: controller.subscribe(),
    ]
    for _ in range(2):
        for use in uses:
            with pytest.raises(cnm.ForbiddenError, match="use it in 'async with'"):
                use()
        with pytest.raises(cnm.ForbiddenError):
            await controller.create_network("x")
        with pytest.raises(cnm.ForbiddenError):
            await controller.create_sandbox("x")
        async with controller:
            pass


async def test_handles_outlive_their_controller(tmp_path: os.PathLike[str]) -> None:
    async with Controller() as controller:
        network = await controller.create_network("front")
        sandbox = await controller.create_sandbox("box")
        endpoint = await network.connect(sandbox)
    assert (network.name, endpoint.joined) == ("front", False)
    with pytest.raises(cnm.CNMError):
        await network.create_endpoint("ep")
    with pytest.raises(cnm.CNMError):
        await sandbox.run(["true"])
    with pytest.raises(cnm.CNMError):
        await endpoint.leave()


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        cnm.NetworkNotFound("x"),
        KeyboardInterrupt(),
        SystemExit(3),
        ExceptionGroup("mine", [ValueError("x")]),
    ],
)
async def test_exceptions_come_out_as_themselves(error: BaseException) -> None:
    before = host_links()
    caught: BaseException | None = None
    try:
        async with Controller() as controller:
            network = await controller.create_network("front")
            await network.connect(await controller.create_sandbox("box"))
            raise error
    except BaseException as exc:
        caught = exc
    assert caught is error
    assert host_links() == before
    error.__traceback__ = None  # it lives as long as the parameters


async def test_a_cancelled_body_leaves_nothing() -> None:
    before = host_links(), host_tables()
    with anyio.CancelScope() as scope:
        async with Controller() as controller:
            network = await controller.create_network("front")
            await network.connect(await controller.create_sandbox("box"))
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert (host_links(), host_tables()) == before


@pytest.mark.parametrize("what", ["network", "connect"])
async def test_what_is_being_made_when_it_stops(what: str) -> None:
    """It is made, and then removed with the rest."""
    slow = Slow()
    made: list[object] = []

    async def make(controller: Controller, box: cnm.Sandbox) -> None:
        if what == "network":
            made.append(await controller.create_network("late", "slow"))
        else:
            made.append(await controller.network("front").connect(box))

    async def hold(came: anyio.Event) -> None:
        name = "network.created" if what == "network" else "endpoint.joined"
        async with slow.held(name) as reached:
            came.set()
            await reached.wait()
            stopping.set()
            await anyio.wait_all_tasks_blocked()

    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks:
        async with Controller(drivers={"slow": slow}) as controller:
            await controller.create_network("front", "slow")
            box = await controller.create_sandbox("box")
            came = anyio.Event()
            tasks.start_soon(hold, came)
            await came.wait()
            tasks.start_soon(make, controller, box)
            await stopping.wait()
    assert len(made) == 1
    for kind in ("network", "endpoint"):
        told = [slow.calls.count(f"{kind}.{it}") for it in ("created", "deleted")]
        assert told[0] == told[1]


async def test_nothing_is_made_when_it_stops() -> None:
    async def make(controller: Controller) -> None:
        with suppress(cnm.UnavailableError, cnm.NetworkNotFound):
            for number in range(1000):
                box = await controller.create_sandbox(f"box{number}")
                await controller.network("front").connect(box)

    async with anyio.create_task_group() as tasks, Controller() as controller:
        directory = controller._services.run_dir
        await controller.create_network("front")
        tasks.start_soon(make, controller)
        with anyio.fail_after(10):
            while len(controller.sandboxes) < 3:
                await anyio.lowlevel.checkpoint()
        services = controller._services
    assert (tuple(services.sandboxes), tuple(services.networks)) == ((), ())
    assert not os.path.exists(directory)


async def test_another_namespace() -> None:
    before = host_links(), host_tables()
    with Namespace("elsewhere") as elsewhere:
        path = f"/proc/self/fd/{elsewhere.netns}"
        async with Controller(netns=path) as controller:
            network = await controller.create_network("front", ipv6=True)
            one = await controller.create_sandbox("one")
            two = await controller.create_sandbox("two")
            host = await controller.create_sandbox("host", netns="host")
            await network.connect(one)
            endpoint = await network.connect(two)
            assert endpoint.address is not None
            async with serving(two):
                assert await tcp(one, endpoint.address.ip)
                assert await tcp(host, endpoint.address.ip) == str(network.gateways[0])
            assert (host_links(), host_tables()) == before
            async with Controller() as same_name:  # another host network
                await same_name.create_network("front")
        links = elsewhere.route.dump(dump_links())
        assert [parse_link(link).name for link in links] == ["lo"]


@pytest.mark.parametrize("steps", [*range(0, 24, 2)])
async def test_cancelled_connects(controller: Controller, steps: int) -> None:
    """Cancelled at any point, a sandbox is connected, or as before."""
    first = await controller.create_network("first", subnets=["10.1.0.0/24"])
    second = await controller.create_network("a", subnets=["10.2.0.0/24"])
    sandbox = await controller.create_sandbox("box")
    await first.connect(sandbox)
    status = await second.ipam_status()
    scope = anyio.CancelScope()

    async def connect() -> None:
        with scope:
            await second.connect(sandbox)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connect)
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        scope.cancel()
    names = (await sandbox.run(["ls", "/sys/class/net"])).stdout.decode().split()
    if second.endpoints:
        assert second.endpoints[0].joined
        assert "eth1" in names
        assert sandbox.gateways[4].network is second
    else:
        assert len(sandbox.endpoints) == 1
        assert "eth1" not in names
        assert await second.ipam_status() == status
        endpoint = await second.connect(sandbox)
        assert endpoint.interface == "eth1"


@pytest.mark.parametrize("steps", [0, 1, 2, 4, 8, 12, 16])
async def test_cancelled_creation(controller: Controller, steps: int) -> None:
    await controller.create_network("warm")  # the driver is loaded by now
    before = host_links()

    async def create(scope: anyio.CancelScope) -> None:
        with scope:
            await controller.create_network("front", subnets=["10.9.0.0/24"])

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(create, scope)
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        scope.cancel()
    with suppress(cnm.NetworkNotFound):
        await controller.network("front").delete()
    await until_links(lambda: host_links() == before)
    await controller.create_network("front", subnets=["10.9.0.0/24"])


async def test_cancelled_removals_are_finished(controller: Controller) -> None:
    network = await controller.create_network("front")
    sandbox = await controller.create_sandbox("box")
    endpoint = await network.connect(sandbox)
    with anyio.CancelScope() as scope:
        scope.cancel()
        with suppress(BaseException):
            await endpoint.delete(force=True)
    assert endpoint.joined == (endpoint in network.endpoints)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await sandbox.delete()
    assert controller.sandboxes == ()
