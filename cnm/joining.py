"""How an endpoint gets an interface in a sandbox."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import anyio

from . import leaving, publishing
from .errors import CNMError, ForbiddenError
from .events import EndpointCreated, EndpointJoined, EndpointLeft, JoinInfo
from .gateways import Candidate
from .interfaces import Interface, place, remove_marked
from .journal import Operation
from .linux import choose_index
from .publishing import Publishing
from .records import ENDPOINT, Attachment, endpoint_record, joined_record
from .roles import Change, Member
from .rollback import Rollback
from .services import Services
from .store import Put
from .types import JSON, EndpointInfo, IPInterface

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .sandbox import Sandbox

_logger = logging.getLogger(__name__)


def candidate_of(info: EndpointInfo, attachment: Attachment | None) -> Candidate:
    """Return an endpoint as a candidate for its sandbox's default routes."""
    return Candidate(
        endpoint=info.id,
        network=info.network.name,
        index=attachment.index if attachment else 0,
        priority=info.gateway_priority,
        internal=info.network.internal,
        gateway=attachment.gateway if attachment else None,
        gateway6=attachment.gateway6 if attachment else None,
        connected4=attachment.connected4 if attachment else False,
        connected6=attachment.connected6 if attachment else False,
    )


async def join(services: Services, endpoint: Endpoint, sandbox: Sandbox) -> None:
    """Join an endpoint to a sandbox; the caller has the locks of both."""
    name = await _choose_name(endpoint, sandbox)
    intent = {"sandbox": sandbox.id, "interface": name}
    journal = services.journal
    async with journal.operation("endpoint.join", endpoint.id, intent) as operation:
        record = endpoint_record(endpoint.info, None)
        done = await _join(services, endpoint, sandbox, name, record, operation)
    _tell(services, done)


async def connect(
    services: Services, endpoint: Endpoint, sandbox: Sandbox, making: Rollback
) -> None:
    """Join an endpoint that has just been made, and that is not recorded yet.

    The caller has the locks of both.

    :param making: how to undo what has been done to make it
    """
    name = await _choose_name(endpoint, sandbox)
    record = endpoint_record(endpoint.info, None)
    intent: dict[str, JSON] = {
        "endpoint": record,
        "sandbox": sandbox.id,
        "interface": name,
    }
    journal = services.journal
    async with journal.operation("endpoint.connect", endpoint.id, intent) as operation:
        operation.absorb(making)
        done = await _join(services, endpoint, sandbox, name, record, operation)
    services.bus.publish(EndpointCreated(endpoint=done.event.endpoint))
    _tell(services, done)


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
    record: Mapping[str, JSON],
    operation: Operation,
) -> _Done:
    """Have an endpoint's interface and its ports made, and record them.

    :param name: name of the interface
    :param record: the endpoint's record before
    """
    joined = _joined(endpoint, sandbox, name)
    undo = partial(_undo, services, endpoint, joined)
    answer = await services.answer(endpoint.handler, joined, JoinInfo, undo=undo)
    operation.push(undo)
    _check_company(sandbox, endpoint, answer)
    candidate = _candidate(endpoint.info, answer)
    mine = Member(endpoint=endpoint, info=endpoint.info, candidate=candidate)
    ports: Publishing | None = None
    if answer.no_interface:
        attachment = Attachment.without_interface(sandbox.id, services.next_order())
        joined = replace(joined, interface="")
    else:
        ports = await publishing.arrive(services, sandbox, mine, operation)
        attachment = await _attach(
            services, sandbox, endpoint, candidate, name, answer, ports
        )
        take_out = partial(leaving.take_out, services, sandbox, attachment.index)
        operation.push(take_out, None, endpoint)
        operation.push(sandbox.reroute)
    if ports is not None:
        ports.done()
        changes: tuple[Change, ...] = (ports.change(endpoint.info),)
    else:
        members = [*sandbox.members(), mine]
        changes = await publishing.settle(services, sandbox.info, members, operation)
    info = next((it.info for it in changes if it.endpoint is endpoint), endpoint.info)
    others = [it.record() for it in changes if it.endpoint is not endpoint]
    made = Put(ENDPOINT + info.id, joined_record(record, info, attachment))
    await operation.commit(made, *others)
    endpoint.attached(attachment)
    sandbox.attach(endpoint)
    services.names.enter(sandbox.info, info)
    return _Done(joined, answer, changes)


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
            candidate = _candidate(info, answer)
            attachment = await _attach(
                services,
                *(sandbox, endpoint, candidate, name, answer),
                order=before.order,
            )
            record = endpoint_record(info, attachment)
            await services.journal.write(Put(ENDPOINT + info.id, record))
    except BaseException:
        with anyio.CancelScope(shield=True):
            await _forget(services, endpoint, sandbox)
            await sandbox.reroute()
        raise
    endpoint.attached(attachment)
    sandbox.attach(endpoint)
    services.names.enter(sandbox.info, info)
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
    async with Rollback() as rollback:
        changes = await publishing.settle(
            services,
            sandbox.info,
            [*sandbox.members(), Member(endpoint=endpoint, info=endpoint.info)],
            rollback,
            tolerant=True,
        )
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
        await services.run(endpoint.handler, EndpointLeft, left.plan)
        services.forgetter.addresses(left.forget)
    services.reaper.want(joined.sandbox.key)


