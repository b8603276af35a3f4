"""Undoing and completing what the end of a process has interrupted.

What was being made is undone: the drivers hear the undo events, and what is left in the
kernel is removed. What was being removed is removed by the ordinary operations, which
pass over what is gone already.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from itertools import chain
from typing import TypeAlias, cast

import anyio

from . import allocation, interfaces, leaving, naming, publishing, sandbox_plans
from .dns import undo_redirection
from .endpoint import Endpoint
from .errors import CNMError, TeardownError, told
from .events import NetworkDeleted
from .findings import Findings
from .journal import INTENT, Deed
from .linux import Sockets
from .plugins import Driver
from .records import endpoint_info, network_info, sandbox_info
from .reports import Outcome, Subject
from .sandbox import Sandbox
from .services import Services
from .store import Delete, Record
from .turns import gather
from .types import JSON, EndpointInfo

_logger = logging.getLogger(__name__)

Value: TypeAlias = Mapping[str, JSON]
#: Deals with an intent; returns what it was about, or None if there is nothing to say.
_Deal: TypeAlias = "Callable[[Services, Value, Findings], Awaitable[Subject | None]]"


async def resolve(services: Services, findings: Findings) -> None:
    """Deal with all intents that are left; one that cannot be dealt with stays.

    What has to do with one network, or with one sandbox, is done in order.
    """
    intents = await services.store.scan(INTENT)
    by_deed = sorted(intents, key=lambda it: list(_DEALS).index(_deed(it.value)))
    last: dict[str, anyio.Event] = {}
    jobs = []
    for record in by_deed:
        ids = _concerned(services, record.value)
        before = [last[identity] for identity in ids if identity in last]
        done = anyio.Event()
        last |= dict.fromkeys(ids, done)
        jobs.append(partial(_resolve, services, record, before, done, findings))
    if resolved := list(chain.from_iterable(await gather(jobs))):
        await services.journal.write(*resolved)


async def _resolve(
    services: Services,
    intent: Record,
    before: Iterable[anyio.Event],
    done: anyio.Event,
    findings: Findings,
) -> list[Delete]:
    """Deal with an intent when others have been dealt with; return what is to go."""
    for other in before:
        await other.wait()
    await services.turns.take()
    deed = _deed(intent.value)
    outcome, deal = _DEALS[deed]
    try:
        subject = await deal(services, intent.value, findings)
    except CNMError as exc:
        what = f"{deed} of {str(intent.value['object'])[:12]}"
        findings.add(what, "failed", f"it was interrupted: {told(exc)}")
        return []
    finally:
        done.set()
    if subject is not None:
        findings.add(subject, outcome, f"{deed} was interrupted")
    return [Delete(intent.key)]


def _concerned(services: Services, value: Value) -> set[str]:
    """Return the ids of the networks and sandboxes that an intent has to do with."""
    identity = str(value["object"])
    ids = {identity}
    if isinstance(record := value.get("endpoint"), Mapping):
        ids.add(str(record["network"]))
    if isinstance(sandbox := value.get("sandbox"), str):
        ids.add(sandbox)
    whole = services.networks.get(identity) or services.sandboxes.get(identity)
    parts = (identity, *cast("Iterable[str]", value.get("endpoints", ())))
    known = filter(None, map(services.networks.endpoints.get, parts))
    for endpoint in (*(whole.endpoints if whole else ()), *known):
        ids.add(endpoint.network.id)
        if endpoint.sandbox is not None:
            ids.add(endpoint.sandbox.id)
    return ids


def _deed(value: Value) -> Deed:
    return cast("Deed", value["deed"])


def _endpoint(services: Services, value: Value) -> Endpoint | None:
    return services.networks.endpoints.get(str(value["object"]))


async def _undo_network(
    services: Services, value: Value, findings: Findings
) -> Subject | None:
    info = network_info(cast("Value", value["network"]))
    driver = await services.driver(info.driver)
    await services.handle(driver, NetworkDeleted(network=info))
    # one that keeps a state of its own still has it
    await allocation.release_network(await services.ipam(info.ipam), info)
    return info


async def _undo_sandbox(
    services: Services, value: Value, findings: Findings
) -> Subject | None:
    info, request = sandbox_info(cast("Value", value["sandbox"]))
    directory, adopted = naming.directory(services, info), request.netns is not None
    async with services.tenants.going(info) as key:
        await services.kernel.run(_drop_sandbox, key, directory, adopted)
    return info


def _drop_sandbox(sockets: Sockets, key: str, directory: str, adopted: bool) -> None:
    """Plan: remove what there is of a sandbox."""
    sandbox_plans.drop_files(sockets, directory)
    if adopted and key and interfaces.is_there(key):
        undo_redirection(sockets, key)
    if key:
        sandbox_plans.drop_namespace(sockets, key)


def _recorded(services: Services, value: Value) -> tuple[Driver, EndpointInfo] | None:
    """Return the endpoint of an intent and its driver, if its network is there."""
    record = cast("Value", value["endpoint"])
    network = services.networks.get(str(record["network"]))
    if network is None or network.handler is None:
        return None
    return network.handler, endpoint_info(record, network.info)


async def _undo_endpoint(
    services: Services, value: Value, findings: Findings
) -> Subject | None:
    found = _recorded(services, value)
    if found is None:
        return None
    await leaving.forget(services, *found, force=False)
    return found[1]


async def _undo_join(
    services: Services, value: Value, findings: Findings
) -> Subject | None:
    endpoint = _endpoint(services, value)
    if endpoint is None:
        return None
    known = await _take_off(services, endpoint.handler, endpoint.info, value, findings)
    return endpoint.info if known else None


async def _undo_connect(
    services: Services, value: Value, findings: Findings
) -> Subject | None:
    if found := _recorded(services, value):
        await _take_off(services, *found, value, findings)
    return await _undo_endpoint(services, value, findings)


async def _take_off(
    services: Services,
    driver: Driver,
    endpoint: EndpointInfo,
    value: Value,
    findings: Findings,
) -> bool:
    """Take an endpoint's interface out of a sandbox, if that is known."""
    identity = str(value["sandbox"])
    sandbox = services.sandboxes.get(identity)
    info = sandbox.info if sandbox else findings.lost.get(identity)
    if info is None:
        return False
    interface = str(value["interface"])
    undo = leaving.undo_join
    if failures := await undo(services, driver, endpoint, info, interface):
        raise TeardownError(f"undoing the join of {endpoint.name!r}", failures)
    if sandbox is not None:
        mark = f"{services.mark}:{endpoint.id}"
        await services.kernel.run(interfaces.remove_marked, sandbox.key, mark)
        await sandbox.reroute()
        await _revoke(services, sandbox)
    return True


