"""What a controller does when it is asked, while it runs."""

from __future__ import annotations

from collections.abc import Iterable

from . import creation, diagnosis, garbage, inspection, repair
from .errors import InvalidError, KernelError
from .events import NetworkCreated, SandboxCreated
from .network import Network
from .reports import Difference
from .requests import NetworkRequest, SandboxRequest
from .sandbox import Sandbox
from .services import Services
from .types import EndpointInfo, Finding, SandboxInfo


class Running:
    """A controller that has started, behind what applications see of it.

    :ivar services: its parts
    """

    def __init__(self, services: Services) -> None:
        self.services = services

    async def create_network(self, request: NetworkRequest) -> Network:
        """Create a network, or leave nothing of it."""
        services = self.services
        if request.problems:
            raise InvalidError(*await creation.all_problems(services, request))
        if request.config_from:
            request = creation.configured(services, request)
        with services.turns.making(), services.networks.reserve(request.name):
            make = (
                creation.create_configuration
                if request.config_only
                else creation.create_network
            )
            created = Network(services, *await make(services, request))
            services.networks.add(created)
            services.names.serve(created.info)
        services.bus.publish(NetworkCreated(network=created.info))
        return created

    async def create_sandbox(self, request: SandboxRequest) -> Sandbox:
        """Create a sandbox, or leave nothing of it."""
        services = self.services
        with services.turns.making(), services.sandboxes.reserve(request.name):
            info, lifeline = await creation.create_sandbox(services, request)
            created = Sandbox(services, info, request)
            services.sandboxes.add(created)
            if lifeline is not None:
                await self._tie(created, lifeline)
        services.bus.publish(SandboxCreated(sandbox=created.info))
        return created

    async def _tie(self, sandbox: Sandbox, lifeline: int) -> None:
        """Have a sandbox end with its process, which may have ended by now."""
        try:
            self.services.lifelines.tie(sandbox.id, lifeline)
        except KernelError:
            await sandbox.delete()
            raise

    async def diagnose(self) -> tuple[Finding, ...]:
        """Look for what keeps traffic from flowing."""
        return await diagnosis.diagnose(self.services)

    async def check(self) -> tuple[Difference, ...]:
        """Compare what is known with what the kernel has."""
        return await inspection.check(self.services)

    async def repair(self) -> tuple[Difference, ...]:
        """Put right what is not as it should be."""
        return await repair.repair(self.services)

    async def collect(
        self, live: Iterable[Sandbox | str]
    ) -> tuple[SandboxInfo | EndpointInfo, ...]:
        """Remove the sandboxes that are not to be kept, and all stray endpoints."""
        services = self.services
        keep = [
            services.sandboxes.find(it) if isinstance(it, str) else it for it in live
        ]
        for sandbox in keep:
            services.require_sandbox(sandbox)
        return await garbage.collect(services, keep)
