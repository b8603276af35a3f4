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
from .types import EndpointInfo

if TYPE_CHECKING:
    from .network import Network
    from .sandbox import Sandbox


async def create(
    services: Services, network: Network, driver: Driver, request: EndpointRequest
) -> Endpoint:
    """Create an endpoint: all, or nothing."""
    with services.turns.making(), network.directory.reserve(request.name):
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
    """Create an endpoint, and join it to a sandbox, in one operation: all, or nothing.

    What the driver does to create the endpoint is recorded before, unless it awaits
    nothing: then it leaves nothing.
    """
    with services.turns.making(), network.directory.reserve(request.name):
        async with Rollback() as rollback:
            info = await creation.request_endpoint(
                services, network.info, request, rollback
            )
            if driver.is_prompt(EndpointCreated):
                return await _make(services, network, driver, info, sandbox, rollback)
            async with joining.connection(services, info, sandbox) as operation:
                operation.absorb(rollback)
                return await _make(services, network, driver, info, sandbox, operation)


async def _make(
    services: Services,
    network: Network,
    driver: Driver,
    info: EndpointInfo,
    sandbox: Sandbox,
    making: Rollback,
) -> Endpoint:
    """Have the driver know an endpoint that has its addresses, and join it."""
    info = await creation.introduce(services, driver, info, making)
    endpoint = Endpoint(services, network, driver, info)
    async with endpoint.lock:
        network.require()
        endpoint.renew(network.info)
        # whoever removes the network by force waits for the lock
        network.directory.add(endpoint)
        making.push_sync(endpoint.discard)
        async with sandbox.lock:
            sandbox.require()
            await joining.connect(services, endpoint, sandbox, making)
    return endpoint
