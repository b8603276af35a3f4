"""Creating an endpoint and joining it in one operation."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import cnm
from cnm import Controller
from cnm.driver import (
    Capability,
    DriverLoaded,
    EndpointCreated,
    EndpointJoined,
    EndpointPublished,
    EndpointState,
    EndpointUnpublished,
    JoinInfo,
    PublishInfo,
    hookimpl,
)
from cnm.lifecycle import remove_table
from cnm.linux import Placement
from cnm.store import Delete, Put
from cnm.testing.fakes import MAC

from .fakes import FakeDriver, LastingStore
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


class Waiting(Prompt):
    """Waits before it creates an endpoint, too."""

    @hookimpl
    async def cnm_endpoint_created(self, event: EndpointCreated) -> EndpointState:
        await anyio.lowlevel.checkpoint()
        return await super().cnm_endpoint_created(event)


@pytest.mark.parametrize("kind", [Prompt, Waiting])
async def test_a_forced_deletion_while_a_sandbox_is_connected(
    kind: type[Prompt],
) -> None:
    fake = kind()
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


@pytest.mark.parametrize("kind", [Prompt, Waiting])
async def test_it_is_recorded_as_one(kind: type[Prompt]) -> None:
    """Who is killed in the middle finds no endpoint afterwards."""
    fake, store = kind(), LastingStore()
    async with Controller(store=store, drivers={"fake": fake}) as controller:
        network = await controller.create_network("net", "fake", subnets=[SUBNET])
        sandbox = await controller.create_sandbox("box")
        before = {it.key for it in await store.scan("")}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(network.connect, sandbox)
            await anyio.to_thread.run_sync(fake.plugging.wait)
            during = {it.key for it in await store.scan("")}
            fake.go_on.set()
        (endpoint,) = network.endpoints
        assert during - before == {f"intent/{endpoint.id}/endpoint.connect"}
        after = {it.key for it in await store.scan("")}
        assert after - before == {f"endpoint/{endpoint.id}"}
        await sandbox.delete()
        await network.delete()
        await controller._services.kernel.run(remove_table, controller._services)


@pytest.mark.parametrize("kind", [Prompt, Waiting])
async def test_who_cannot_be_connected_has_never_been(kind: type[Prompt]) -> None:
    fake = kind()
    fake.go_on.set()
    async with running(fake) as controller:
        network = await controller.create_network("net", "fake", subnets=[SUBNET])
        sandbox = await controller.create_sandbox("box")
        async with controller.subscribe() as events:
            fake.fail["plan"] = RuntimeError("no")
            with pytest.raises(cnm.DriverError, match=r"endpoint.joined: no"):
                await network.connect(sandbox, address="10.9.0.5")
            fake.fail.clear()
            assert (network.endpoints, sandbox.endpoints) == ((), ())
            await network.connect(sandbox, address="10.9.0.5")
            heard = [(await anext(events)).name for _ in range(3)]
        assert heard == ["driver.failed", "endpoint.created", "endpoint.joined"]
        assert fake.calls[-6:] == [
            *("endpoint.created", "endpoint.joined", "endpoint.left"),
            *("endpoint.deleted", "endpoint.created", "endpoint.joined"),
        ]


BINDING = cnm.PortBinding(
    container_port=80,
    proto="tcp",
    host_address=IPv4Address("127.0.0.1"),
    host_port=8080,
    container_address=IPv4Address("10.9.0.2"),
)


class Noting(cnm.SQLiteStore):
    """Notes which operations are under way.

    :ivar refuses: what the keys begin with that cannot be written
    """

    writes = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.intents: list[str] = []
        self.refuses = "/"

    async def transaction(self, *changes: Put | Delete) -> None:
        await super().transaction(*changes)
        self._note(changes)

    def write(self, *changes: Put | Delete) -> None:
        if any(it.key.startswith(self.refuses) for it in changes):
            raise cnm.StoreError("disk full")
        super().write(*changes)
        self._note(changes)

    def _note(self, changes: Iterable[Put | Delete]) -> None:
        for change in changes:
            if change.key.startswith("intent/"):
                deed = change.key.rpartition("/")[2]
                if isinstance(change, Put):
                    self.intents.append(deed)
                else:
                    self.intents.remove(deed)


class Planned(Prompt):
    """Says that its plans change everything; notes the intents that are recorded."""

    promise = True

    def __init__(self, store: Noting) -> None:
        super().__init__()
        self.go_on.set()
        self._store = store
        self.handled: list[list[str]] = []
        self.planned: list[list[str]] = []

    @hookimpl
    async def cnm_driver_loaded(self, event: DriverLoaded) -> Capability:
        return Capability(planned=self.promise)

    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> JoinInfo:
        self.handled.append([*self._store.intents])
        return await super().cnm_endpoint_joined(event)

    def plug(self, placement: Placement) -> None:
        self.planned.append([*self._store.intents])
        super().plug(placement)


class Unplanned(Planned):
    promise = False


@pytest.mark.parametrize("driver", [Planned, Unplanned])
async def test_the_intent_is_there_before_anything_is_changed(
    tmp_path: Path, driver: type[Planned]
) -> None:
    store = Noting(tmp_path / "cnm.db")
    fake = driver(store)
    async with running(fake, store) as controller:
        network = await controller.create_network("net", "fake", subnets=[SUBNET])
        sandbox = await controller.create_sandbox("box")
        await network.connect(sandbox)
        endpoint = await network.create_endpoint("later")
        await network.disconnect(sandbox)
        await endpoint.join(sandbox)
        intents = [["endpoint.connect"], ["endpoint.join"]]
        assert fake.planned == intents
        assert fake.handled == ([[], []] if fake.promise else intents)
        await sandbox.delete()
        await network.delete(force=True)


async def test_a_record_that_cannot_be_written(tmp_path: Path) -> None:
    """The interface that the plan has made goes again, and the intent as well."""
    store = Noting(tmp_path / "cnm.db")
    fake = Planned(store)
    async with running(fake, store) as controller:
        network = await controller.create_network("net", "fake", subnets=[SUBNET])
        sandbox = await controller.create_sandbox("box")
        store.refuses = "sandbox/"
        with pytest.raises(cnm.StoreError, match="disk full"):
            await controller.create_sandbox("other")
        store.refuses = "endpoint/"
        with pytest.raises(cnm.StoreError, match="disk full"):
            await network.connect(sandbox)
        store.refuses = "/"
        assert store.intents == []
        assert "10.9.0." not in await anyio.Path(sandbox.hosts_path).read_text()
        assert (network.endpoints, controller.sandboxes) == ((), (sandbox,))
        assert await controller.check() == ()
        await network.connect(sandbox)
        assert sandbox.endpoints[0].interface == "fake0"
        await sandbox.delete()
        await network.delete(force=True)


class Deaf(Prompt):
    """Fails to note that its ports are published."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on.set()

    @hookimpl
    async def cnm_endpoint_published(self, event: EndpointPublished) -> PublishInfo:
        return PublishInfo(plan=lambda sockets: (BINDING,), done=self._fail)

    @hookimpl
    async def cnm_endpoint_unpublished(self, event: EndpointUnpublished) -> None:
        """Nothing is published really."""

    def _fail(self) -> None:
        raise RuntimeError("what ports?")


async def test_what_is_done_is_done() -> None:
    async with running(Deaf()) as controller:
        network = await controller.create_network("net", "fake", subnets=[SUBNET])
        sandbox = await controller.create_sandbox("box")
        async with controller.subscribe(cnm.DriverFailed) as events:
            endpoint = await network.connect(sandbox, ports=["8080:80"])
            assert "what ports?" in (await anext(events)).error
        assert (endpoint.sandbox, endpoint.ports) == (sandbox, (BINDING,))
