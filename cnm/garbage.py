"""Removing what nobody needs any more."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import aclosing
from functools import partial
from itertools import chain
from typing import TypeAlias

import anyio

from .endpoint import Endpoint
from .errors import CNMError, TeardownError
from .sandbox import Sandbox
from .services import Services
from .turns import gather
from .types import EndpointInfo, SandboxInfo

_Removed: TypeAlias = SandboxInfo | EndpointInfo
_logger = logging.getLogger(__name__)

#: Seconds after which a removal that has failed is tried again.
PAUSE = 5.0


async def collect(services: Services, live: Iterable[Sandbox]) -> tuple[_Removed, ...]:
    """Remove all sandboxes but some, and all endpoints that are in no sandbox.

    :return: what has been removed
    :raises TeardownError: if something failed on the way
    """
    keep = {sandbox.id for sandbox in live}
    failures: list[Exception] = []

    async def remove(sandbox: Sandbox) -> tuple[_Removed, ...]:
        try:
            await sandbox.delete()
        except CNMError as exc:
            failures.append(exc)
        return (sandbox.info,)

    async def collect_stray(endpoint: Endpoint) -> tuple[_Removed, ...]:
        # one that is busy is being joined
        if endpoint.joined or endpoint.lock.locked():
            return ()
        try:
            return (endpoint.info,) if await endpoint.collect() else ()
        except CNMError as exc:
            failures.append(exc)
            return ()

    endpoints = [it for network in services.networks for it in network.endpoints]
    doomed = [it for it in services.sandboxes if it.id not in keep]
    removed = [
        *await gather(partial(remove, it) for it in doomed),
        *await gather(partial(collect_stray, it) for it in endpoints),
    ]
    if failures:
        raise TeardownError("removing what is not live", failures)
    return tuple(chain.from_iterable(removed))


async def mourn(services: Services) -> None:
    """Remove the sandboxes whose processes have ended, until cancelled.

    One whose driver hangs does not keep others from being removed.
    """
    async with anyio.create_task_group() as burials:
        for sandbox in tuple(services.sandboxes):
            if sandbox.info.bound_to and sandbox.id not in services.lifelines:
                burials.start_soon(_bury, services, sandbox)
        async with aclosing(services.lifelines.ends()) as ends:
            async for identity in ends:
                if bound := services.sandboxes.get(identity):
                    burials.start_soon(_bury, services, bound)


async def _bury(services: Services, sandbox: Sandbox) -> None:
    """Remove a sandbox; try again while it is there, since the store may fail."""
    _logger.info("the process of sandbox %r has ended", sandbox.name)
    while services.sandboxes.get(sandbox.id) is sandbox:
        try:
            await sandbox.delete()
        except Exception:
            _logger.exception("removing sandbox %r", sandbox.name)
            await anyio.sleep(PAUSE)
