"""What networks, endpoints and sandboxes share: the parts of their controller."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import NoneType
from typing import TYPE_CHECKING, TypeVar

from .acceptance import refusal
from .allocation import Surroundings
from .bus import Bus
from .damage import Suspicion
from .directory import Directory
from .dns import Names, name_servers
from .errors import DriverError, InvalidError, KernelError, SandboxNotFound
from .events import (
    Capability,
    DriverEvent,
    DriverFailed,
    DriverLoaded,
    Event,
    JoinInfo,
)
from .firewall import Firewall, admit
from .journal import Journal
from .linux import HostRoutes, Kernel, Monitor, Sockets
from .linux.announcer import Announcer
from .linux.forgetter import Forgetter
from .linux.lifelines import Lifelines
from .linux.reaper import Reaper
from .linux.removals import Removals
from .networks import Networks
from .plans import Plan
from .plugins import Driver, DriverRegistry
from .reports import RestoreReport
from .rollback import Rollback
from .store import Store
from .tenants import Tenants
from .turns import Turns
from .types import AddressPool, EndpointInfo, IPNetwork
from .validation import shown

if TYPE_CHECKING:
    from .ports import PortMapper, Proxy
    from .sandbox import Sandbox

R = TypeVar("R")
T = TypeVar("T")


@dataclass(kw_only=True, slots=True)
class Services:
    """The parts of a controller.

    :ivar name: the controller's name
    :ivar run_dir: directory of its namespaces and files
    :ivar manage_forward: whether we put rules into the chains of other firewalls
    :ivar repairs: whether damage that is noticed is mended, rather than reported
    :ivar driver_timeout: seconds that a plan of a driver may take
    :ivar turns: who begins next
    :ivar damage: whether something may be damaged
    :ivar joins: how many endpoints have been joined so far
    :ivar ephemeral: whether what it makes goes when it stops
    :ivar report: what was found when the controller started
    """

    name: str
    run_dir: str
    ephemeral: bool
    kernel: Kernel
    driver_timeout: float
    firewall: Firewall
    ports: PortMapper
    proxy: Proxy | None
    allow_direct_routing: bool
    manage_forward: bool
    repairs: bool
    store: Store
    journal: Journal
    bus: Bus
    announcer: Announcer
    names: Names
    reaper: Reaper
    lifelines: Lifelines
    forgetter: Forgetter
    routes: HostRoutes
    monitor: Monitor
    removals: Removals
    drivers: DriverRegistry
    ipam_drivers: DriverRegistry
    observers: DriverRegistry
    address_pools: tuple[AddressPool, ...]
    networks: Networks
    sandboxes: Directory[Sandbox]
    tenants: Tenants
    turns: Turns = field(default_factory=Turns)
    damage: Suspicion = field(default_factory=Suspicion)
    capabilities: dict[str, Capability] = field(default_factory=dict)
    joins: int = 0
    report: RestoreReport = field(default_factory=RestoreReport)

    @property
    def mark(self) -> str:
        """What the aliases of our links begin with; an object's id follows."""
        return f"cnm:{self.name}"

    def has_link(self, identity: str) -> bool:
        """Tell whether a network or an endpoint should have a link at present."""
        network = self.networks.get(identity)
        if network is not None:
            return not network.deleting
        endpoint = self.networks.endpoints.get(identity)
        return endpoint is not None and endpoint.joined and not endpoint.leaving

    def require_sandbox(self, sandbox: Sandbox) -> None:
        """Check that an argument is a sandbox of this controller.

        :raises InvalidError: if it is no sandbox
        :raises SandboxNotFound: if it is another controller's, or has been deleted
        """
        identity = getattr(sandbox, "id", None)
        if not isinstance(identity, str):
            raise InvalidError(f"invalid sandbox: {shown(sandbox)}")
        if self.sandboxes.get(identity) is not sandbox:
            raise SandboxNotFound(sandbox.name)

    def next_order(self) -> int:
        """Return a number that is higher with each call, for the order of joining."""
        self.joins += 1
        return self.joins

    async def driver(self, name: str) -> Driver:
        """Return a network driver, loading it if need be."""
        return await self.drivers.get(name, self._loaded)

    async def _loaded(self, driver: Driver) -> None:
        event = DriverLoaded(
            driver=driver.name,
            controller=self.name,
            kernel=self.kernel.within(self.driver_timeout),
            firewall=self.firewall,
            ports=self.ports,
            allow_direct_routing=self.allow_direct_routing,
        )
        capability = await self.answer(driver, event, Capability, NoneType)
        self.capabilities[driver.name] = capability or Capability()

    async def ipam(self, name: str) -> Driver:
        """Return an IPAM driver, loading it if need be."""
        return await self.ipam_drivers.get(name)

    async def handle(self, driver: Driver, event: DriverEvent[R]) -> R:
        """Have a driver handle an event; tell subscribers if it fails."""
        try:
            return await driver.handle(event)
        except DriverError as exc:
            self._tell_failed(driver.name, event, str(exc))
            raise

    async def run(self, plan: Callable[[Sockets], T], *parts: object) -> T:
        """Run a plan that has plans of drivers in it; tell subscribers if these fail.

        :param parts: the plans that drivers have returned; None stands for none
        :raises DriverError: if one of them takes too long
        """
        plans = [it for it in parts if isinstance(it, Plan)]
        try:
            return await self.kernel.within(self.driver_timeout).run(plan)
        except KernelError as exc:
            running = [it for it in plans if it.running]
            if exc.errno != errno.ETIMEDOUT or not running:
                raise
            reason = f"its plan has not ended within {self.driver_timeout:g} s"
            raise self.failure(running[0].driver, running[0].event, reason) from exc
        finally:
            for each in plans:
                if each.error:
                    self._tell_failed(each.driver, each.event, each.error)
                    each.error = ""

    def failure(self, driver: str, event: Event, reason: object) -> DriverError:
        """Return the error of a driver that has failed, and tell subscribers of it."""
        error = DriverError(driver, event.name, reason)
        self._tell_failed(driver, event, str(error))
        return error

    def _tell_failed(self, driver: str, event: Event, error: str) -> None:
        self.bus.publish(DriverFailed(driver=driver, event=event, error=error))

    async def answer(
        self,
        driver: Driver,
        event: DriverEvent[R],
        *kinds: type,
        undo: Callable[[], Awaitable[object]] | None = None,
    ) -> R:
        """Have a driver handle an event, and check what it returns.

        :param kinds: what its result may be
        :param undo: what is done if the result is something else, or of no use
        :raises DriverError: also if it is something else, or of no use
        """
        result = await self.handle(driver, event)
        reason = refusal(result, kinds, kinds[0].__name__)
        if not reason:
            return result
        async with Rollback() as rollback:
            if undo is not None:
                rollback.push(undo)
            raise self.failure(driver.name, event, reason)

    def announce(self, endpoint: EndpointInfo, join: JoinInfo) -> None:
        """Announce the addresses of an endpoint that has joined."""
        if not join.announce:
            return
        own = (endpoint.address, endpoint.address6)
        self.announcer.announce(
            endpoint.id,
            join.announce,
            [address.ip for address in own if address is not None],
            endpoint.mac,
            times=join.announcements,
            interval=join.announce_interval,
        )

    async def admit(self) -> None:
        """Have other firewalls let the bridges' packets through, if we are asked to."""
        if self.manage_forward:
            await self.kernel.run(admit, self.mark, self.firewall.bridges)

    async def surroundings(self) -> Surroundings:
        """Find out what a subnet must not overlap."""
        exclude = await self.kernel.run(self._occupied)
        return Surroundings(address_pools=self.address_pools, exclude=exclude)

    def _occupied(self, sockets: Sockets) -> tuple[IPNetwork, ...]:
        return (
            *self.routes.networks(4),
            *self.routes.networks(6),
            *name_servers(),
        )
