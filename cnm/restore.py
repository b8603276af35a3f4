"""Taking up again what a store knows, when a controller starts."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from types import NoneType
from typing import cast

from . import allocation, interfaces, interrupted, leaving, repair, republishing
from .absent import AbsentDriver
from .dns import Preparation
from .endpoint import Endpoint
from .errors import CNMError, KernelError
from .events import (
    Event,
    NetworkRestored,
    SandboxDeleted,
)
from .findings import Findings
from .firewall import Firewall, adopt_forwarding, forget_unseen
from .inspection import Damage, Expected, expected, missing
from .linux import SandboxSockets, Sockets, namespaces
from .linux.lifelines import NO_PROCESS, find_process
from .network import Network
from .plugins import Driver
from .records import (
    ENDPOINT,
    NETWORK,
    SANDBOX,
    attachment_of,
    endpoint_info,
    endpoint_record,
    frozen,
    joined_to,
    network_info,
    network_record,
    network_state,
    sandbox_info,
)
from .reports import RestoreReport
from .sandbox import Sandbox
from .services import Services
from .store import Delete, Put, Record
from .sweeping import sweep
from .turns import gather
from .types import (
    JSON,
    EndpointInfo,
    NetworkInfo,
    NetworkState,
    SandboxInfo,
)

#: Seconds that a network has to be restored before the next one is, which may be built
#: on it: a driver that hangs does not keep the networks of others waiting.
PATIENCE = 1.0
_TAKEN_UP = ("kept", "remade")
_logger = logging.getLogger(__name__)


async def restore(services: Services) -> RestoreReport:
    """Restore sandboxes, networks and endpoints; then sweep what is in no record.

    What lives is left as it is, what is gone is made again if it can be, and what was
    interrupted is undone or completed. The nftables table is rebuilt in one
    transaction, when everything that belongs into it is known: traffic flows on
    meanwhile. If it is gone, there is one before anything else is there that it guards.

    :raises StoreError: if the store cannot be read
    """
    began, findings = time.monotonic(), Findings()
    guarded = await services.kernel.run(_guard, services.firewall)
    for record in _by_age(await services.store.scan(SANDBOX)):
        await _restore_sandbox(services, record.value, findings)
    await _restore_networks(services, findings)
    damages = await _look_inside(services)
    published = ((sandbox.info, sandbox.members()) for sandbox in services.sandboxes)
    await republishing.restore(services, published, findings)
    await interrupted.resolve(services, findings)
    await repair.vacate(services, findings)
    gone = [Delete(SANDBOX + identity) for identity in findings.lost]
    if gone:
        await services.journal.write(*gone)
    await repair.remake(services, damages, findings)
    firewall = services.firewall
    await services.kernel.run(firewall.mend if guarded else firewall.rebuild)
    if guarded:
        await services.kernel.run(forget_unseen, firewall)
    await services.admit()
    await services.kernel.run(sweep, services, findings)
    return RestoreReport(entries=findings.entries, seconds=time.monotonic() - began)


def _guard(sockets: Sockets, firewall: Firewall) -> bool:
    """Plan: make the table if it is not there, and return whether it was not."""
    there = firewall.exists(sockets)
    adopt_forwarding(sockets, firewall)
    if not there:
        firewall.rebuild(sockets)
    return not there


def events(report: RestoreReport) -> Iterator[Event]:
    """Return what subscribers are to hear of a restoration."""
    for entry in report.entries:
        if isinstance(entry.subject, NetworkInfo) and entry.outcome in _TAKEN_UP:
            yield NetworkRestored(network=entry.subject)
        elif isinstance(entry.subject, SandboxInfo) and entry.outcome == "dropped":
            yield SandboxDeleted(sandbox=entry.subject)


def _by_age(records: tuple[Record, ...]) -> list[Record]:
    return sorted(records, key=lambda record: str(record.value["created"]))


# --- sandboxes ------------------------------------------------------------------------


async def _restore_sandbox(
    services: Services, value: Mapping[str, JSON], findings: Findings
) -> None:
    info, request = sandbox_info(value)
    try:
        os.close(namespaces.open_namespace(info.key))
    except KernelError as exc:
        if exc.errno not in namespaces.GONE:
            raise
        findings.lost[info.id] = info
        findings.add(info, "dropped", f"its namespace is gone: {exc.strerror}")
        return
    with services.sandboxes.reserve(info.name):
        services.sandboxes.add(Sandbox(services, info, request))
    services.tenants.add(info)
    findings.add(info, "kept")
    if info.bound_to:
        await _bind_again(services, info, int(str(value["bound_since"])))


async def _bind_again(services: Services, info: SandboxInfo, since: int) -> None:
    """Have a sandbox end with its process, if that still runs; or soon, if not."""
    try:
        process, descriptor = await services.kernel.run(find_process, info.bound_to)
    except KernelError as exc:
        if exc.errno not in NO_PROCESS:
            raise
        return
    if process.started == since:
        services.lifelines.tie(info.id, descriptor)
    else:
        os.close(descriptor)  # another one has got the id


# --- networks -------------------------------------------------------------------------


async def _restore_networks(services: Services, findings: Findings) -> None:
    """Restore networks, and then their endpoints."""
    endpoints = sorted(await services.store.scan(ENDPOINT), key=_order)
    joined: dict[str, list[Record]] = {}
    for record in endpoints:
        if services.sandboxes.get(joined_to(record.value)):
            joined.setdefault(str(record.value["network"]), []).append(record)
    values = [it.value for it in _by_age(await services.store.scan(NETWORK))]
    networks = [(it, joined.get(str(it["id"]), ())) for it in values]
    jobs = [partial(_restore_network, services, *it, findings) for it in networks]
    known: dict[str, EndpointInfo] = {}
    for mine in await gather(jobs, PATIENCE):
        known |= mine
    by_network: dict[str, list[Record]] = {}
    for record in endpoints:
        by_network.setdefault(str(record.value["network"]), []).append(record)
    restore = partial(_restore_endpoints, services, known, findings)
    changes = await gather(partial(restore, it) for it in by_network.values())
    if written := list(chain.from_iterable(changes)):
        await services.journal.write(*written)


def _order(record: Record) -> tuple[int, str]:
    """Sort endpoints in the order of joining, then of creation."""
    attachment = cast("dict[str, int] | None", record.value["attachment"])
    order = attachment["order"] if attachment else 0
    return order, str(record.value["created"])


async def _restore_network(
    services: Services,
    value: Mapping[str, JSON],
    joined: Iterable[Record],
    findings: Findings,
) -> dict[str, EndpointInfo]:
    """Have the driver take a network up again.

    :param joined: its endpoints that are in sandboxes
    :return: those, by id
    """
    info, state = network_info(value), network_state(value)
    endpoints = [endpoint_info(record.value, info) for record in joined]
    driver: Driver | None = None
    faults: list[str] = []
    if not info.config_only:
        faults += await _restore_subnets(services, info)
        known = state
        try:
            # without its subnets, what there is of it goes on
            driver = await services.driver(info.driver)
            info, state = await _tell_restored(services, driver, info, state, endpoints)
        except CNMError as exc:
            faults.append(str(exc))
            driver = driver or AbsentDriver(info.driver, str(exc))
        if faults:
            findings.add(info, "failed", "; ".join(faults))
        elif state.links != known.links:
            findings.add(info, "remade", "it was gone from the kernel")
        else:
            findings.add(info, "kept")
    fault = "; ".join(faults)
    with services.networks.reserve(info.name):
        services.networks.add(Network(services, driver, info, state, fault=fault))
        services.names.serve(info)
    return {endpoint.id: endpoint for endpoint in endpoints}


async def _restore_subnets(services: Services, info: NetworkInfo) -> list[str]:
    """Reserve a network's subnets again; return why that is not possible."""
    try:
        ipam = await services.ipam(info.ipam)
        await allocation.restore_network(ipam, info)
    except CNMError as exc:
        return [str(exc)]
    return []


