"""Taking up again what a store knows, when a controller starts."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import NoneType

from . import allocation, interfaces, naming, publishing
from .dns import Preparation
from .endpoint import Endpoint
from .errors import CNMError, KernelError
from .events import AddressRequested, NetworkRestored
from .firewall import adopt_forwarding
from .linux import Sockets, delete_link, dump_links, namespaces, parse_link
from .linux.lifelines import find_process
from .network import Network
from .records import (
    ENDPOINT,
    NETWORK,
    SANDBOX,
    attachment_of,
    endpoint_info,
    endpoint_record,
    frozen,
    network_info,
    network_record,
    network_state,
    sandbox_info,
)
from .sandbox import Sandbox
from .services import Services
from .store import Put, Record
from .types import JSON, Address, EndpointInfo, NetworkState, SandboxInfo

_logger = logging.getLogger(__name__)


async def restore(services: Services) -> None:
    """Restore networks, sandboxes and endpoints; then sweep what is in no record.

    The nftables table is rebuilt in one transaction, when everything that belongs into
    it is known: traffic flows on meanwhile.
    """
    await services.kernel.run(adopt_forwarding, services.firewall)
    for record in _by_age(await services.store.scan(NETWORK)):
        await _restore_network(services, record.value)
    for record in _by_age(await services.store.scan(SANDBOX)):
        await _restore_sandbox(services, record.value)
    endpoints = await services.store.scan(ENDPOINT)
    for record in sorted(endpoints, key=_order):
        await _restore_endpoint(services, record.value)
    for sandbox in services.sandboxes:
        await publishing.restore(services, sandbox.info, sandbox.members())
    await _restore_names(services)
    await services.kernel.run(services.firewall.rebuild)
    await services.admit()
    await services.kernel.run(_sweep, services)


def _by_age(records: tuple[Record, ...]) -> list[Record]:
    return sorted(records, key=lambda record: str(record.value["created"]))


def _order(record: Record) -> tuple[int, str]:
    """Sort endpoints in the order of joining, then of creation."""
    attachment = attachment_of(record.value)
    return attachment.order if attachment else 0, str(record.value["created"])


async def _restore_network(services: Services, value: Mapping[str, JSON]) -> None:
    info, state = network_info(value), network_state(value)
    if info.config_only:
        with services.networks.reserve(info.name):
            services.networks.add(Network(services, None, info, state))
        return
    driver = await services.driver(info.driver)
    ipam = await services.ipam(info.ipam)
    await allocation.restore_network(ipam, info)
    answer = await services.answer(
        driver, NetworkRestored(network=info), NetworkState, NoneType
    )
    if answer is not None and answer != state:
        state = answer
        info = replace(info, driver_state=frozen(state.state))
        record = network_record(info, state)
        await services.store.transaction(Put(NETWORK + info.id, record, durable=True))
    services.routes.disregard(*state.links)
    with services.networks.reserve(info.name):
        services.networks.add(Network(services, driver, info, state))
        services.names.serve(info)


async def _restore_sandbox(services: Services, value: Mapping[str, JSON]) -> None:
    info, request = sandbox_info(value)
    try:
        os.close(namespaces.open_namespace(info.key))
    except KernelError:
        _logger.warning("sandbox %r has lost its namespace: it is dropped", info.name)
        await services.store.delete(SANDBOX + info.id)
        return
    with services.sandboxes.reserve(info.name):
        services.sandboxes.add(Sandbox(services, info, request))
    if info.bound_to:
        await _bind_again(services, info, int(str(value["bound_since"])))


async def _bind_again(services: Services, info: SandboxInfo, since: int) -> None:
    """Have a sandbox end with its process, if that still runs; or soon, if not."""
    try:
        process, descriptor = await services.kernel.run(find_process, info.bound_to)
    except KernelError:
        return
    if process.started == since:
        services.lifelines.tie(info.id, descriptor)
    else:
        os.close(descriptor)  # another one has got the id


async def _restore_endpoint(services: Services, value: Mapping[str, JSON]) -> None:
    network = services.networks.get(str(value["network"]))
    if network is None:
        _logger.warning(
            "endpoint %r has lost its network: it is dropped", value["name"]
        )
        await services.store.delete(ENDPOINT + str(value["id"]))
        return
    info = endpoint_info(value, network.info)
    await _restore_addresses(services, info)
    attachment = attachment_of(value)
    sandbox = services.sandboxes.get(attachment.sandbox) if attachment else None
    if attachment is not None and sandbox is None:
        attachment = None
        record = endpoint_record(info, None)
        await services.store.transaction(Put(ENDPOINT + info.id, record))
    driver = await services.driver(network.driver)
    endpoint = Endpoint(services, network, driver, info, attachment)
    with network.directory.reserve(info.name):
        network.directory.add(endpoint)
    if attachment is not None and sandbox is not None:
        services.joins = max(services.joins, attachment.order)
        sandbox.attach(endpoint)


async def _restore_names(services: Services) -> None:
    """Have the resolvers of all sandboxes listen again."""
    prepared = [services.names.prepare(it.situation()) for it in services.sandboxes]
    await services.kernel.run(_prepare_names, prepared)
    for each in prepared:
        services.names.adopt(each)
        services.names.show(each.situation)
        for endpoint in each.situation.endpoints:
            services.names.enter(each.situation.sandbox, endpoint)


def _prepare_names(sockets: Sockets, prepared: Iterable[Preparation]) -> None:
    for each in prepared:
        sandbox = each.situation.sandbox
        try:
            interfaces.visit(sockets, sandbox.key, each.run)
        except (OSError, CNMError):
            _logger.exception("sandbox %r has no resolver", sandbox.name)


async def _restore_addresses(services: Services, info: EndpointInfo) -> None:
    ipam = await services.ipam(info.network.ipam)
    for interface in (info.address, info.address6):
        if interface is None:
            continue
        for data in info.network.ipam_data:
            if interface.ip in data.subnet:
                request = AddressRequested(
                    pool_id=data.pool_id, owner=info.id, address=interface.ip
                )
                await ipam.demand(request, Address)


def _sweep(sockets: Sockets, services: Services) -> None:
    """Plan: remove what carries our mark and belongs to nothing that we know."""
    known = {sandbox.key for sandbox in services.sandboxes}
    directory = f"{services.run_dir}/netns"
    for name in os.listdir(directory):
        key = f"{directory}/{name}"
        if key not in known:
            _logger.warning("removing the namespace %s, which no sandbox has", key)
            sockets.remove(key)
    mine = {naming.directory(services, it.info) for it in services.sandboxes}
    for name in os.listdir(f"{services.run_dir}/files"):
        if (directory := f"{services.run_dir}/files/{name}") not in mine:
            interfaces.drop_files(sockets, directory)
    for message in sockets.route.dump(dump_links()):
        link = parse_link(message)
        mark, _, identity = link.alias.rpartition(":")
        if mark == services.mark and not services.has_link(identity):
            _logger.warning("removing the link %s, which nothing has", link.name)
            try:
                sockets.route.call(delete_link(link.index))
            except CNMError as exc:
                # it may go with a namespace that has just been removed
                _logger.debug("%s", exc)
