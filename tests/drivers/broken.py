"""Drivers that break one rule each."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel

from cnm.driver import (
    Address,
    AddressReleased,
    AddressRequested,
    Capability,
    CNMError,
    Difference,
    EndpointJoined,
    EndpointLeft,
    EndpointPublished,
    EndpointUnpublished,
    IPAMDriver,
    JoinInfo,
    LeaveInfo,
    NetlinkError,
    NetworkCreated,
    NetworkDeleted,
    NetworkRequested,
    NetworkRestored,
    NetworkState,
    NoAvailableAddress,
    NoOptions,
    Pool,
    PoolReleased,
    PoolRequested,
    PortBinding,
    Requirements,
    hookimpl,
    parse_options,
)
from cnm.ipam.default import DefaultIPAM
from cnm.linux import (
    Kernel,
    Sockets,
    add_bridge,
    delete_link,
    dump_links,
    parse_link,
    set_link,
)
from tests.integration.api.fakes import FakeDriver


class Sound(FakeDriver):
    """Makes a bridge for each network, and refuses all options: nothing is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel: Kernel
        self.known: set[str] = set()

    @hookimpl
    async def cnm_driver_loaded(self, event: Any) -> None:
        self.kernel = event.kernel

    @hookimpl
    async def cnm_network_requested(self, event: NetworkRequested) -> Requirements:
        refuse(event.network.options)
        return Requirements()

    @hookimpl
    async def cnm_network_created(self, event: NetworkCreated) -> NetworkState:
        await self.make(event.network.id)
        return NetworkState()

    @hookimpl
    async def cnm_network_restored(self, event: NetworkRestored) -> None:
        self.known.add(event.network.id)

    @hookimpl
    async def cnm_network_deleted(self, event: NetworkDeleted) -> None:
        await self.kernel.run(remove, event.network.id)

    @hookimpl
    async def cnm_endpoint_created(self, event: Any) -> Any:
        refuse(event.endpoint.options)
        return await super().cnm_endpoint_created(event)

    async def make(self, identity: str) -> None:
        """Make a network's bridge, in one step."""
        self.known.add(identity)
        await self.kernel.run(make, identity)


def refuse(options: Any) -> None:
    parse_options(NoOptions, options)


def make(sockets: Sockets, identity: str, alias: str = "cnm:conformance:") -> None:
    name = f"bk{identity[:12]}"
    sockets.route.call(add_bridge(name), set_link(name=name, alias=alias + identity))


def remove(sockets: Sockets, identity: str) -> None:
    try:
        sockets.route.call(delete_link(name=f"bk{identity[:12]}"))
    except NetlinkError:
        return


class LeavesTheBridge(Sound):
    @hookimpl
    async def cnm_network_deleted(self, event: NetworkDeleted) -> None:
        self.known.discard(event.network.id)


class BlocksTheLoop(Sound):
    @hookimpl
    async def cnm_network_created(self, event: NetworkCreated) -> NetworkState:
        began = time.monotonic()
        while time.monotonic() < began + 0.4:
            """That is what is wrong with it."""
        return await super().cnm_network_created(event)


class FailsToUndoTwice(Sound):
    @hookimpl
    async def cnm_network_deleted(self, event: NetworkDeleted) -> None:
        name = f"bk{event.network.id[:12]}"
        await self.kernel.run(lambda s: s.route.call(delete_link(name=name)))


class NeedsItsState(Sound):
    @hookimpl
    async def cnm_network_created(self, event: NetworkCreated) -> NetworkState:
        await self.make(event.network.id)
        return NetworkState(state={"bridge": "yes"})

    @hookimpl
    async def cnm_network_deleted(self, event: NetworkDeleted) -> None:
        assert event.network.driver_state["bridge"] == "yes"
        await super().cnm_network_deleted(event)


