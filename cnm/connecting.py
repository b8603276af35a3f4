"""Creating endpoints, and joining them to a sandbox at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import creation, joining
from .endpoint import Endpoint
from .events import EndpointCreated
from .plugins import Driver
from .requests import EndpointRequest
from .rollback import Rollback
from .services import Services

if TYPE_CHECKING:
    from .network import Network
    from .sandbox import Sandbox


async def create(
    services: Services, network: Network, driver: Driver, request: EndpointRequest
) -> Endpoint:
    """Create an endpoint: all, or nothing."""
    with services.turns.making():
        return await _create(services, network, driver, request)


async def _create(
    services: Services, network: Network, driver: Driver, request: EndpointRequest
) -> Endpoint:
    with network.directory.reserve(request.name):
        info = await creation.create_endpoint(services, driver, network.info, request)
        created = Endpoint(services, network, driver, info)
        created.renew(network.info)  # it may be another one than we began with
        network.directory.add(created)
    services.bus.publish(EndpointCreated(endpoint=info))
    return created


async def connect(
    services: Services,
    network: Network,
    driver: Driver,
    request: EndpointRequest,
    sandbox: Sandbox,
) -> Endpoint:
    """Create an endpoint, and join it to a sandbox: all, or nothing."""
    with services.turns.making():
        if driver.is_prompt(EndpointCreated):
            with network.directory.reserve(request.name):
                return await _at_once(services, network, driver, request, sandbox)
        created = await _create(services, network, driver, request)
        async with Rollback() as rollback:
            rollback.push(created.delete, force=True)
            await created.join(sandbox)
        return created


async def _at_once(
    services: Services,
    network: Network,
    driver: Driver,
    request: EndpointRequest,
    sandbox: Sandbox,
) -> Endpoint:
    """Do both in one operation.

    What the driver does to create the endpoint awaits nothing, and so leaves nothing
    that would have to be recorded before.
    """
    async with Rollback() as rollback:
        info = await creation.request_endpoint(
            services, network.info, request, rollback
        )
        info = await creation.introduce(services, driver, info, rollback)
        endpoint = Endpoint(services, network, driver, info)
        async with endpoint.lock:
            network.require()
            endpoint.renew(network.info)
            # whoever removes the network by force waits for the lock
            network.directory.add(endpoint)
            rollback.push_sync(endpoint.discard)
            async with sandbox.lock:
                sandbox.require()
                await joining.connect(services, endpoint, sandbox, rollback)
    return endpoint
