"""What the core does with a driver that fails, hangs or answers nonsense."""

# ruff: noqa: PT012 - the block is what is tested

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import pytest

import cnm
from cnm import Controller
from cnm.driver import EndpointState

from .fakes import FakeDriver, LastingStore

SUBNET = "10.9.0.0/24"


@asynccontextmanager
async def running(
    fake: FakeDriver, store: cnm.Store | None = None
) -> AsyncIterator[Controller]:
    async with Controller(drivers={"fake": fake}, store=store) as controller:
        yield controller
    if store is not None and store.persistent:
        async with Controller():  # takes along what has been left for a next start
            pass


async def use(controller: Controller) -> tuple[cnm.Network, cnm.Sandbox, cnm.Endpoint]:
    """Do everything once."""
    network = await controller.create_network("net", "fake", subnets=[SUBNET])
    sandbox = await controller.create_sandbox("box")
    return network, sandbox, await network.connect(sandbox, address="10.9.0.5")


async def test_calls_come_in_order() -> None:
    fake = FakeDriver()
    async with running(fake) as controller:
        network, sandbox, endpoint = await use(controller)
        assert endpoint.interface == "fake0"
        assert await endpoint.inspect() == {"fake": True}
        await endpoint.leave()
        await endpoint.delete()
        await network.delete()
        await sandbox.delete()
    assert fake.calls == [
        "network.requested",
        "network.created",
        "endpoint.created",
        "endpoint.joined",
        "endpoint.inspected",
        "endpoint.left",
        "endpoint.deleted",
        "network.deleted",
    ]
    deleted = fake.events[-1]
    assert isinstance(deleted, cnm.NetworkDeleted)
    assert deleted.network.driver_state == {"made": True}


FAILURES = {
    "network.requested": ["network.requested"],
    "network.created": ["network.requested", "network.created"],
    "endpoint.created": [
        "network.requested",
        "network.created",
        "endpoint.created",
    ],
    "endpoint.joined": [
        "network.requested",
        "network.created",
        "endpoint.created",
        "endpoint.joined",
        "endpoint.deleted",
    ],
    "plan": [
        "network.requested",
        "network.created",
        "endpoint.created",
        "endpoint.joined",
        "endpoint.left",
        "endpoint.deleted",
    ],
}


@pytest.mark.parametrize("step", FAILURES)
@pytest.mark.parametrize(
    "kind",
    [
        RuntimeError("boom"),
        SystemExit("boom"),
        BaseExceptionGroup("tasks", [SystemExit("boom")]),
        cnm.ForbiddenError("boom"),
    ],
)
async def test_a_failing_step_is_undone(step: str, kind: BaseException) -> None:
    fake, store = FakeDriver(), cnm.MemoryStore()
    async with (
        running(fake, store) as controller,
        controller.subscribe(cnm.DriverFailed) as failures,
    ):
        fake.fail[step] = kind
        with pytest.raises(cnm.CNMError, match="boom") as caught:
            await use(controller)
        assert fake.calls == FAILURES[step]
        if not isinstance(kind, cnm.CNMError):
            assert isinstance(caught.value, cnm.DriverError)
            assert caught.value.__cause__ is kind
            event = "endpoint.joined" if step == "plan" else step
            assert (caught.value.driver, caught.value.event) == ("fake", event)
            failures.end()
            [failed] = [it async for it in failures]
            assert (failed.driver, failed.event.name) == ("fake", event)
            assert failed.error == str(caught.value)
        fake.fail.clear()
        for network in controller.networks:
            assert network.endpoints == ()
            status = await network.ipam_status()
            assert [s.in_use for s in status.values()] == [3]
            await network.delete()
        for sandbox in controller.sandboxes:
            assert b"fake0" not in (await sandbox.run(["ls", "/sys/class/net"])).stdout
            await sandbox.delete()
        assert await store.scan("") == ()
        await use(controller)


