"""How endpoints leave a sandbox, and how a sandbox is removed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING

from . import allocation, interfaces, publishing, sandbox_plans
from .dns import undo_redirection
from .errors import EndpointNotFound, StoreError
from .events import (
    EndpointDeleted,
    EndpointLeft,
    EndpointUnpublished,
    LeaveInfo,
    NetworkDeleted,
    PublishInfo,
    SandboxDeleted,
)
from .journal import Operation
from .linux import Sockets
from .plugins import Driver
from .publishing import Publishing
from .records import ENDPOINT, NETWORK, SANDBOX, Attachment, endpoint_record
from .rollback import Rollback
from .services import Services
from .store import Delete, Put
from .types import JSON, EndpointInfo, NetworkInfo, SandboxInfo

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .network import Network
    from .sandbox import Sandbox


@contextmanager
def _noting(failures: list[Exception], *, force: bool = True) -> Iterator[None]:
    """Go on past the block if it fails, if forced."""
    try:
        yield
    except Exception as exc:
        if not force:
            raise
        failures.append(exc)


async def leave(
    services: Services,
    endpoint: Endpoint,
    attachment: Attachment,
    sandbox: Sandbox,
    *,
    force: bool,
) -> list[Exception]:
    """Have an endpoint leave its sandbox; the caller has the locks of both.

    Its ports and its default routes move to another endpoint first, if there is one.

    :param force: go on past all failures, those of the driver as well
    :return: what failed
    """
    failures: list[Exception] = []
    left: LeaveInfo | None = None
    async with services.journal.operation("endpoint.leave", endpoint.id) as operation:
        async with Rollback() as rollback:
            members = sandbox.members(leaving=endpoint)
            changes = await publishing.settle(
                *(services, sandbox.info, members, rollback),
                tolerant=True,
                failures=failures if force else None,
            )
            with _noting(failures, force=force):
                await sandbox.reroute_without(endpoint)
            rollback.push(sandbox.reroute)
            with _noting(failures, force=force):
                left = await tell_left(
                    services, endpoint, sandbox.info, attachment.interface
                )
        endpoint.leaving = True
        services.names.leave(endpoint.info)
        with _noting(failures):  # the driver has been told: there is no way back
            await take_out(services, sandbox, attachment.index, left, endpoint)
        record = endpoint_record(replace(endpoint.info, ports=()), None)
        others = [it.record() for it in changes if it.endpoint is not endpoint]
        await operation.finish(Put(ENDPOINT + endpoint.id, record), *others)
    for change in changes:
        change.endpoint.note(change)
    endpoint.detached()
    sandbox.detach(endpoint)
    return failures


async def tell_left(
    services: Services, endpoint: Endpoint, sandbox: SandboxInfo, interface: str
) -> LeaveInfo | None:
    """Tell the driver that an endpoint leaves."""
    event = EndpointLeft(endpoint=endpoint.info, sandbox=sandbox, interface=interface)
    endpoint.leaving = True
    try:
        return await services.answer(endpoint.handler, event, LeaveInfo, NoneType)
    except BaseException:
        endpoint.leaving = False
        raise


async def undo_join(
    services: Services,
    driver: Driver,
    info: EndpointInfo,
    sandbox: SandboxInfo,
    interface: str,
) -> list[Exception]:
    """Have a driver undo what it has done for an endpoint that is in no sandbox now.

    It may remember that, though nobody else does.

    :return: what failed
    """
    failures: list[Exception] = []
    for event in (
        EndpointUnpublished(endpoint=info, sandbox=sandbox, bindings=info.ports),
        EndpointLeft(endpoint=info, sandbox=sandbox, interface=interface),
    ):
        with _noting(failures):
            answer = await services.handle(driver, event)
            if answer is not None and answer.plan is not None:
                await services.run(answer.plan, answer.plan)
            if isinstance(answer, PublishInfo) and answer.done is not None:
                answer.done()
    return failures


async def take_out(
    services: Services,
    sandbox: Sandbox,
    index: int,
    left: LeaveInfo | None,
    endpoint: Endpoint,
) -> None:
    """Take an endpoint's interface out of a sandbox that lives on."""
    files = services.names.prepare(sandbox.situation(without=endpoint))
    plan = partial(
        interfaces.take_out, key=sandbox.key, index=index, left=left, finish=files.run
    )
    await services.run(plan, left and left.plan)
    services.names.adopt(files)
    services.reaper.want(sandbox.key)
    if left is not None:
        services.forgetter.addresses(left.forget)


async def forget(
    services: Services, driver: Driver, info: EndpointInfo, *, force: bool
) -> list[Exception]:
    """Have the driver forget an endpoint, and give back its addresses.

    :return: what failed, if forced
    """
    failures: list[Exception] = []
    ipam: Driver | None = None
    with _noting(failures, force=force):
        ipam = await services.ipam(info.network.ipam)  # it may have been uninstalled
    with _noting(failures, force=force):
        await services.handle(driver, EndpointDeleted(endpoint=info))
    own = (info.address, info.address6)
    with _noting(failures, force=force):
        if ipam is not None:
            await allocation.release_addresses(ipam, info.network, info.id, own)
    return failures