async def _unpublish(
    services: Services, value: Value, findings: Findings
) -> Subject | None:
    endpoint = _endpoint(services, value)
    if endpoint is None or endpoint.sandbox is None:
        return None
    await _revoke(services, endpoint.sandbox)
    return endpoint.info


async def _revoke(services: Services, sandbox: Sandbox) -> None:
    """Have nothing published by way of endpoints that are to publish nothing.

    What is published again is exactly what it was before.
    """
    for endpoint in sandbox.endpoints:
        if endpoint.publishes and not endpoint.role.requests:
            await publishing.revoke(services, sandbox.info, endpoint)


async def _completed(removal: Awaitable[None]) -> None:
    """Go on past what fails on the way of a removal: it comes to its end."""
    try:
        await removal
    except TeardownError:
        _logger.exception("what was interrupted is completed, and not all went well")


async def _leave(
    services: Services, value: Value, findings: Findings
) -> Subject | None:
    endpoint = _endpoint(services, value)
    if endpoint is None or not endpoint.joined:
        return None
    await _completed(endpoint.leave())
    return endpoint.info


async def _delete_endpoint(
    services: Services, value: Value, findings: Findings
) -> Subject | None:
    endpoint = _endpoint(services, value)
    if endpoint is None:
        return None
    await _completed(endpoint.delete(force=True))
    return endpoint.info


async def _delete_sandbox(
    services: Services, value: Value, findings: Findings
) -> Subject | None:
    identity = str(value["object"])
    sandbox = services.sandboxes.get(identity)
    if sandbox is not None:
        await _completed(sandbox.delete())
        return sandbox.info
    for endpoint_id in cast("list[str]", value["endpoints"]):
        await _delete_endpoint(services, {"object": endpoint_id}, findings)
    return findings.lost.get(identity)


async def _delete_network(
    services: Services, value: Value, findings: Findings
) -> Subject | None:
    network = services.networks.get(str(value["object"]))
    # what was not to be forced, and has endpoints since, has failed
    if network is None or (network.endpoints and not value["force"]):
        return None
    await _completed(network.delete(force=True))
    return network.info


#: In the order in which they are dealt with.
_DEALS: dict[Deed, tuple[Outcome, _Deal]] = {
    "network.create": ("undone", _undo_network),
    "sandbox.create": ("undone", _undo_sandbox),
    "endpoint.create": ("undone", _undo_endpoint),
    "endpoint.join": ("undone", _undo_join),
    "endpoint.connect": ("undone", _undo_connect),
    "ports.change": ("undone", _unpublish),
    "endpoint.leave": ("completed", _leave),
    "endpoint.delete": ("completed", _delete_endpoint),
    "sandbox.delete": ("completed", _delete_sandbox),
    "network.delete": ("completed", _delete_network),
}
