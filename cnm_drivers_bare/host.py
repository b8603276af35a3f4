"""The host driver: whoever is in its network is on the host's own."""

from __future__ import annotations

import os

from cnm.driver import (
    DriverLoaded,
    EndpointJoined,
    InvalidError,
    JoinInfo,
    hookimpl,
)
from cnm.linux import Sockets

from .single import SingleDriver


class HostDriver(SingleDriver):
    """Handles the events of the network with ``driver="host"``."""

    name = "host"

    @hookimpl
    async def cnm_driver_loaded(self, event: DriverLoaded) -> None:
        """Keep the controller's kernel."""
        self._kernel = event.kernel

    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> JoinInfo:
        """Take in sandboxes that are on the controller's own network namespace."""
        if not await self._kernel.run(_is_home, event.sandbox.key):
            raise InvalidError(
                f"sandbox {event.sandbox.name!r} has a network of its own: a sandbox "
                'in a host network is created with netns="host"'
            )
        return JoinInfo(no_interface=True)


def _is_home(sockets: Sockets, key: str) -> bool:
    """Plan: tell whether a namespace is the controller's own."""
    return os.path.samestat(os.stat(key), os.fstat(sockets.home))
