"""The controller: where applications begin."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Literal, Self, TypeVar, overload

import anyio
import anyio.to_thread

import cnm

from .bus import Subscription
from .errors import (
    ForbiddenError,
    InvalidError,
)
from .events import Event
from .plugins import DriverRegistry
from .requests import network_request, sandbox_request
from .settings import Settings, check_settings
from .store import Store
from .types import (
    JSON,
    AddressPool,
    IPAddress,
    IPNetwork,
)
from .upkeep import Upkeep
from .validation import shown

if TYPE_CHECKING:
    from .running import Running
    from .services import Services

E = TypeVar("E", bound=Event)


def _prepare(settings: Settings) -> AbstractAsyncContextManager[Running]:
    # what works on the kernel takes as long to import as all the rest of cnm: who only
    # imports cnm does not wait for it, and the event loop goes on meanwhile
    from . import lifecycle

    return lifecycle.running(settings)


class Controller(Upkeep, anyio.AsyncContextManagerMixin):
    """Manages the networks and sandboxes of one host network.

    Use it as an async context manager. With a store that persists, what it has made
    stays when the block ends, and is taken up again by the next controller of the name;
    without one, everything is removed. An exception in the block comes out as itself.

    :param name: tells controllers on one host network apart: lower-case letters, digits
        and hyphens, at most 32
    :param store: where the controller keeps its journal; in memory if None
    :param netns: path of the network namespace to work in; the process's own if None
    :param address_pools: blocks from which networks get subnets, such as
        ``"10.0.0.0/8:24"``; libnetwork's, and more, if None
    :param drivers: network drivers by name, besides those that are installed
    :param ipam_drivers: IPAM drivers by name, besides those that are installed
    :param run_dir: directory for namespaces and files; /run/cnm if None, or below
        ``$XDG_RUNTIME_DIR`` where /run is not writable
    :param firewall: ``"none"`` for those who bring their own: no table is made,
        forwarding is not switched on, and ports are published by the proxy alone
    :param manage_forward: where dockerd or iptables drop forwarded packets, put rules
        into their chains (DOCKER-USER, FORWARD) that accept those of our bridges; see
        :meth:`diagnose`
    :param userland_proxy: have a proxy inside the controller serve connections to
        published ports at ``::1``, which the kernel cannot forward
    :param host_binding_ipv4: address of the host at which ports are published unless
        their network or their request has another; all of them if None
    :param host_binding_ipv6: the same for IPv6
    :param allow_direct_routing: let in what is sent to a sandbox's own address, if the
        port is published; with networks of mode ``nat`` only the host's address is open
    :param accept_fwmark: let in packets that carry a mark, ``"0x1"`` or ``"0x1/0x3"``
    :param dns_cache_size: how many answers of the host's name servers are kept, for as
        long as they say; 0 for none
    :param ready_namespaces: how many network namespaces may be made in advance, by a
        thread in the background, so that a sandbox has one at once; 0 for none. The
        first is made when the first sandbox is
    :param on_damage: what is done when somebody removes links, routes or addresses of
        ours: :meth:`repair`, or only report it with DamageFound. The nftables table is
        put back in any case
    :param driver_timeout: seconds that a handler of a driver may take, and a plan that
        it returns; after that the operation fails, and is undone
    :raises InvalidError: with everything that is wrong with the parameters

    Entering the block raises:

    :raises ConflictError: if a controller of the name runs on the host network
    :raises MissingCapability: if the process lacks CAP_NET_ADMIN or CAP_SYS_ADMIN
    :raises MissingFeature: if the kernel lacks something, such as nftables
    :raises StoreError: if the store cannot be opened
    """

    def __init__(
        self,
        name: str = "cnm",
        *,
        store: Store | None = None,
        netns: str | None = None,
        address_pools: Iterable[AddressPool | tuple[str, int] | str] | None = None,
        drivers: Mapping[str, object] | None = None,
        ipam_drivers: Mapping[str, object] | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        firewall: Literal["nftables", "none"] = "nftables",
        manage_forward: bool = False,
        userland_proxy: bool = True,
        host_binding_ipv4: str | IPAddress | None = None,
        host_binding_ipv6: str | IPAddress | None = None,
        allow_direct_routing: bool = False,
        accept_fwmark: str | int | None = None,
        dns_cache_size: int = 10_000,
        ready_namespaces: int = 16,
        on_damage: Literal["repair", "report"] = "repair",
        driver_timeout: float = 60.0,
    ) -> None:
        self._settings = check_settings(
            name,
            store=store,
            netns=netns,
            address_pools=address_pools,
            drivers=drivers,
            ipam_drivers=ipam_drivers,
            run_dir=run_dir,
            firewall=firewall,
            manage_forward=manage_forward,
            userland_proxy=userland_proxy,
            host_binding_ipv4=host_binding_ipv4,
            host_binding_ipv6=host_binding_ipv6,
            allow_direct_routing=allow_direct_routing,
            accept_fwmark=accept_fwmark,
            dns_cache_size=dns_cache_size,
            ready_namespaces=ready_namespaces,
            on_damage=on_damage,
            driver_timeout=driver_timeout,
        )
        self._name = self._settings.name
        self._running: Running | None = None

    def __repr__(self) -> str:
        if self._running is None:
            return f"<Controller {self._name!r}, not running>"
        return (
            f"<Controller {self._name!r}: {len(self.networks)} networks, "
            f"{len(self.sandboxes)} sandboxes>"
        )

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        try:
            starting = await anyio.to_thread.run_sync(_prepare, self._settings)
            async with starting as self._running:
                yield self
        finally:
            self._running = None

    @property
    def _work(self) -> Running:
        if self._running is None:
            raise ForbiddenError(
                f"controller {self._name!r} is not running: use it in 'async with'"
            )
        return self._running

    @property
    def _services(self) -> Services:
        return self._work.services

    @property
    def name(self) -> str:
        """The controller's name."""
        return self._name

    @property
    def networks(self) -> tuple[cnm.Network, ...]:
        """All networks, in the order of their creation."""
        return tuple(self._services.networks)

    @property
    def sandboxes(self) -> tuple[cnm.Sandbox, ...]:
        """All sandboxes, in the order of their creation."""
        return tuple(self._services.sandboxes)

    def network(self, ref: str) -> cnm.Network:
        """Return a network. A full id beats a name, a name beats a unique id prefix.

        :raises NetworkNotFound: if there is none
        """
        return self._services.networks.find(ref)

    def sandbox(self, ref: str) -> cnm.Sandbox:
        """Return a sandbox. A full id beats a name, a name beats a unique id prefix.

        :raises SandboxNotFound: if there is none
        """
        return self._services.sandboxes.find(ref)

    @property
    def drivers(self) -> DriverRegistry:
        """The network drivers: which are available, loaded, refused and why."""
        return self._services.drivers

    @property
    def ipam_drivers(self) -> DriverRegistry:
        """The IPAM drivers: which are available, loaded, refused and why."""
        return self._services.ipam_drivers

    async def create_network(
        self,
        name: str,
        driver: str = "bridge",
        *,
        subnets: Iterable[str | IPNetwork] = (),
        gateways: Iterable[str | IPAddress] = (),
        ip_ranges: Iterable[str | IPNetwork] = (),
        aux_addresses: Mapping[str, str | IPAddress] | None = None,
        ipam: str = "default",
        ipam_options: Mapping[str, JSON] | None = None,
        internal: bool = False,
        ipv4: bool = True,
        ipv6: bool | None = None,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, JSON] | None = None,
        attachable: bool = False,
        config_only: bool = False,
        config_from: str = "",
    ) -> cnm.Network:
        """Create a network.

        If it fails or is cancelled, nothing is left of it. Of several calls with one
        name, one succeeds.

        :param name: its name, unique in the controller
        :param driver: name of the driver that makes it
        :param subnets: its subnets. A family that is enabled and has none gets one from
            the address pools; ``"0.0.0.0/24"`` and ``"::/120"`` ask for one of a size
        :param gateways: gateways, each in one of the subnets; the first address of a
            subnet that has none, if the driver needs gateways
        :param ip_ranges: parts of the subnets, from which addresses are chosen
        :param aux_addresses: addresses that are never given to endpoints, by name
        :param ipam: name of the IPAM driver
        :param internal: whether the network is to have no way out
        :param ipv4: whether endpoints get IPv4 addresses
        :param ipv6: whether endpoints get IPv6 addresses; None stands for True if an
            IPv6 subnet is given
        :param options: options of the driver, by short name or libnetwork's label
        :param attachable: kept for those who manage containers; it changes nothing here
        :param config_only: only keep the configuration, for other networks to take
        :param config_from: name of the network to take the configuration from
        :raises InvalidError: with everything that is wrong with the parameters
        :raises NameConflict: if there is a network of the name
        :raises DriverNotFound: if there is no such driver
        :raises PoolOverlap: if a subnet overlaps one that is in use
        :raises NoAvailablePool: if the address pools are used up
        :raises ForbiddenError: if parameters do not go with config_only or config_from
        :raises DriverError: if the driver fails
        """
        work = self._work
        request = network_request(
            name,
            driver=driver,
            subnets=subnets,
            gateways=gateways,
            ip_ranges=ip_ranges,
            aux_addresses=aux_addresses,
            ipam=ipam,
            ipam_options=ipam_options,
            internal=internal,
            attachable=attachable,
            ipv4=ipv4,
            ipv6=ipv6,
            labels=labels,
            options=options,
            config_only=config_only,
            config_from=config_from,
        )
        return await work.create_network(request)

    async def create_sandbox(
        self,
        name: str,
        *,
        hostname: str = "",
        domainname: str = "",
        dns: Iterable[str | IPAddress] = (),
        dns_search: Iterable[str] = (),
        dns_options: Iterable[str] = (),
        extra_hosts: Mapping[str, str | IPAddress] | None = None,
        netns: str | int | None = None,
        bound_to: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> cnm.Sandbox:
        """Create a sandbox: a network stack of its own.

        If it fails or is cancelled, nothing is left of it.

        :param name: its name, unique in the controller
        :param hostname: the host name that its /etc/hosts gives to its addresses
        :param domainname: the domain that its /etc/hosts adds
        :param dns: name servers that are asked, from within the sandbox, for names that
            are not of its networks; if empty the host's, from the host
        :param dns_search: search domains; the host's if empty, none if ``["."]``
        :param dns_options: options of resolv.conf(5); the host's if empty
        :param extra_hosts: addresses by name, for its /etc/hosts and its resolver;
            ``"host-gateway"`` stands for the host as the sandbox sees it
        :param netns: None to make a network namespace; the path of one, the id of a
            process that is in one, or ``"host"`` for the controller's own, to adopt it.
            An adopted namespace is left as it was found; the controller's own can be
            in no other network than one of driver ``host``
        :param bound_to: id of a process with which the sandbox ends: it is deleted when
            the process has ended, also if that happens while no controller runs
        :raises InvalidError: with everything that is wrong with the parameters
        :raises NameConflict: if there is a sandbox of the name
        """
        work = self._work
        await work.services.turns.take()
        request = sandbox_request(
            name,
            hostname=hostname,
            domainname=domainname,
            dns=dns,
            dns_search=dns_search,
            dns_options=dns_options,
            extra_hosts=extra_hosts,
            netns=netns,
            bound_to=bound_to,
            labels=labels,
        )
        return await work.create_sandbox(request)

    @overload
    def subscribe(
        self, *, buffer: int = 1024
    ) -> AbstractAsyncContextManager[Subscription[Event]]: ...
    @overload
    def subscribe(
        self, *types: type[E], buffer: int = 1024
    ) -> AbstractAsyncContextManager[Subscription[E]]: ...
    def subscribe(
        self, *types: type[Event], buffer: int = 1024
    ) -> AbstractAsyncContextManager[Subscription[Event]]:
        """Hear of events, from entering the block until leaving it.

        Events come in the order in which they happened, each after it has been stored.
        They are never held back for a subscriber, and never lost in silence: one that
        is too slow gets SubscriberTooSlow.

        :param types: classes of events, or base classes of them; all if none is given
        :param buffer: how many events may wait for the subscriber
        :raises InvalidError: if one of the types is no class of events
        """
        wrong = [
            shown(kind)
            for kind in types
            if not (isinstance(kind, type) and issubclass(kind, Event))
        ]
        if wrong:
            raise InvalidError(f"types: expected classes of events, not {wrong[0]}")
        if isinstance(buffer, bool) or not isinstance(buffer, int) or buffer < 1:
            raise InvalidError(f"buffer: expected at least 1, not {shown(buffer)}")
        return self._services.bus.subscribe(types or (Event,), buffer)