class LeavesAHalf(Sound):
    async def make(self, identity: str) -> None:
        await self.kernel.run(make, identity, "")  # nothing tells whose it is
        name = f"bk{identity[:12]}"
        await self.kernel.run(lambda s: s.route.call(set_link(name=name, up=True)))


class UndoesOnErrorsOnly(Sound):
    async def make(self, identity: str) -> None:
        await self.kernel.run(make, identity, "")
        try:
            await anyio.lowlevel.checkpoint()
        except Exception:
            await self.kernel.run(remove, identity)
            raise


class ForgetsAtRestart(Sound):
    @hookimpl
    async def cnm_network_restored(self, event: NetworkRestored) -> None:
        """Bring back nothing."""

    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> JoinInfo:
        assert event.endpoint.network.id in self.known, "what network?"
        return await super().cnm_endpoint_joined(event)


class HasOneOfAKind(Sound):
    async def make(self, identity: str) -> None:
        self.known.add(identity)
        await super().make(identity)
        for other in self.known - {identity}:  # who comes last has seen all others
            await self.kernel.run(remove, other)

    @hookimpl
    async def cnm_network_checked(self, event: Any) -> Any:
        def there(sockets: Sockets) -> bool:
            name = f"bk{event.network.id[:12]}"
            links = map(parse_link, sockets.route.dump(dump_links()))
            return any(link.name == name for link in links)

        if await self.kernel.run(there):
            return ()
        return (Difference(subject=event.network, problem="its bridge is gone"),)


class TakesAnyOption(Sound):
    @hookimpl
    async def cnm_network_requested(self, event: NetworkRequested) -> Requirements:
        return Requirements()


