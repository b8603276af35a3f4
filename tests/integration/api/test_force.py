"""What is removed by force is gone from the kernel, whatever its driver does."""

# ruff: noqa: ASYNC240 - tests may block

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.to_thread
import pytest

import cnm
from cnm import Controller, SQLiteStore
from cnm.linux import namespaces
from cnm.testing.fakes import FakeDriver

from .fakes import LastingStore, Slow
from .test_restore import remove_all
from .traffic import serving, tcp


async def interfaces(sandbox: cnm.Sandbox) -> list[str]:
    """Return the names of a sandbox's interfaces, but for the fake ones' other ends."""
    done = await sandbox.run(["ls", "/sys/class/net"])
    return [it for it in done.stdout.decode().split() if not it.startswith("p")]


async def resolves(sandbox: cnm.Sandbox, name: str) -> bool:
    done = await sandbox.run(["getent", "hosts", name], check=False)
    return done.returncode == 0


@pytest.mark.parametrize("what", ["endpoint.left", "endpoint.unpublished"])
async def test_an_endpoint_whose_driver_fails(what: str) -> None:
    fake = Slow()
    async with Controller(drivers={"fake": fake}, on_damage="report") as controller:
        network = await controller.create_network("front", "fake")
        box, other = [await controller.create_sandbox(it) for it in ("box", "other")]
        endpoint = await network.connect(box, ports=["8080:80"])
        await network.connect(other)
        assert await resolves(other, "box")
        async with controller.subscribe() as events:
            fake.fail[what] = RuntimeError("no")
            with pytest.raises(cnm.TeardownError) as caught:
                await endpoint.delete(force=True)
            heard = [(await anext(events)).name for _ in range(4)]
        (error,) = caught.value.exceptions
        assert str(error) == f"driver 'fake' failed to handle {what}: no"
        assert heard == [
            *("driver.failed", "endpoint.unpublished"),
            *("endpoint.left", "endpoint.deleted"),
        ]
        await controller._services.reaper.reap()
        assert await interfaces(box) == ["lo"]
        assert not await resolves(other, "box")
        assert "box" not in Path(box.hosts_path).read_text()
        assert (endpoint.ports, box.ports, box.endpoints) == ((), (), ())
        fake.fail.clear()
        await network.connect(box, ports=["8080:80"])
        assert (await interfaces(box), len(box.ports)) == (["fake0", "lo"], 1)


async def test_its_ports_move_all_the_same() -> None:
    fake = Slow()
    async with Controller(drivers={"fake": fake}, on_damage="report") as controller:
        network = await controller.create_network(
            "front", "fake", subnets=["10.9.0.0/24"], gateways=["10.9.0.1"]
        )
        box = await controller.create_sandbox("box")
        first = await network.connect(
            box, name="first", ports=["8080:80"], gateway_priority=1
        )
        second = await network.connect(box, name="second", ports=["8081:81"])
        assert len(first.ports) == 2
        fake.fail["endpoint.unpublished"] = RuntimeError("no")
        with pytest.raises(cnm.TeardownError):
            await first.delete(force=True)
        assert [it.host_port for it in second.ports] == [8081]
        assert box.ports == second.ports
        assert box.gateways == {4: second}
        fake.fail.clear()


async def test_a_driver_that_is_not_there_any_more(tmp_path: Path) -> None:
    path, fake = tmp_path / "cnm.db", FakeDriver()
    drivers = {"fake": fake}
    async with Controller(store=SQLiteStore(path), drivers=drivers) as controller:
        box = await controller.create_sandbox("box")
        network = await controller.create_network("front", "fake")
        await network.connect(box)
        await (await controller.create_network("back")).connect(box)
        assert await interfaces(box) == ["eth0", "fake0", "lo"]
    async with Controller(store=SQLiteStore(path)) as controller:
        network, box = controller.network("front"), controller.sandbox("box")
        assert network.fault
        with pytest.raises(cnm.TeardownError):
            await network.delete(force=True)
        await controller._services.reaper.reap()
        assert await interfaces(box) == ["eth0", "lo"]
        assert await controller.check() == ()
    await remove_all(path)


async def test_a_store_that_fails_leaves_all_as_it_is() -> None:
    store = LastingStore()
    async with Controller(store=store) as controller:
        network = await controller.create_network("front", subnets=["10.9.0.0/24"])
        one, two = [await controller.create_sandbox(it) for it in ("one", "two")]
        endpoint = await network.connect(one, ports=["8080:80"])
        await network.connect(two)
        written = store.transaction
        refused: list[str] = []

        async def refuse(*changes: cnm.store.Put | cnm.store.Delete) -> None:
            if changes[0].key.endswith("endpoint.leave"):
                refused.append(changes[0].key)
                raise cnm.StoreError("disk full")
            await written(*changes)

        store.transaction = refuse  # type: ignore[method-assign]
        with pytest.raises(cnm.StoreError, match="disk full"):
            await endpoint.delete(force=True)
        store.transaction = written  # type: ignore[method-assign]
        assert refused
        assert (endpoint.joined, len(endpoint.ports)) == (True, 2)
        async with serving(one, two):
            assert await tcp(one, "10.9.0.3") == "10.9.0.2"
        await one.delete()
        await two.delete()
        await network.delete()
        await controller._services.kernel.run(
            cnm.lifecycle.remove_table, controller._services
        )


async def test_a_sandbox_is_lost_while_its_driver_fails() -> None:
    fake = Slow()
    async with Controller(drivers={"fake": fake}, on_damage="report") as controller:
        network = await controller.create_network("front", "fake")
        box, other = [await controller.create_sandbox(it) for it in ("box", "other")]
        endpoint = await network.connect(box, ports=["8080:80"])
        await anyio.to_thread.run_sync(namespaces.unpin, box.key)
        fake.fail["endpoint.unpublished"] = RuntimeError("no")
        (mended,) = await controller.repair()
        assert (mended.mended, mended.problem) == (True, "its namespace is gone")
        assert controller.sandboxes == (other,)
        assert (endpoint.joined, endpoint.ports) == (False, ())
        fake.fail.clear()
        await endpoint.join(other)
        assert len(endpoint.ports) == 1
