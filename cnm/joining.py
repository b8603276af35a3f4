"""How endpoints join sandboxes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import anyio

from . import leaving, publishing
from .attaching import Record, arriving, attach
from .errors import CNMError, ForbiddenError
from .events import EndpointCreated, EndpointJoined, JoinInfo
from .interfaces import is_home, remove_marked
from .journal import Deed, Operation
from .records import ENDPOINT, Attachment, endpoint_record
from .roles import Change, Member
from .rollback import Rollback
from .services import Services
from .store import Put
from .types import JSON, EndpointInfo

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .sandbox import Sandbox

_logger = logging.getLogger(__name__)


async def join(services: Services, endpoint: Endpoint, sandbox: Sandbox) -> None:
    """Join an endpoint to a sandbox; the caller has the locks of both."""
    name = await _choose_name(endpoint, sandbox)
    intent = {"sandbox": sandbox.id, "interface": name}
    async with _operation(services, "endpoint.join", endpoint, intent) as operation:
        record = endpoint_record(endpoint.info, None)
        done = await _join(services, endpoint, sandbox, name, record, operation)
    _tell(services, done)


def connection(services: Services, info: EndpointInfo, sandbox: Sandbox) -> Operation:
    """Return an operation for :func:`connect`, to begin before the endpoint is made."""
    intent = _connecting(endpoint_record(info, None), sandbox, "")
    return services.journal.operation("endpoint.connect", info.id, intent)


async def connect(
    services: Services, endpoint: Endpoint, sandbox: Sandbox, making: Rollback
) -> None:
    """Join an endpoint that has just been made, and that is not recorded yet.

    The caller has the locks of both.

    :param making: how to undo what has been done to make it; a :func:`connection`, if
        that had to be recorded
    """
    name = await _choose_name(endpoint, sandbox)
    record = endpoint_record(endpoint.info, None)
    if isinstance(making, Operation):
        done = await _join(services, endpoint, sandbox, name, record, making)
    else:
        intent = _connecting(record, sandbox, name)
        operation = _operation(services, "endpoint.connect", endpoint, intent)
        async with operation:
            operation.absorb(making)
            done = await _join(services, endpoint, sandbox, name, record, operation)
    services.bus.publish(EndpointCreated(endpoint=done.event.endpoint))
    _tell(services, done)


def _connecting(
    record: dict[str, JSON], sandbox: Sandbox, interface: str
) -> dict[str, JSON]:
    return {"endpoint": record, "sandbox": sandbox.id, "interface": interface}


def _operation(
    services: Services, deed: Deed, endpoint: Endpoint, intent: Mapping[str, JSON]
) -> Operation:
    """Return an operation whose intent its plan records, if the driver allows that."""
    planned = services.capabilities[endpoint.handler.name].planned
    return services.journal.operation(deed, endpoint.id, intent, planned=planned)


class _Done(NamedTuple):
    """What there is to tell of an endpoint that has joined."""

    event: EndpointJoined
    answer: JoinInfo
    changes: tuple[Change, ...]


async def _join(
    services: Services,
    endpoint: Endpoint,
    sandbox: Sandbox,
    name: str,
    before: Mapping[str, JSON],
    operation: Operation,
) -> _Done:
    """Have an endpoint's interface and its ports made, and record them.

    :param name: name of the interface
    :param before: the endpoint's record so far
    """
    joined = _joined(endpoint, sandbox, name)
    undo = partial(_undo, services, endpoint, joined)
    answer = await services.answer(endpoint.handler, joined, JoinInfo, undo=undo)
    operation.push(undo)
    _check_company(sandbox, endpoint, answer)
    if sandbox.adopted and not answer.no_interface:
        await _check_namespace(services, sandbox, endpoint)
    order = services.next_order()
    candidate = arriving(endpoint.info, answer, order)
    mine = Member(endpoint=endpoint, info=endpoint.info, candidate=candidate)
    record = Record(endpoint, before, operation)
    if answer.no_interface:
        await operation.begin()
        record.attachment = Attachment.without_interface(sandbox.id, order)
        joined = replace(joined, interface="")
    else:
        record.ports = await publishing.arrive(services, sandbox, mine, operation)
        await attach(services, sandbox, endpoint, candidate, name, answer, record)
        index = record.attachment.index
        operation.push(leaving.take_out, services, sandbox, index, None, endpoint)
        operation.push(sandbox.reroute)
    if record.ports is None:
        members = [*sandbox.members(), mine]
        record.changes = await publishing.settle(
            services, sandbox.info, members, operation
        )
    for ports in record.ports or ():
        ports.done()
    if not operation.committed:
        await operation.commit(*record.outcome())
    _attached(services, endpoint, sandbox, record)
    return _Done(joined, answer, record.changes)


def _attached(
    services: Services, endpoint: Endpoint, sandbox: Sandbox, record: Record
) -> None:
    """Note that an endpoint has joined."""
    endpoint.attached(record.attachment)
    sandbox.attach(endpoint)
    if record.situation is not None:
        services.names.show(record.situation)
    services.names.enter(sandbox.info, endpoint.info)


def _tell(services: Services, done: _Done) -> None:
    """Tell subscribers and neighbours of an endpoint that has joined."""
    services.bus.publish(done.event)
    for change in done.changes:
        change.endpoint.note(change)
    services.announce(done.event.endpoint, done.answer)


async def _choose_name(endpoint: Endpoint, sandbox: Sandbox) -> str:
    prefix = endpoint.network.state.interface_prefix
    return await sandbox.choose_interface(endpoint.info.interface_name, prefix)


def _check_company(sandbox: Sandbox, endpoint: Endpoint, answer: JoinInfo) -> None:
    """Keep networks without interfaces and others apart, as dockerd does."""
    for other in sandbox.endpoints:
        if answer.no_interface or not other.interface:
            alone = endpoint if answer.no_interface else other
            raise ForbiddenError(
                f"sandbox {sandbox.name!r} cannot be in the networks "
                f"{other.network.name!r} and {endpoint.network.name!r} at once: "
                f"{alone.network.name!r} ({alone.network.driver}) wants it for itself"
            )


async def _check_namespace(
    services: Services, sandbox: Sandbox, endpoint: Endpoint
) -> None:
    """Keep interfaces and default routes of sandboxes out of the host's own network."""
    if await services.kernel.run(is_home, sandbox.key):
        raise ForbiddenError(
            f"sandbox {sandbox.name!r} is in the host's own network: it cannot be "
            f"connected to {endpoint.network.name!r} ({endpoint.network.driver}); "
            "networks of driver 'host' are for such sandboxes"
        )