async def remove_network(
    services: Services, network: Network, *, force: bool
) -> list[Exception]:
    """Remove a network, and its endpoints if forced; the caller has its lock.

    :return: what failed
    """
    failures: list[Exception] = []
    identity, intent = network.id, {"force": force}
    journal = services.journal
    async with journal.operation("network.delete", identity, intent) as operation:
        if force:
            failures += await remove_endpoints(network.endpoints)
        if network.handler is not None:
            failures += await _dismantle(
                services, network.handler, network.info, force=force
            )
        await operation.finish(Delete(NETWORK + identity, durable=True))
    if services.networks.carried_by(network):
        services.reaper.want(singly=True)
        with _noting(failures):
            await services.reaper.reap()
        services.damage.suspect()  # nobody tells us of what we remove ourselves
    with _noting(failures):
        await services.admit()
    return failures


async def remove_endpoints(endpoints: Iterable[Endpoint]) -> list[Exception]:
    """Remove endpoints by force, one after the other; return what failed."""
    failures: list[Exception] = []
    for each in endpoints:
        try:
            await each.delete(force=True)
        except EndpointNotFound:
            continue
        except StoreError:  # nothing has been done to the endpoint
            raise
        except Exception as exc:
            failures.append(exc)
    return failures


async def _dismantle(
    services: Services, driver: Driver, info: NetworkInfo, *, force: bool
) -> list[Exception]:
    """Have the driver forget a network, and give back its subnets."""
    failures: list[Exception] = []
    with _noting(failures, force=force):
        await services.handle(driver, NetworkDeleted(network=info))
    with _noting(failures):
        ipam = await services.ipam(info.ipam)
        await allocation.release_network(ipam, info)
    return failures


async def remove(
    services: Services, sandbox: Sandbox, directory: str
) -> list[Exception]:
    """Remove a sandbox and its endpoints; the caller has the locks of all of them.

    :param directory: directory of the sandbox's files
    :return: what failed
    """
    intent: dict[str, JSON] = {"endpoints": [each.id for each in sandbox.endpoints]}
    journal = services.journal
    async with journal.operation("sandbox.delete", sandbox.id, intent) as operation:
        return await _remove(services, sandbox, directory, operation)


async def _remove(
    services: Services, sandbox: Sandbox, directory: str, operation: Operation
) -> list[Exception]:
    endpoints = sandbox.endpoints
    failures: list[Exception] = []
    left: list[LeaveInfo | None] = []
    published: list[Publishing] = []
    for endpoint in endpoints:
        with _noting(failures):
            ports = await publishing.withdraw(services, sandbox.info, endpoint)
            published += [ports] if ports is not None else []
        try:
            left.append(
                await tell_left(services, endpoint, sandbox.info, endpoint.interface)
            )
        except Exception as exc:
            failures.append(exc)
            left.append(None)
    failures += await _take_down(services, sandbox, published, left, directory)
    withdrawn = [ports for ports in published if ports.ports is not None]
    for ports in withdrawn:
        ports.done()
    for info in left:
        services.forgetter.addresses(info.forget if info else ())
    for endpoint in endpoints:
        failures += await forget(services, endpoint.handler, endpoint.info, force=True)
    keys = [Delete(ENDPOINT + endpoint.id) for endpoint in endpoints]
    await operation.finish(*keys, Delete(SANDBOX + sandbox.id))
    for ports in withdrawn:
        ports.endpoint.note(ports.change(ports.endpoint.info))
    for endpoint in endpoints:
        endpoint.detached()
        sandbox.detach(endpoint)
        endpoint.removed()
    services.lifelines.untie(sandbox.id)
    services.sandboxes.remove(sandbox)
    services.bus.publish(SandboxDeleted(sandbox=sandbox.info))
    return failures


async def _take_down(
    services: Services,
    sandbox: Sandbox,
    published: Sequence[Publishing],
    left: Sequence[LeaveInfo | None],
    directory: str,
) -> list[Exception]:
    """Take the ports back, the interfaces and the namespace down."""
    failures: list[Exception] = []
    endpoints = sandbox.endpoints
    for endpoint in endpoints:
        services.names.leave(endpoint.info)
    redirected = services.names.redirects(sandbox.info)
    close = services.names.remove(sandbox.info)
    plans = [close, *(ports.run for ports in published)]
    parts = [*(ports.plan for ports in published), *(it and it.plan for it in left)]
    key = sandbox.key
    steps: list[Callable[[Sockets], None]] = []
    if sandbox.adopted:
        steps += plans
    if sandbox.adopted and redirected:
        steps.append(partial(undo_redirection, key=key))
    if sandbox.adopted:
        for endpoint, info in zip(endpoints, left, strict=True):
            index = endpoint.attachment.index if endpoint.attachment else 0
            out = partial(interfaces.take_out, key=key, index=index, left=info)
            steps.append(out)
        left = ()
    for step in steps:
        with _noting(failures):
            await services.run(step, *parts)
    if sandbox.adopted:  # endpoints may have left a moment ago
        services.reaper.want(sandbox.key)
        with _noting(failures):
            await services.reaper.reap()
    async with services.tenants.going(sandbox.info) as key:
        destroy = partial(sandbox_plans.destroy, key=key, directory=directory)
        try:
            await services.run(partial(destroy, first=plans, left=left), *parts)
        except Exception as exc:
            failures.append(exc)
            if not isinstance(exc, ExceptionGroup):
                # a driver's plan hangs; what is ours is removed all the same
                with _noting(failures):
                    await services.kernel.run(partial(destroy, first=[close], left=()))
    services.reaper.forget(sandbox.key)
    if endpoints:
        services.reaper.want()
    return failures
