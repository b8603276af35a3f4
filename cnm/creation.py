"""Creating networks and sandboxes: all, or nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import NoneType

from . import allocation, naming, sandbox_plans
from .dns import Preparation
from .errors import CNMError, DriverError, InvalidError, KernelError, NetworkNotFound
from .events import (
    EndpointCreated,
    EndpointDeleted,
    NetworkCreated,
    NetworkDeleted,
    NetworkRequested,
)
from .journal import Operation
from .linux import SandboxSockets, Sockets, choose_id
from .linux.lifelines import NO_PROCESS, Process, find_process
from .overtaking import Overtaken, check_routes
from .plugins import Driver
from .records import (
    ENDPOINT,
    NETWORK,
    SANDBOX,
    endpoint_record,
    frozen,
    network_record,
    sandbox_record,
)
from .requests import EndpointRequest, NetworkRequest, SandboxRequest, SubnetRequest
from .rollback import Rollback
from .services import Services
from .store import Delete, Put
from .types import (
    EndpointInfo,
    EndpointState,
    IPAMData,
    IPNetwork,
    NetworkInfo,
    NetworkState,
    Requirements,
    SandboxInfo,
)

_logger = logging.getLogger(__name__)


def _info(request: NetworkRequest) -> NetworkInfo:
    return NetworkInfo(
        id=choose_id(),
        name=request.name,
        driver=request.driver,
        created=datetime.now(UTC),
        ipv4=request.ipv4,
        ipv6=request.ipv6,
        internal=request.internal,
        attachable=request.attachable,
        config_only=request.config_only,
        config_from=request.config_from,
        ipam=request.ipam,
        ipam_options=frozen(request.ipam_options),
        labels=frozen(request.labels),
        options=frozen(request.options),
    )


def _asked(request: NetworkRequest) -> tuple[IPAMData, ...]:
    """Return the subnets as they were asked for, before a pool is requested."""
    return tuple(
        IPAMData(
            pool_id="",
            subnet=subnet.subnet,
            ip_range=subnet.ip_range,
            gateway=subnet.gateway,
            aux_addresses=frozen(subnet.aux_addresses),
        )
        for subnet in request.subnets
        if subnet.subnet is not None
    )


async def all_problems(services: Services, request: NetworkRequest) -> tuple[str, ...]:
    """Return what is wrong with a request: what its driver finds, as well."""
    asked = replace(_info(request), ipam_data=_asked(request))
    try:
        driver = await services.driver(asked.driver)
        await driver.handle(NetworkRequested(network=asked))
    except InvalidError as exc:
        return tuple(dict.fromkeys((*request.problems, *exc.problems)))
    except CNMError as exc:
        _logger.debug("driver %r cannot tell: %s", asked.driver, exc)
    return request.problems


async def create_network(
    services: Services, request: NetworkRequest
) -> tuple[Driver, NetworkInfo, NetworkState]:
    """Create a network whose name has been reserved."""
    info = _info(request)
    driver = await services.driver(info.driver)
    ipam = await services.ipam(info.ipam)
    asked = replace(info, ipam_data=_asked(request))
    needs = await services.answer(
        driver, NetworkRequested(network=asked), Requirements, NoneType
    )
    needs = needs or Requirements()
    info = replace(
        info,
        ipv4=info.ipv4 and needs.addresses,
        ipv6=info.ipv6 and needs.addresses,
        internal=info.internal or needs.internal,
        driver_state=frozen(needs.state),
    )
    taken: tuple[IPNetwork, ...] = ()
    while True:
        try:
            made, state = await _make_network(
                services, driver, ipam, info, request, needs, taken
            )
        except Overtaken as exc:
            if exc.subnet in taken:
                raise
            taken += (exc.subnet,)
        else:
            return driver, made, state


async def _make_network(
    services: Services,
    driver: Driver,
    ipam: Driver,
    info: NetworkInfo,
    request: NetworkRequest,
    needs: Requirements,
    taken: Sequence[IPNetwork],
) -> tuple[NetworkInfo, NetworkState]:
    """Get a network its subnets, and have the driver and the store know it.

    :param taken: subnets that are not to be chosen
    :raises Overtaken: if somebody else was faster to take what has been chosen
    """
    async with Rollback() as rollback:
        data: tuple[IPAMData, ...] = ()
        if needs.addresses:
            around = await services.surroundings()
            around = replace(around, exclude=(*around.exclude, *taken))
            data = await allocation.request_network(
                ipam, info.id, request, needs, around, rollback
            )
        info = replace(info, ipam_data=data)
        chosen = allocation.chosen(request, data)
        return await _tell_network_created(services, driver, info, chosen)


async def _tell_network_created(
    services: Services, driver: Driver, info: NetworkInfo, chosen: Sequence[IPAMData]
) -> tuple[NetworkInfo, NetworkState]:
    """Have the driver and the store know a network that has its subnets.

    :param chosen: those of them that nobody has asked for
    """
    intent = {"network": network_record(info, NetworkState())}
    journal = services.journal
    async with journal.operation("network.create", info.id, intent) as operation:
        operation.push_sync(services.reaper.want, singly=True)
        operation.push(services.admit)
        created = NetworkCreated(network=info)
        undo = partial(services.handle, driver, NetworkDeleted(network=info))
        state = await services.answer(
            driver, created, NetworkState, NoneType, undo=undo
        )
        state = state or NetworkState()
        info = replace(info, driver_state=frozen(state.state))
        operation.push(services.handle, driver, NetworkDeleted(network=info))
        if state.links and chosen:
            await services.kernel.run(check_routes, state.links, chosen)
        await services.admit()
        record = network_record(info, state)
        await operation.commit(Put(NETWORK + info.id, record, durable=True))
    return info, state


async def create_configuration(
    services: Services, request: NetworkRequest
) -> tuple[None, NetworkInfo, NetworkState]:
    """Create a network that only keeps a configuration for others."""
    info = replace(_info(request), ipam_data=_asked(request))
    state = NetworkState()
    record = network_record(info, state)
    await services.journal.write(Put(NETWORK + info.id, record, durable=True))
    return None, info, state


def configured(services: Services, request: NetworkRequest) -> NetworkRequest:
    """Return a request with the configuration of the network that it names.

    :raises NetworkNotFound: if there is no such configuration network
    """
    found = (it.info for it in services.networks if it.name == request.config_from)
    source = next((info for info in found if info.config_only), None)
    if source is None:
        raise NetworkNotFound(
            request.config_from, ": there is no configuration network of that name"
        )
    subnets = [
        SubnetRequest(
            version=data.subnet.version,
            subnet=data.subnet,
            ip_range=data.ip_range,
            gateway=data.gateway,
            aux_addresses=data.aux_addresses,
        )
        for data in source.ipam_data
    ]
    for version, wanted in ((4, source.ipv4), (6, source.ipv6)):
        if wanted and all(subnet.version != version for subnet in subnets):
            subnets.append(SubnetRequest(version=version, aux_addresses={}))
    return replace(
        request,
        subnets=tuple(sorted(subnets, key=lambda subnet: subnet.version)),
        ipam=source.ipam,
        ipam_options=source.ipam_options,
        ipv4=source.ipv4,
        ipv6=source.ipv6,
        labels=source.labels,
        options=source.options,
    )


async def create_sandbox(
    services: Services, request: SandboxRequest
) -> tuple[SandboxInfo, int | None]:
    """Create a sandbox whose name has been reserved.

    :return: with a pidfd of the process with which it is to end, if there is one
    """
    identity = choose_id()
    key = naming.key(services.run_dir, identity, request.netns)
    info = SandboxInfo(
        id=identity,
        name=request.name,
        key=key,
        created=datetime.now(UTC),
        hostname=request.hostname,
        domainname=request.domainname,
        bound_to=request.bound_to,
        labels=frozen(request.labels),
    )
    situation = naming.situation(services, info, request, ())
    files = services.names.prepare(situation)
    async with Rollback() as rollback:
        since, lifeline = 0, None
        if request.bound_to:
            process, lifeline = await _find_process(services, request.bound_to)
            rollback.push_sync(os.close, lifeline)
            since = process.started
        record = sandbox_record(info, request, since)
        intent, made = {"sandbox": record}, Put(SANDBOX + identity, record)
        async with services.journal.operation(
            "sandbox.create", identity, intent, planned=True
        ) as operation:
            run, directory = services.kernel.run, situation.directory
            operation.push(run, sandbox_plans.drop_files, directory)
            async with services.tenants.coming(info):
                await run(_make, key, request.netns, files, operation, made)
            operation.push(_let_go, services, info)
            await operation.commit(made)
    services.names.adopt(files)
    return info, lifeline


async def _let_go(services: Services, sandbox: SandboxInfo) -> None:
    async with services.tenants.going(sandbox) as key:
        if key:
            await services.kernel.run(sandbox_plans.drop_namespace, key)


def _make(
    sockets: Sockets,
    key: str,
    netns: str | int | None,
    files: Preparation,
    operation: Operation,
    made: Put,
) -> None:
    """Plan: make a sandbox between its intent and its outcome."""

    def finish(sockets: Sockets, sandbox: SandboxSockets) -> None:
        files.run(sockets, sandbox)
        operation.commit_now(made)

    operation.begin_now()
    sandbox_plans.make_sandbox(sockets, key, netns, finish)


async def _find_process(services: Services, pid: int) -> tuple[Process, int]:
    """Return the process with which a sandbox is to end, and a pidfd of it."""
    try:
        return await services.kernel.run(find_process, pid)
    except KernelError as exc:
        if exc.errno not in NO_PROCESS:
            raise
        raise InvalidError(
            f"bound_to: there is no process {pid}: {exc.strerror}"
        ) from exc


async def create_endpoint(
    services: Services, driver: Driver, network: NetworkInfo, request: EndpointRequest
) -> EndpointInfo:
    """Create an endpoint whose name has been reserved."""
    async with Rollback() as rollback:
        info = await request_endpoint(services, network, request, rollback)
        intent = {"endpoint": endpoint_record(info, None)}
        journal = services.journal
        async with journal.operation("endpoint.create", info.id, intent) as operation:
            operation.absorb(rollback)
            info = await introduce(services, driver, info, operation)
            await operation.commit(Put(ENDPOINT + info.id, endpoint_record(info, None)))
            known = services.networks.get(network.id)
            if known is None or known.deleting:  # by force, meanwhile
                await services.journal.write(Delete(ENDPOINT + info.id))
                raise NetworkNotFound(network.name)
    return info


async def request_endpoint(
    services: Services,
    network: NetworkInfo,
    request: EndpointRequest,
    rollback: Rollback,
) -> EndpointInfo:
    """Return an endpoint that has its addresses, and that nobody knows yet.

    :param rollback: is told how to give the addresses back
    """
    identity = choose_id()
    ipam = await services.ipam(network.ipam)
    address, address6 = await allocation.request_addresses(
        ipam, network, identity, request, rollback
    )
    return EndpointInfo(
        id=identity,
        name=request.name,
        network=network,
        created=datetime.now(UTC),
        address=address,
        address6=address6,
        mac=request.mac,
        configured_mac=request.mac,
        link_local=request.link_local,
        aliases=request.aliases,
        links=frozen(request.links),
        port_requests=request.ports,
        exposed=request.exposed,
        labels=frozen(request.labels),
        options=frozen(request.options),
        gateway_priority=request.gateway_priority,
        interface_name=request.interface_name,
        sysctls=frozen(request.sysctls),
    )


async def introduce(
    services: Services, driver: Driver, info: EndpointInfo, rollback: Rollback
) -> EndpointInfo:
    """Have the driver know an endpoint; return it with what the driver adds.

    :param rollback: is told how to have the driver forget it
    """
    event = EndpointCreated(endpoint=info)
    undo = partial(services.handle, driver, EndpointDeleted(endpoint=info))
    state = await services.answer(driver, event, EndpointState, NoneType, undo=undo)
    rollback.push(undo)
    if state is None:
        return info
    if info.mac and state.mac not in ("", info.mac):
        reason = f"changed the MAC address to {state.mac!r}"
        raise DriverError(driver.name, event.name, reason)
    mac = state.mac or info.mac
    return replace(info, mac=mac, driver_state=frozen(state.state))