async def _tell_restored(
    services: Services,
    driver: Driver,
    info: NetworkInfo,
    state: NetworkState,
    joined: Iterable[EndpointInfo],
) -> tuple[NetworkInfo, NetworkState]:
    event = NetworkRestored(network=info, endpoints=tuple(joined))
    answer = await services.answer(driver, event, NetworkState, NoneType)
    if answer is None or answer == state:
        return info, state
    info = replace(info, driver_state=frozen(answer.state))
    record = network_record(info, answer)
    await services.journal.write(Put(NETWORK + info.id, record, durable=True))
    return info, answer


# --- endpoints ------------------------------------------------------------------------


async def _restore_endpoints(
    services: Services,
    known: Mapping[str, EndpointInfo],
    findings: Findings,
    records: Iterable[Record],
) -> list[Put | Delete]:
    """Restore the endpoints of a network; return what is to be stored."""
    restore = partial(_restore_endpoint, services, known, findings)
    changes = [await restore(record.value) for record in records]
    return [change for change in changes if change is not None]


async def _restore_endpoint(
    services: Services,
    known: Mapping[str, EndpointInfo],
    findings: Findings,
    value: Mapping[str, JSON],
) -> Put | Delete | None:
    """Restore an endpoint; return what is to be stored, if it is not as it was."""
    network = services.networks.get(str(value["network"]))
    if network is None or network.handler is None:
        findings.add(
            f"endpoint {value['name']!r}", "dropped", "it has lost its network"
        )
        return Delete(ENDPOINT + str(value["id"]))
    attachment = attachment_of(value)
    info = known.get(str(value["id"])) or endpoint_info(value, network.info)
    if info.network is not network.info:
        info = replace(info, network=network.info)
    problem = network.fault or await _restore_addresses(services, info)
    sandbox = services.sandboxes.get(attachment.sandbox) if attachment else None
    change = None
    if attachment is not None and sandbox is None:
        left = findings.lost.get(attachment.sandbox)
        if left is not None and not network.fault:
            failures = await leaving.undo_join(
                services, network.handler, info, left, attachment.interface
            )
            for exc in failures:
                _logger.error(
                    "what endpoint %r has left may remain: %s", info.name, exc
                )
        attachment, info = None, replace(info, ports=())
        change = Put(ENDPOINT + info.id, endpoint_record(info, None))
        findings.add(info, "detached", "its sandbox is gone")
    elif problem:
        findings.add(info, "failed", problem)
    else:
        findings.add(info, "kept")
    endpoint = Endpoint(services, network, network.handler, info, attachment)
    with network.directory.reserve(info.name):
        network.directory.add(endpoint)
    if attachment is not None and sandbox is not None:
        services.joins = max(services.joins, attachment.order)
        sandbox.attach(endpoint)
    return change