async def _attach(
    services: Services,
    sandbox: Sandbox,
    endpoint: Endpoint,
    candidate: Candidate,
    name: str,
    join: JoinInfo,
    ports: Publishing | None = None,
    order: int = 0,
) -> Attachment:
    """Make an endpoint's interface in a sandbox, and configure it.

    :param candidate: the endpoint as a candidate for the default routes
    :param name: name of the interface
    :param join: the driver's part
    :param ports: those that are published on the way
    :param order: position of the joining, 0 for a new one
    """
    info = endpoint.info
    interface = Interface(
        name=name,
        index=choose_index(),
        addresses=addresses(info),
        mac=info.mac,
        sysctls=info.sysctls,
        routes=join.routes,
        mark=f"{services.mark}:{info.id}",
        adopted=sandbox.adopted,
    )
    await services.forgetter.settle(it.ip for it in interface.addresses)
    defaults, previous = sandbox.defaults_with(candidate)
    files = services.names.prepare(sandbox.situation((info, candidate)))
    plan = partial(
        place,
        key=sandbox.key,
        interface=interface,
        join=join,
        defaults=defaults,
        previous=previous,
        # what is published can be taken back, if the files cannot be written
        publish=ports.run if ports is not None else None,
        finish=files.run,
    )
    index = await services.run(endpoint.handler, EndpointJoined, plan)
    services.names.adopt(files)
    return Attachment(
        sandbox=sandbox.id,
        interface=name,
        index=index,
        order=order or services.next_order(),
        gateway=candidate.gateway,
        gateway6=candidate.gateway6,
        connected4=candidate.connected4,
        connected6=candidate.connected6,
    )


def _candidate(info: EndpointInfo, join: JoinInfo) -> Candidate:
    """Return an endpoint that joins as a candidate for the default routes."""
    if join.no_interface:
        return candidate_of(info, None)
    return Candidate(
        endpoint=info.id,
        network=info.network.name,
        index=0,
        priority=info.gateway_priority,
        internal=info.network.internal,
        gateway=join.gateway if info.address else None,
        gateway6=join.gateway6 if info.address6 else None,
        connected4=join.connected4 and info.address is not None,
        connected6=join.connected6 and info.address6 is not None,
    )


def addresses(info: EndpointInfo) -> tuple[IPInterface, ...]:
    """Return all addresses of an endpoint's interface."""
    own = (info.address, info.address6, *info.link_local)
    return tuple(address for address in own if address is not None)