async def rejoin(services: Services, endpoint: Endpoint, sandbox: Sandbox) -> None:
    """Make the interface of a joined endpoint again, which is gone from its sandbox.

    The caller has the locks of both. If it fails, the endpoint is not joined any more.
    """
    before = endpoint.attachment
    if before is None:
        return
    info, name = endpoint.info, before.interface
    joined = _joined(endpoint, sandbox, name)
    await _undo(services, endpoint, joined)
    await services.kernel.run(remove_marked, sandbox.key, f"{services.mark}:{info.id}")
    # what an interrupted attempt has left must not have the name any more
    await services.reaper.reap()
    sandbox.detach(endpoint)
    try:
        async with Rollback() as rollback:
            undo = partial(_undo, services, endpoint, joined)
            answer = await services.answer(
                endpoint.handler, joined, JoinInfo, undo=undo
            )
            rollback.push(undo)
            candidate = arriving(info, answer, before.order)
            record = Record(endpoint, endpoint_record(info, None))
            await attach(services, sandbox, endpoint, candidate, name, answer, record)
            await services.journal.write(*record.outcome())
    except BaseException:
        with anyio.CancelScope(shield=True):
            await _forget(services, endpoint, sandbox)
            await sandbox.reroute()
        raise
    _attached(services, endpoint, sandbox, record)
    services.announce(info, answer)


def _joined(endpoint: Endpoint, sandbox: Sandbox, interface: str) -> EndpointJoined:
    others = tuple(it.info for it in sandbox.endpoints if it is not endpoint)
    return EndpointJoined(
        endpoint=endpoint.info,
        sandbox=sandbox.info,
        interface=interface,
        others=others,
    )


async def abandon(services: Services, endpoint: Endpoint, sandbox: Sandbox) -> None:
    """Have an endpoint leave a sandbox whose namespace is gone."""
    joined = _joined(endpoint, sandbox, endpoint.interface)
    try:
        await _undo(services, endpoint, joined)
    except CNMError:
        _logger.exception("what endpoint %r has left may remain", endpoint.name)
    with anyio.CancelScope(shield=True):
        sandbox.detach(endpoint)
        await _forget(services, endpoint, sandbox)


async def _forget(services: Services, endpoint: Endpoint, sandbox: Sandbox) -> None:
    """Forget that an endpoint was joined, which its sandbox does not have any more."""
    services.names.leave(endpoint.info)
    failures: list[Exception] = []
    async with Rollback() as rollback:
        changes = await publishing.settle(
            services,
            sandbox.info,
            [*sandbox.members(), Member(endpoint=endpoint, info=endpoint.info)],
            rollback,
            tolerant=True,
            failures=failures,
        )
    for exc in failures:
        _logger.error("ports of %r may still be published: %s", endpoint.name, exc)
    record = endpoint_record(replace(endpoint.info, ports=()), None)
    others = [it.record() for it in changes if it.endpoint is not endpoint]
    await services.journal.write_or_postpone(
        Put(ENDPOINT + endpoint.id, record), *others
    )
    for change in changes:
        change.endpoint.note(change)
    endpoint.detached()


async def _undo(services: Services, endpoint: Endpoint, joined: EndpointJoined) -> None:
    left = await leaving.tell_left(services, endpoint, joined.sandbox, joined.interface)
    if left is not None and left.plan is not None:
        await services.run(left.plan, left.plan)
        services.forgetter.addresses(left.forget)
    services.reaper.want(joined.sandbox.key)