WRONG = {
    "network.requested": ["network.requested"],
    "network.created": ["network.requested", "network.created", "network.deleted"],
    "endpoint.created": [
        "network.requested",
        "network.created",
        "endpoint.created",
        "endpoint.deleted",
    ],
    "endpoint.joined": [
        "network.requested",
        "network.created",
        "endpoint.created",
        "endpoint.joined",
        "endpoint.left",
        "endpoint.deleted",
    ],
}


@pytest.mark.parametrize("step", [*WRONG, "plan"])
@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt("stop"),
        BaseExceptionGroup("tasks", [ValueError(), KeyboardInterrupt()]),
    ],
)
async def test_what_ends_more_than_a_driver_is_none_of_its_errors(
    step: str, error: BaseException
) -> None:
    fake = FakeDriver()
    async with running(fake) as controller:
        fake.fail[step] = error
        with pytest.raises(type(error)) as caught:
            await use(controller)
        assert caught.value is error
        fake.fail.clear()


@pytest.mark.parametrize("step", WRONG)
async def test_an_answer_of_the_wrong_type_is_undone(step: str) -> None:
    fake = FakeDriver()
    async with running(fake) as controller:
        fake.fail[step] = "nonsense"
        with pytest.raises(cnm.DriverError, match=f"{step}: returned 'nonsense', not"):
            await use(controller)
        assert fake.calls == WRONG[step]
        fake.fail.clear()
        for network in controller.networks:
            assert network.endpoints == ()
            await network.delete()
        for sandbox in controller.sandboxes:
            await sandbox.delete()
        await use(controller)


@pytest.mark.parametrize("step", ["network.created", "endpoint.created"])
async def test_a_hanging_handler_can_be_cancelled(step: str) -> None:
    fake = FakeDriver()
    async with running(fake) as controller:
        fake.fail[step] = "hang"
        with anyio.move_on_after(0.05) as scope:
            await use(controller)
        assert scope.cancelled_caught
        fake.fail.clear()
        for network in controller.networks:
            await network.delete()
        for sandbox in controller.sandboxes:
            await sandbox.delete()
        await use(controller)


async def test_a_changed_mac_address_is_refused() -> None:
    fake = FakeDriver()
    async with running(fake) as controller:
        network = await controller.create_network("net", "fake", subnets=[SUBNET])
        fake.fail["endpoint.created"] = EndpointState(mac="02:00:00:00:00:99")
        with pytest.raises(cnm.DriverError, match="changed the MAC address"):
            await network.create_endpoint("ep", mac="02:00:00:00:00:11")
        assert fake.calls[-1] == "endpoint.deleted"


async def test_a_failing_store_leaves_nothing() -> None:
    fake, store = FakeDriver(), LastingStore()
    async with running(fake, store) as controller:
        store.failing = True
        with pytest.raises(cnm.StoreError):
            await controller.create_network("net", "fake", subnets=[SUBNET])
        assert fake.calls[-1] == "network.deleted"
        with pytest.raises(cnm.StoreError):
            await controller.create_sandbox("box")
        store.failing = False
        network = await controller.create_network("net", "fake", subnets=[SUBNET])
        store.failing = True
        with pytest.raises(cnm.StoreError):
            await network.create_endpoint("ep", address="10.9.0.5")
        assert fake.calls[-1] == "endpoint.deleted"
        store.failing = False
        sandbox = await controller.create_sandbox("box")
        endpoint = await network.create_endpoint("ep", address="10.9.0.5")
        store.failing = True
        with pytest.raises(cnm.StoreError):
            await endpoint.join(sandbox)
        assert fake.calls[-1] == "endpoint.left"
        assert not endpoint.joined
        store.failing = False
        await endpoint.join(sandbox)
        store.failing, store.tolerates_intents = True, False
        with pytest.raises(cnm.StoreError):
            await endpoint.leave()
        with pytest.raises(cnm.StoreError):
            await sandbox.delete()
        with pytest.raises(cnm.StoreError):
            await network.delete(force=True)
        assert fake.calls[-1] == "endpoint.joined"  # nothing has been begun
        store.failing = False
        await sandbox.delete()  # what was refused can be done again
        await network.delete(force=True)
        assert (controller.networks, controller.sandboxes) == ((), ())