class BreaksOnOptions(Sound):
    @hookimpl
    async def cnm_network_requested(self, event: NetworkRequested) -> Requirements:
        sum(len(str(key)) // (2 - len(key) % 2) for key in event.network.options)
        if event.network.options:
            raise KeyError("mtu")
        return Requirements()


class PublishesNothing(Sound):
    @hookimpl
    async def cnm_endpoint_published(
        self, event: EndpointPublished
    ) -> tuple[PortBinding, ...]:
        return ()

    @hookimpl
    async def cnm_endpoint_unpublished(self, event: EndpointUnpublished) -> None:
        """There is nothing to take back."""


class NeverAnswers(Sound):
    @hookimpl
    async def cnm_endpoint_left(self, event: EndpointLeft) -> LeaveInfo | None:
        await anyio.sleep_forever()
        return None


class ActsAgainstItsPlans(Sound):
    @hookimpl
    async def cnm_driver_loaded(self, event: Any) -> Any:
        self.kernel = event.kernel
        return Capability(planned=True)

    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> JoinInfo:
        name = f"bk{event.endpoint.network.id[:12]}"
        await self.kernel.run(lambda s: s.route.call(set_link(name=name, up=True)))
        return await super().cnm_endpoint_joined(event)


#: Each with the rule that it breaks, and a word of what its author is told.
NETWORK: list[tuple[Callable[[], object], str, str]] = [
    (LeavesTheBridge, "life", "left behind"),
    (BlocksTheLoop, "life", "network.created blocked the event loop for 0."),
    (FailsToUndoTwice, "undo twice", "network.deleted failed with nothing left"),
    (NeedsItsState, "undo what never was", "may not rely on the state"),
    (LeavesAHalf, "failure at every step", "left behind"),
    (UndoesOnErrorsOnly, "cancellation at every await", "except BaseException"),
    (ForgetsAtRestart, "restart", "what network?"),
    (HasOneOfAKind, "several at once", "with several at once, "),
    (TakesAnyOption, "hostile options", "unknown option 'no-such-option' was accepted"),
    (BreaksOnOptions, "hostile options", "'mtu'"),
    (PublishesNothing, "ports", "80/tcp"),
    (NeverAnswers, "deadline", "no answer after"),
    (ActsAgainstItsPlans, "planned", "endpoint.joined did this itself: set link"),
]


class GivesTwice(DefaultIPAM):
    @hookimpl
    async def cnm_address_requested(self, event: AddressRequested) -> Address:
        if event.pool_id.startswith("10.") or ":" not in event.pool_id:
            return Address(interface=ipaddress.ip_interface("10.77.0.7/24"))
        return await super().cnm_address_requested(event)


class ReleasesOnce(DefaultIPAM):
    def __init__(self) -> None:
        super().__init__()
        self.released: set[object] = set()

    @hookimpl
    async def cnm_address_released(self, event: AddressReleased) -> None:
        if (event.pool_id, event.owner, event.address) in self.released:
            raise RuntimeError("released twice")
        self.released.add((event.pool_id, event.owner, event.address))
        await super().cnm_address_released(event)


class NumbersItsPools(DefaultIPAM):
    count = 0

    @hookimpl
    async def cnm_pool_requested(self, event: PoolRequested) -> Pool:
        pool = await super().cnm_pool_requested(event)
        type(self).count += 1
        self.names = {**getattr(self, "names", {}), str(self.count): pool.id}
        return Pool(id=str(self.count), subnet=pool.subnet)

    @hookimpl
    async def cnm_pool_released(self, event: PoolReleased) -> None:
        await super().cnm_pool_released(
            PoolReleased(network_id=event.network_id, pool_id=self.names[event.pool_id])
        )

    @hookimpl
    async def cnm_address_requested(self, event: AddressRequested) -> Address:
        return await super().cnm_address_requested(
            AddressRequested(
                pool_id=self.names[event.pool_id],
                owner=event.owner,
                address=event.address,
            )
        )

    @hookimpl
    async def cnm_address_released(self, event: AddressReleased) -> None:
        await super().cnm_address_released(
            AddressReleased(
                pool_id=self.names[event.pool_id],
                owner=event.owner,
                address=event.address,
            )
        )


class KeepsItsPools(DefaultIPAM):
    @hookimpl
    async def cnm_pool_released(self, event: PoolReleased) -> None:
        """Give no subnet to anybody else, ever."""


class ReleasesForAnybody(DefaultIPAM):
    @hookimpl
    async def cnm_address_released(self, event: AddressReleased) -> None:
        for owner in ("a", "b", event.owner):
            with suppress(CNMError):
                await super().cnm_address_released(replace(event, owner=owner))


class KnowsItsPoolsOnly(DefaultIPAM):
    def __init__(self) -> None:
        super().__init__()
        self.known: set[str] = set()

    @hookimpl
    async def cnm_pool_requested(self, event: PoolRequested) -> Pool:
        pool = await super().cnm_pool_requested(event)
        self.known.add(pool.id)
        return pool

    @hookimpl
    async def cnm_pool_released(self, event: PoolReleased) -> None:
        assert event.pool_id in self.known, "what pool?"
        await super().cnm_pool_released(event)


class RunsOver(DefaultIPAM):
    @hookimpl
    async def cnm_address_requested(self, event: AddressRequested) -> Address:
        try:
            return await super().cnm_address_requested(event)
        except NoAvailableAddress as exc:
            raise IndexError("list index out of range") from exc


class NeverGives(DefaultIPAM):
    @hookimpl
    async def cnm_address_requested(self, event: AddressRequested) -> Address:
        await anyio.sleep_forever()
        return await super().cnm_address_requested(event)


IPAM: list[tuple[Callable[[], IPAMDriver], str, str]] = [
    (KeepsItsPools, "life", "take it back"),
    (GivesTwice, "once", "different given"),
    (ReleasesOnce, "undo twice", "released twice"),
    (KnowsItsPoolsOnly, "undo twice", "what pool?"),
    (ReleasesForAnybody, "owners", "was released by another"),
    (NumbersItsPools, "restart", "is called"),
    (RunsOver, "full", "list index out of range"),
    (NeverGives, "deadline", "no answer after"),
]
