"""Any sequence of operations leaves model, controller and kernel equal."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import anyio
import hypothesis.strategies as st
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import cnm
from cnm import Controller, SQLiteStore
from cnm.lifecycle import remove_table
from cnm.linux import NetlinkSocket, delete_link, dump_links, parse_link

#: Runs and steps of each; ``make soak`` sets more, and seeds of its own.
RUNS = int(os.environ.get("CNM_TEST_MACHINE_RUNS", "16"))
STEPS = int(os.environ.get("CNM_TEST_MACHINE_STEPS", "50"))
SEED = int(os.environ.get("CNM_TEST_MACHINE_SEED", "5"))

NETWORKS = {"red": "10.1.0.0/24", "green": "10.2.0.0/24", "blue": "10.3.0.0/24"}
SANDBOXES = ("x", "y")  # no beginnings of ids
networks = st.sampled_from(sorted(NETWORKS))
sandboxes = st.sampled_from(SANDBOXES)
ports = st.sampled_from(["8000:80", "8001:81"])

#: Networks: names of endpoints to the names of their sandboxes, ``""`` for none.
Model: TypeAlias = dict[str, dict[str, str]]
Act: TypeAlias = Callable[[Controller], Awaitable[object]]


def create_network(name: str) -> Act:
    return lambda c: c.create_network(name, subnets=[NETWORKS[name]])


def delete_network(name: str, force: bool) -> Act:
    async def act(controller: Controller) -> None:
        await controller.network(name).delete(force=force)

    return act


def create_sandbox(name: str) -> Act:
    return lambda c: c.create_sandbox(name)


def delete_sandbox(name: str) -> Act:
    async def act(controller: Controller) -> None:
        await controller.sandbox(name).delete()

    return act


def connect(network: str, sandbox: str, port: str) -> Act:
    async def act(controller: Controller) -> None:
        box = controller.sandbox(sandbox)
        await controller.network(network).connect(box, ports=[port])

    return act


def disconnect(network: str, sandbox: str) -> Act:
    async def act(controller: Controller) -> None:
        await controller.network(network).disconnect(controller.sandbox(sandbox))

    return act


def create_endpoint(network: str, name: str) -> Act:
    async def act(controller: Controller) -> None:
        await controller.network(network).create_endpoint(name)

    return act


def delete_endpoint(network: str, name: str, force: bool) -> Act:
    async def act(controller: Controller) -> None:
        await controller.network(network).endpoint(name).delete(force=force)

    return act


def join(network: str, name: str, sandbox: str) -> Act:
    async def act(controller: Controller) -> None:
        endpoint = controller.network(network).endpoint(name)
        await endpoint.join(controller.sandbox(sandbox))

    return act


def leave(network: str, name: str) -> Act:
    async def act(controller: Controller) -> None:
        await controller.network(network).endpoint(name).leave()

    return act


def publish(network: str, name: str, port: str) -> Act:
    async def act(controller: Controller) -> None:
        await controller.network(network).endpoint(name).publish(port)

    return act


def unpublish(network: str, name: str) -> Act:
    async def act(controller: Controller) -> None:
        await controller.network(network).endpoint(name).unpublish()

    return act


names = sandboxes
#: Addresses of a network that are no endpoint's: its own, the gateway, broadcast.
RESERVED = 3
acts = st.one_of(
    st.builds(create_network, networks),
    st.builds(delete_network, networks, st.booleans()),
    st.builds(create_sandbox, sandboxes),
    st.builds(delete_sandbox, sandboxes),
    st.builds(connect, networks, sandboxes, ports),
    st.builds(disconnect, networks, sandboxes),
    st.builds(create_endpoint, networks, names),
    st.builds(delete_endpoint, networks, names, st.booleans()),
    st.builds(join, networks, names, sandboxes),
    st.builds(leave, networks, names),
    st.builds(publish, networks, names, ports),
    st.builds(unpublish, networks, names),
)


def require_refusal(error: cnm.CNMError) -> None:
    """Check that an operation was not possible, rather than that it broke."""
    assert not isinstance(error, (cnm.KernelError, cnm.StoreError)), repr(error)


class Machine(RuleBasedStateMachine):
    """Drives a controller in a thread of its own, and knows what must be there."""

    backend = "asyncio"
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.model: Model = {}
        self.boxes: set[str] = set()
        self._directory = TemporaryDirectory()
        self._portal_block = start_blocking_portal(self.backend)
        self._portal: BlockingPortal = self._portal_block.__enter__()
        self._block: Any = None

    @initialize()
    def start(self) -> None:
        store = SQLiteStore(Path(self._directory.name) / "journal.db")
        made = Controller("machine", store=store, on_damage="report")
        self._block = self._portal.wrap_async_context_manager(made)
        self.controller: Controller = self._block.__enter__()

    def stop(self) -> None:
        if self._block is not None:
            block, self._block = self._block, None
            block.__exit__(None, None, None)

    def attempt(self, act: Act) -> bool:
        """Do something; return whether it was possible."""
        try:
            self._portal.call(act, self.controller)
        except cnm.CNMError as exc:
            require_refusal(exc)
            return False
        return True

    def expect(self, act: Act, possible: bool) -> bool:
        assert self.attempt(act) is possible
        return possible

    # --- one after the other ----------------------------------------------------------

    @rule(name=networks)
    def create_network(self, name: str) -> None:
        if self.expect(create_network(name), name not in self.model):
            self.model[name] = {}

    @rule(name=networks, force=st.booleans())
    def delete_network(self, name: str, force: bool) -> None:
        possible = name in self.model and (force or not self.model[name])
        if self.expect(delete_network(name, force), possible):
            del self.model[name]

    @rule(name=sandboxes)
    def create_sandbox(self, name: str) -> None:
        if self.expect(create_sandbox(name), name not in self.boxes):
            self.boxes.add(name)

    @rule(name=sandboxes)
    def delete_sandbox(self, name: str) -> None:
        if self.expect(delete_sandbox(name), name in self.boxes):
            self.boxes.remove(name)
            for endpoints in self.model.values():
                for endpoint in [e for e, box in endpoints.items() if box == name]:
                    del endpoints[endpoint]

    @rule(network=networks, name=names)
    def create_endpoint(self, network: str, name: str) -> None:
        possible = network in self.model and name not in self.model[network]
        if self.expect(create_endpoint(network, name), possible):
            self.model[network][name] = ""

    @rule(network=networks, name=names, force=st.booleans())
    def delete_endpoint(self, network: str, name: str, force: bool) -> None:
        joined = self.model.get(network, {}).get(name)
        possible = joined is not None and (force or not joined)
        if self.expect(delete_endpoint(network, name, force), possible):
            del self.model[network][name]

    @rule(network=networks, name=names, sandbox=sandboxes)
    def join(self, network: str, name: str, sandbox: str) -> None:
        possible = self.model.get(network, {}).get(name) == "" and sandbox in self.boxes
        if self.expect(join(network, name, sandbox), possible):
            self.model[network][name] = sandbox

    @rule(network=networks, name=names)
    def leave(self, network: str, name: str) -> None:
        if self.expect(
            leave(network, name), bool(self.model.get(network, {}).get(name))
        ):
            self.model[network][name] = ""

    @rule(network=networks, sandbox=sandboxes, port=ports)
    def connect(self, network: str, sandbox: str, port: str) -> None:
        # whether the port is free is the controller's business
        if self.attempt(connect(network, sandbox, port)):
            assert sandbox not in self.model[network]
            self.model[network][sandbox] = sandbox

    @rule(network=networks, name=names, port=ports)
    def publish(self, network: str, name: str, port: str) -> None:
        if self.attempt(publish(network, name, port)):
            assert self.model[network][name]

    @rule(network=networks, name=names)
    def unpublish(self, network: str, name: str) -> None:
        joined = bool(self.model.get(network, {}).get(name))
        self.expect(unpublish(network, name), joined)

    # --- all at once ------------------------------------------------------------------

    @rule(some=st.lists(acts, min_size=2, max_size=6))
    def at_once(self, some: list[Act]) -> None:
        """Do several things at the same time: each is done, or refused."""

        async def attempt(act: Act) -> None:
            try:
                await act(self.controller)
            except cnm.CNMError as exc:
                require_refusal(exc)

        async def together() -> None:
            async with anyio.create_task_group() as tasks:
                for act in some:
                    tasks.start_soon(attempt, act)

        self._portal.call(together)
        self.look()

    # --- restarts and damage ----------------------------------------------------------

    @rule()
    def restart(self) -> None:
        self.stop()
        self.start()
        outcomes = set(self.controller.restored.counts)
        assert outcomes <= {"kept"}, self.controller.restored.entries

    @rule(choice=st.integers(0, 5))
    def damage(self, choice: int) -> None:
        """Delete a link of ours, and have it repaired."""
        with NetlinkSocket() as route:
            links = map(parse_link, route.dump(dump_links()))
            marked = [it for it in links if it.alias.startswith("cnm:machine:")]
            alive = [it for it in marked if it.up]
            if not alive:  # what is drawn must not depend on it
                return
            with suppress(cnm.NetlinkError):
                route.call(delete_link(alive[choice % len(alive)].index))
        repaired = self._portal.call(self.controller.repair)
        assert all(difference.mended for difference in repaired), repaired

    # --- what must hold ---------------------------------------------------------------

    def look(self) -> None:
        """Take over what the controller says: the kernel is compared with it."""
        self.boxes = {sandbox.name for sandbox in self.controller.sandboxes}
        self.model = self.seen()

    def seen(self) -> Model:
        return {
            network.name: {
                each.name: each.sandbox.name if each.sandbox else ""
                for each in network.endpoints
            }
            for network in self.controller.networks
        }

    @invariant()
    def agree(self) -> None:
        if self._block is None:
            return
        type(self).steps += 1
        assert self.seen() == self.model
        assert {it.name for it in self.controller.sandboxes} == self.boxes
        assert self._portal.call(self.controller.check) == ()
        self._portal.call(self._addresses)

    async def _addresses(self) -> None:
        """Compare what is allocated, and stored, with what is in use."""
        for network in self.controller.networks:
            (status,) = (await network.ipam_status()).values()
            assert status.in_use == len(network.endpoints) + RESERVED
        records = await self.controller._services.store.scan("")
        keys = {record.key for record in records}
        objects = {"controller/identity"}
        objects |= {f"network/{network.id}" for network in self.controller.networks}
        objects |= {f"sandbox/{sandbox.id}" for sandbox in self.controller.sandboxes}
        objects |= {
            f"endpoint/{endpoint.id}"
            for network in self.controller.networks
            for endpoint in network.endpoints
        }
        assert keys == objects

    def teardown(self) -> None:
        try:
            if self._block is not None:
                self._portal.call(self._remove_all)
                self.stop()
        finally:
            self._portal_block.__exit__(None, None, None)
            self._directory.cleanup()

    async def _remove_all(self) -> None:
        for sandbox in self.controller.sandboxes:
            await sandbox.delete()
        for network in self.controller.networks:
            await network.delete(force=True)
        services = self.controller._services
        await services.kernel.run(remove_table, services)


class MachineOnTrio(Machine):
    """The same on trio."""

    backend = "trio"
    steps = 0


@pytest.mark.parametrize("machine", [Machine, MachineOnTrio])
def test_model_and_kernel_agree(
    machine: type[Machine], record_property: Callable[[str, object], None]
) -> None:
    run_state_machine_as_test(
        seed(SEED)(machine),
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert machine.steps > RUNS
    record_property("steps", machine.steps)