async def test_what_is_removed_is_recorded_later() -> None:
    fake, store = FakeDriver(), LastingStore()
    async with running(fake, store) as controller:
        network, sandbox, endpoint = await use(controller)
        store.failing = True
        await endpoint.leave()
        assert not endpoint.joined
        (intent,) = await store.scan("intent/")
        assert intent.value["deed"] == "endpoint.leave"
        with pytest.raises(cnm.StoreError):
            await endpoint.delete()  # nothing else before it
        store.failing = False
        await sandbox.delete()
        assert await store.scan("intent/") == ()
        record = await store.get(f"endpoint/{endpoint.id}")
        assert record is not None
        assert record.value["attachment"] is None
        assert network.endpoints == (endpoint,)


async def test_failures_of_removal() -> None:
    fake = FakeDriver()
    async with running(fake) as controller:
        network, sandbox, endpoint = await use(controller)
        fake.fail["endpoint.left"] = RuntimeError("no")
        with pytest.raises(cnm.DriverError, match=r"endpoint.left: no"):
            await endpoint.leave()
        assert endpoint.joined
        assert endpoint.sandbox is sandbox
        fake.fail["endpoint.deleted"] = RuntimeError("no")
        with pytest.raises(cnm.TeardownError) as caught:
            await endpoint.delete(force=True)
        assert len(caught.value.exceptions) == 2
        assert (network.endpoints, sandbox.endpoints) == ((), ())
        await network.create_endpoint("again", address="10.9.0.5")
        fake.fail["network.deleted"] = RuntimeError("no")
        with pytest.raises(cnm.ActiveEndpointsError):
            await network.delete()
        fake.fail.pop("endpoint.deleted")
        await network.endpoint("again").delete()
        with pytest.raises(cnm.DriverError, match=r"network.deleted: no"):
            await network.delete()
        assert controller.network("net") is network
        with pytest.raises(cnm.TeardownError):
            await network.delete(force=True)
        assert controller.networks == ()
        await controller.create_network("net", "fake", subnets=[SUBNET])
        fake.fail.clear()


async def test_a_failing_deletion_of_a_sandbox() -> None:
    fake = FakeDriver()
    async with running(fake) as controller:
        network, sandbox, _ = await use(controller)
        fake.fail["endpoint.left"] = RuntimeError("no")
        with pytest.raises(cnm.TeardownError, match="removing sandbox 'box'"):
            await sandbox.delete()
        assert (network.endpoints, controller.sandboxes) == ((), ())


async def test_stopping_reports_failures() -> None:
    fake = FakeDriver()
    with pytest.raises(cnm.TeardownError, match="stopping controller 'cnm'"):
        async with running(fake) as controller:
            await use(controller)
            fake.fail["network.deleted"] = RuntimeError("no")
    fake = FakeDriver()
    with pytest.raises(KeyError) as caught:  # the body's own exception wins
        async with running(fake) as controller:
            await controller.create_network("net", "fake")
            fake.fail["network.deleted"] = RuntimeError("no")
            raise KeyError("mine")
    assert "no" in str(caught.value.__notes__)


async def test_a_forced_deletion_while_an_endpoint_is_made() -> None:
    fake, store = FakeDriver(), cnm.MemoryStore()
    async with running(fake, store) as controller:
        network = await controller.create_network("net", "fake", subnets=[SUBNET])
        reached, go_on = anyio.Event(), anyio.Event()
        original = store.transaction

        async def slow(*changes: cnm.Put | cnm.Delete) -> None:
            if changes[0].key.startswith("endpoint/"):
                reached.set()
                await go_on.wait()
            await original(*changes)

        store.transaction = slow  # type: ignore[method-assign]
        outcome: list[BaseException] = []

        async def create() -> None:
            try:
                await network.create_endpoint("ep")
            except cnm.CNMError as exc:
                outcome.append(exc)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(create)
            await reached.wait()
            await network.delete(force=True)
            go_on.set()
        assert isinstance(outcome[0], cnm.NetworkNotFound)
        assert await store.scan("") == ()
