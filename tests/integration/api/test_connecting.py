"""Creating an endpoint and joining it in one operation."""

from __future__ import annotations

import threading
from functools import partial

import anyio
import anyio.to_thread
import pytest

import cnm
from cnm.driver import EndpointCreated, EndpointState, hookimpl
from cnm.linux import Placement
from cnm.testing.fakes import MAC

from .fakes import FakeDriver
from .test_drivers import SUBNET, running


class Prompt(FakeDriver):
    """Awaits nothing to create an endpoint, and waits before it makes an interface."""

    def __init__(self) -> None:
        super().__init__()
        self.plugging, self.go_on = threading.Event(), threading.Event()

    @hookimpl
    async def cnm_endpoint_created(self, event: EndpointCreated) -> EndpointState:
        self.calls.append(event.name)
        return EndpointState(mac=event.endpoint.mac or MAC)

    def plug(self, placement: Placement) -> None:
        self.plugging.set()
        self.go_on.wait()
        super().plug(placement)


async def test_a_forced_deletion_while_a_sandbox_is_connected() -> None:
    fake = Prompt()
    async with running(fake) as controller:
        network = await controller.create_network("net", "fake", subnets=[SUBNET])
        sandbox = await controller.create_sandbox("box")
        kinds = cnm.EndpointEvent, cnm.NetworkDeleted
        async with (
            controller.subscribe(*kinds) as events,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(network.connect, sandbox)
            await anyio.to_thread.run_sync(fake.plugging.wait)
            tasks.start_soon(partial(network.delete, force=True))
            await anyio.wait_all_tasks_blocked()
            assert "network.deleted" not in fake.calls
            fake.go_on.set()
            heard = [await anext(events) for _ in range(5)]
        assert [it.name for it in heard] == [
            *("endpoint.created", "endpoint.joined", "endpoint.left"),
            *("endpoint.deleted", "network.deleted"),
        ]
        assert sandbox.endpoints == ()


async def test_who_cannot_be_connected_has_never_been() -> None:
    fake = Prompt()
    fake.go_on.set()
    async with running(fake) as controller:
        network = await controller.create_network("net", "fake", subnets=[SUBNET])
        sandbox = await controller.create_sandbox("box")
        async with controller.subscribe() as events:
            fake.fail["plan"] = RuntimeError("no")
            with pytest.raises(RuntimeError):
                await network.connect(sandbox, address="10.9.0.5")
            fake.fail.clear()
            assert (network.endpoints, sandbox.endpoints) == ((), ())
            await network.connect(sandbox, address="10.9.0.5")
            heard = [await anext(events) for _ in range(2)]
        assert [it.name for it in heard] == ["endpoint.created", "endpoint.joined"]
        assert fake.calls[-6:] == [
            *("endpoint.created", "endpoint.joined", "endpoint.left"),
            *("endpoint.deleted", "endpoint.created", "endpoint.joined"),
        ]
