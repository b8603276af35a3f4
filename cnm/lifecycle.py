"""Starting and stopping a controller."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus

from . import garbage, naming, restore
from .bus import Bus
from .claim import claim, disown, recognise, unclaim
from .directory import Directory
from .dns import open_names
from .errors import (
    CNMError,
    SandboxNotFound,
    SubscriberTooSlow,
    TeardownError,
)
from .events import (
    ControllerStarted,
    ControllerStopped,
    Event,
)
from .firewall import Firewall, close_forwarding, dismiss, table_name
from .hookspecs import IPAMDriver, NetworkDriver, Observer
from .journal import Journal
from .linux import (
    HostRoutes,
    Kernel,
    Monitor,
    Sockets,
)
from .linux.announcer import Announcer
from .linux.forgetter import Forgetter
from .linux.lifelines import Lifelines
from .linux.privileges import require_capabilities
from .linux.reaper import Reaper
from .linux.removals import Removals
from .networks import Networks
from .plugins import DriverRegistry
from .ports import PortMapper, Proxy
from .running import Running
from .sandbox import Sandbox
from .services import Services
from .settings import Settings
from .tenants import Tenants
from .types import AddressPool
from .watching import Watcher

_logger = logging.getLogger(__name__)

#: Seconds that the removal of everything may take when an ephemeral controller stops.
STOP_TIMEOUT = 300
#: Events that may wait for an observer plugin.
OBSERVER_BUFFER = 10_000
#: The file whose content tells this machine from others, machine-id(5).
MACHINE_ID = "/etc/machine-id"


def _host_id() -> str:
    try:
        with open(MACHINE_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return socket.gethostname()


def _default_pools() -> tuple[AddressPool, ...]:
    from .ipam.pools import default_address_pools  # netaddr takes a while to import

    return default_address_pools(_host_id())


@asynccontextmanager
async def running(settings: Settings) -> AsyncGenerator[Running]:
    """Run a controller while the block lasts."""
    error: BaseException | None = None
    failures: list[Exception] = []
    async with AsyncExitStack() as stack:
        services = await start(settings, stack)
        async with anyio.create_task_group() as tasks:
            await start_tasks(services, tasks)
            started = ControllerStarted(
                controller=settings.name, report=services.report
            )
            for event in (*restore.events(services.report), started):
                services.bus.publish(event)
            try:
                yield Running(services)
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as exc:
                # leaves as itself, not in the task group's ExceptionGroup; the tasks
                # log what goes wrong, and raise nothing
                error = exc
            finally:
                with anyio.CancelScope(shield=True):
                    failures = await stop(services)
                    services.bus.publish(ControllerStopped(controller=settings.name))
                    services.bus.close()
            tasks.cancel_scope.cancel()
    what = f"stopping controller {settings.name!r}"
    if error is not None:
        for failure in failures:
            error.add_note(f"while {what}: {failure!r}")
        raise error
    if failures:
        raise TeardownError(what, failures)


async def start(settings: Settings, stack: AsyncExitStack) -> Services:
    """Start a controller: claim its name, restore what its store knows.

    :param stack: is given what has to be closed
    """
    await anyio.to_thread.run_sync(require_capabilities, "run a controller")
    directory, lock = await anyio.to_thread.run_sync(claim, settings)
    stack.push_async_callback(
        _shielded, anyio.to_thread.run_sync, unclaim, directory, lock
    )
    kernel = await stack.enter_async_context(
        Kernel(settings.netns, ready=settings.ready_namespaces)
    )
    await settings.store.open()
    stack.push_async_callback(_shielded, settings.store.close)
    await recognise(settings, directory, kernel)
    timeout = settings.driver_timeout
    drivers = DriverRegistry(NetworkDriver, settings.drivers, timeout)
    ipam_drivers = DriverRegistry(IPAMDriver, settings.ipam_drivers, timeout)
    observers = DriverRegistry(Observer, timeout=timeout)
    for registry in (drivers, ipam_drivers, observers):
        await anyio.to_thread.run_sync(registry.discover)
    routes = await kernel.run(lambda sockets: HostRoutes())
    stack.callback(routes.close)
    monitor = await kernel.run(lambda sockets: Monitor())
    stack.callback(monitor.close)
    removals = await kernel.run(lambda sockets: Removals(f"{directory}/netns"))
    # closing it takes the kernel 15 ms
    stack.push_async_callback(_shielded, anyio.to_thread.run_sync, removals.close)
    pools = settings.address_pools
    if pools is None:
        pools = await anyio.to_thread.run_sync(_default_pools)
    firewall = Firewall(
        table_name(settings.name),
        fwmark=settings.accept_fwmark,
        enabled=settings.firewall != "none",
        use=monitor.disregard,
        memory=f"{directory}/forwarding",
    )
    forgetter = Forgetter(kernel)
    proxy = Proxy(kernel, firewall) if settings.userland_proxy else None
    ports = PortMapper(
        kernel,
        firewall,
        binding4=settings.host_binding_ipv4,
        binding6=settings.host_binding_ipv6,
        proxy=proxy,
        forgetter=forgetter,
    )
    stack.push_async_callback(_shielded, ports.close)
    lifelines = Lifelines()
    stack.callback(lifelines.close)
    names = await open_names(kernel, settings.dns_cache_size)
    stack.callback(names.close)
    services = Services(
        name=settings.name,
        run_dir=directory,
        ephemeral=not settings.store.persistent,
        kernel=kernel,
        driver_timeout=timeout,
        firewall=firewall,
        ports=ports,
        proxy=proxy,
        allow_direct_routing=settings.allow_direct_routing,
        manage_forward=settings.manage_forward,
        repairs=settings.on_damage == "repair",
        store=settings.store,
        journal=Journal(settings.store),
        bus=Bus(),
        announcer=Announcer(kernel),
        names=names,
        reaper=Reaper(kernel),
        lifelines=lifelines,
        forgetter=forgetter,
        routes=routes,
        monitor=monitor,
        removals=removals,
        drivers=drivers,
        ipam_drivers=ipam_drivers,
        observers=observers,
        address_pools=pools,
        networks=Networks(routes),
        sandboxes=Directory[Sandbox](SandboxNotFound),
        tenants=Tenants(naming.key(directory, "", "host")),
    )
    stack.callback(services.bus.close)
    services.report = await restore.restore(services)
    return services


async def _shielded(work: Callable[..., Awaitable[object]], *args: object) -> None:
    """Do something even if the controller is left by cancellation."""
    with anyio.CancelScope(shield=True):
        await work(*args)


async def start_tasks(services: Services, tasks: TaskGroup) -> None:
    """Start what a controller does in the background."""
    jobs = (
        services.announcer.run,
        services.reaper.run,
        services.forgetter.run,
        services.names.run,
    )
    services.bus.watch(partial(naming.observe, services))
    for job in jobs:
        tasks.start_soon(_guard, job)
    watcher = Watcher(services)
    tasks.start_soon(_guard, watcher.watch)
    tasks.start_soon(_guard, watcher.watch_namespaces)
    tasks.start_soon(_guard, watcher.mend)
    tasks.start_soon(_guard, partial(garbage.mourn, services))
    if services.proxy is not None:
        tasks.start_soon(_guard, services.proxy.run)
    for info in services.observers.available:
        await tasks.start(_observe, services, info.name)


async def _guard(job: Callable[[], Awaitable[None]]) -> None:
    """Run a task of the controller; it must not take the application down."""
    try:
        await job()
    except Exception:
        _logger.exception("a task of the controller failed")


async def _observe(
    services: Services, name: str, *, task_status: TaskStatus[None]
) -> None:
    """Hand all events to an observer plugin."""
    try:
        observer = await services.observers.get(name)
    except CNMError:
        _logger.exception("observer %r cannot be used", name)
        task_status.started()
        return
    async with services.bus.subscribe((Event,), OBSERVER_BUFFER) as events:
        task_status.started()
        try:
            async for event in events:
                try:
                    await observer.call("cnm_event", event)
                except Exception:
                    _logger.exception("observer %r failed on %s", name, event.name)
        except SubscriberTooSlow:
            _logger.exception("observer %r hears no further events", name)


async def stop(services: Services) -> list[Exception]:
    """Stop a controller; an ephemeral one removes all that it has made.

    :return: what failed
    """
    failures: list[Exception] = []
    with anyio.move_on_after(STOP_TIMEOUT):
        await services.turns.end()
    if services.ephemeral:
        # others depend on configuration networks, and on those that have their parents
        networks = sorted(
            services.networks, key=lambda n: (n.info.config_only, not n.state.parents)
        )
        removals = [sandbox.delete for sandbox in services.sandboxes]
        removals += [partial(network.delete, force=True) for network in networks]
        for remove in removals:
            try:
                with anyio.fail_after(STOP_TIMEOUT):
                    await remove()
            except Exception as exc:
                failures.append(exc)
    services.reaper.want(singly=True)
    run = services.kernel.run
    last: list[Callable[[], Awaitable[None]]]
    last = [services.reaper.reap, services.forgetter.flush]
    if services.ephemeral:
        last.append(lambda: run(remove_table, services))
    elif not services.networks and not services.sandboxes:
        last.append(lambda: run(lambda sockets: disown(services.run_dir)))
    for step in last:
        try:
            await step()
        except Exception as exc:
            failures.append(exc)
    return failures


def remove_table(sockets: Sockets, services: Services) -> None:
    """Plan: remove what a controller has in the host's firewall."""
    if services.manage_forward:
        dismiss(sockets, services.mark)
    close_forwarding(sockets, services.firewall)
    services.firewall.remove(sockets)