async def _restore_addresses(services: Services, info: EndpointInfo) -> str:
    """Reserve an endpoint's addresses again; return why that is not possible."""
    try:
        ipam = await services.ipam(info.network.ipam)
        await allocation.restore_addresses(ipam, info)
    except CNMError as exc:
        return str(exc)
    return ""


# --- inside of sandboxes --------------------------------------------------------------


async def _look_inside(services: Services) -> list[tuple[Sandbox, Damage]]:
    """Have the resolvers of all sandboxes listen again, and look for interfaces.

    :return: the sandboxes whose interfaces are gone
    """
    visits = [
        _Visit(it, expected(services, it), services.names.prepare(it.situation()))
        for it in services.sandboxes
    ]
    await services.kernel.run(_visit, visits)
    for visit in visits:
        situation = visit.names.situation
        services.names.adopt(visit.names)
        services.names.show(situation)
        for endpoint in situation.endpoints:
            services.names.enter(situation.sandbox, endpoint)
    return [(visit.sandbox, damage) for visit in visits for damage in visit.damages]


class _Visit:
    """What is done in a sandbox while it is open.

    :param interfaces: what should be there
    :param names: makes the sockets of its resolver
    :ivar damages: what is not there
    """

    def __init__(
        self, sandbox: Sandbox, interfaces: Sequence[Expected], names: Preparation
    ) -> None:
        self.sandbox = sandbox
        self.names = names
        self.damages: Sequence[Damage] = ()
        self._interfaces = interfaces

    def make(self, sockets: Sockets, sandbox: SandboxSockets) -> None:
        """Plan: look for the interfaces, and have the resolver listen."""
        self.damages = missing(sandbox, self._interfaces)
        try:
            self.names.run(sockets, sandbox)
        except (OSError, CNMError):
            _logger.exception("sandbox %r has no resolver", self.sandbox.name)


def _visit(sockets: Sockets, visits: Iterable[_Visit]) -> None:
    for visit in visits:
        key = visit.sandbox.key
        try:
            interfaces.visit(sockets, key, visit.make)
        except KernelError:
            if interfaces.is_there(key):
                raise
            _logger.exception("sandbox %r has gone", visit.sandbox.name)
