"""The null driver: whoever is in its network has a loopback, and nothing else."""

from __future__ import annotations

from cnm.driver import EndpointJoined, JoinInfo, hookimpl

from .single import SingleDriver


class NullDriver(SingleDriver):
    """Handles the events of the network with ``driver="null"``."""

    name = "null"

    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> JoinInfo:
        """Leave the sandbox as it is."""
        return JoinInfo(no_interface=True)
