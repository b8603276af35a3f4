"""A driver on trial: how it is used, and what must be as before afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from ... import Controller, Network, Sandbox, Store
from ...linux import (
    NetlinkSocket,
    dump_addresses,
    dump_links,
    dump_routes,
    parse_address,
    parse_link,
    parse_route,
)
from ...types import JSON

NAME = "subject"
#: Seconds; longer than any trial takes.
_LONG = 3600.0
#: The main table, include/uapi/linux/rtnetlink.h.
_RT_TABLE_MAIN = 254
State = dict[str, list[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A network driver on trial.

    :ivar driver: makes the driver; each controller has one of its own
    :ivar options: the options of its networks
    :ivar subnets: the subnets of the first network; others get free ones
    :ivar netns: what its sandboxes are created with
    :ivar networks: how many networks there can be at a time
    :ivar endpoints: how many endpoints a network can have at a time
    :ivar timeout: seconds that a handler may take
    """

    driver: Callable[[], object]
    options: Mapping[str, JSON]
    subnets: Sequence[str]
    netns: Literal["host"] | None
    networks: int
    endpoints: int
    timeout: float

    @asynccontextmanager
    async def controller(
        self, store: Store | None = None, run_dir: str | None = None
    ) -> AsyncIterator[Controller]:
        """Run a controller that has the driver."""
        async with Controller(
            "conformance",
            store=store,
            run_dir=run_dir,
            drivers={NAME: self.driver},
            driver_timeout=self.timeout,
            on_damage="report",
            ready_namespaces=0,  # steps that fail are counted
        ) as controller:
            # and so are those in the background: links are deleted by settled()
            controller._services.reaper.delay = _LONG
            yield controller

    async def network(
        self,
        controller: Controller,
        name: str = "first",
        options: Mapping[str, JSON] | None = None,
    ) -> Network:
        """Create a network."""
        return await controller.create_network(
            name,
            NAME,
            subnets=self.subnets if name == "first" else (),
            options={**self.options, **(options or {})},
        )

    async def sandbox(self, controller: Controller, name: str = "box") -> Sandbox:
        """Create a sandbox."""
        return await controller.create_sandbox(name, netns=self.netns)

    async def build(self, controller: Controller) -> None:
        """Make a network, and connect a sandbox to it."""
        network = await self.network(controller)
        await network.connect(await self.sandbox(controller))


async def clear(controller: Controller) -> None:
    """Remove everything of a controller."""
    for sandbox in controller.sandboxes:
        await sandbox.delete()
    for network in controller.networks:
        await network.delete(force=True)


async def settled(controller: Controller) -> State:
    """Return how the host is when what waits to be deleted is deleted."""
    services = controller._services
    services.reaper.want(singly=True)
    await services.reaper.reap()
    return await services.kernel.run(lambda sockets: host_state())


def host_state() -> State:
    """Return what a driver may not change for good. Blocks."""
    with NetlinkSocket() as route:
        links = [parse_link(it) for it in route.dump(dump_links())]
        routes = [
            parse_route(it)
            for version in (4, 6)
            for it in route.dump(dump_routes(version))
        ]
        addresses = [parse_address(it) for it in route.dump(dump_addresses())]
    names = {link.index: link.name for link in links}
    return {
        "links": sorted(names.values()),
        "addresses": sorted(
            f"{it.interface} on {names.get(it.index)}"
            for it in addresses
            if not it.interface.is_link_local
        ),
        "routes": sorted(
            f"{it.destination or 'default'} by {names.get(it.index)}"
            for it in routes
            if it.table == _RT_TABLE_MAIN and not _is_link_local(it.destination)
        ),
    }


def _is_link_local(destination: object) -> bool:
    return str(destination).startswith(("fe80:", "ff00:"))


def left_behind(before: State, after: State) -> str:
    """Say what is there in addition, or is missing; ``""`` if nothing is."""
    found = []
    for what, known in before.items():
        more = [it for it in after[what] if it not in known]
        less = [it for it in known if it not in after[what]]
        found += [f"{what}: {', '.join(more)} left behind"] if more else []
        found += [f"{what}: {', '.join(less)} removed"] if less else []
    return "; ".join(found)
