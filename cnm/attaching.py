"""The thread trip that gives a sandbox an interface, and records that it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from . import leaving
from .dns import Preparation, Situation
from .events import JoinInfo
from .gateways import Candidate
from .interfaces import Interface, place
from .journal import Operation
from .linux import Sockets, choose_index
from .publishing import Publishing
from .records import ENDPOINT, Attachment, joined_record
from .roles import Change
from .rollback import Rollback
from .services import Services
from .store import Put
from .types import JSON, EndpointInfo, IPInterface

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .sandbox import Sandbox


class Record:
    """The record of an endpoint that joins, which its plan writes if it can.

    :param before: the endpoint's record so far
    :param operation: what the plan is a part of, if there is an intent
    :ivar ports: what the plan publishes; None if all ports are settled after it
    :ivar changes: what becomes of ports
    :ivar situation: what the names of the sandbox depend on from then on
    """

    def __init__(
        self,
        endpoint: Endpoint,
        before: Mapping[str, JSON],
        operation: Operation | None = None,
    ) -> None:
        self.attachment: Attachment
        self.ports: tuple[Publishing, ...] | None = None
        self.changes: tuple[Change, ...] = ()
        self.situation: Situation | None = None
        self._endpoint = endpoint
        self._before = before
        self._operation = operation

    def begin(self) -> None:
        """Plan: record the intent."""
        if self._operation is not None:
            self._operation.begin_now()

    def publish(self, sockets: Sockets) -> None:
        """Plan: publish ports, when the interface can be used."""
        for each in self.ports or ():
            each.run(sockets)

    def end(self, index: int) -> None:
        """Plan: record the outcome, if the plan is all that there is to do."""
        if index != self.attachment.index:
            self.attachment = replace(self.attachment, index=index)
        if self.ports is None or self._operation is None:
            return
        info = self._endpoint.info
        self.changes = tuple(each.change(info) for each in self.ports)
        self._operation.commit_now(*self.outcome())

    def outcome(self) -> list[Put]:
        """Return what is to be recorded."""
        info, others = self._endpoint.info, []
        for change in self.changes:
            if change.endpoint is self._endpoint:
                info = change.info
            else:
                others.append(change.record())
        record = joined_record(self._before, info, self.attachment)
        return [Put(ENDPOINT + info.id, record), *others]


async def attach(
    services: Services,
    sandbox: Sandbox,
    endpoint: Endpoint,
    candidate: Candidate,
    name: str,
    join: JoinInfo,
    record: Record,
) -> None:
    """Make an endpoint's interface in a sandbox, and configure it.

    :param candidate: the endpoint as a candidate for the default routes
    :param name: name of the interface
    :param join: the driver's part
    :param record: is told how the endpoint has been attached
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
    record.attachment = Attachment(
        sandbox=sandbox.id,
        interface=name,
        index=interface.index,
        order=candidate.order,
        gateway=candidate.gateway,
        gateway6=candidate.gateway6,
        connected4=candidate.connected4,
        connected6=candidate.connected6,
    )
    await services.forgetter.settle(it.ip for it in interface.addresses)
    defaults, previous = sandbox.defaults_with(candidate)
    record.situation = sandbox.situation((info, candidate))
    files = services.names.prepare(record.situation)
    plan = partial(
        place,
        key=sandbox.key,
        interface=interface,
        join=join,
        defaults=defaults,
        previous=previous,
        # what is published can be taken back, if the files cannot be written
        finish=files.run,
        around=record,
    )
    async with Rollback() as rollback:
        rollback.push(_unname, services, sandbox, endpoint, files)
        await services.run(plan, join.plan, *(it.plan for it in record.ports or ()))
    services.names.adopt(files)


async def _unname(
    services: Services, sandbox: Sandbox, endpoint: Endpoint, files: Preparation
) -> None:
    """Write a sandbox's files again, if a plan has failed when they were written."""
    if files.done:
        services.names.adopt(files)
        await leaving.take_out(services, sandbox, 0, None, endpoint)


def candidate_of(info: EndpointInfo, attachment: Attachment | None) -> Candidate:
    """Return an endpoint as a candidate for its sandbox's default routes."""
    return Candidate(
        endpoint=info.id,
        network=info.network.name,
        index=attachment.index if attachment else 0,
        order=attachment.order if attachment else 0,
        priority=info.gateway_priority,
        internal=info.network.internal,
        gateway=attachment.gateway if attachment else None,
        gateway6=attachment.gateway6 if attachment else None,
        connected4=attachment.connected4 if attachment else False,
        connected6=attachment.connected6 if attachment else False,
    )


def arriving(info: EndpointInfo, join: JoinInfo, order: int) -> Candidate:
    """Return an endpoint that joins as a candidate for the default routes.

    :param order: position of the joining
    """
    if join.no_interface:
        return candidate_of(info, None)
    return Candidate(
        endpoint=info.id,
        network=info.network.name,
        index=0,
        order=order,
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
