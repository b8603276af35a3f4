"""What networks have in common that make nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from cnm.driver import (
    EndpointCreated,
    EndpointLeft,
    ForbiddenError,
    InvalidError,
    NetworkCreated,
    NetworkDeleted,
    NetworkDriver,
    NetworkInfo,
    NetworkRequested,
    NetworkRestored,
    NoOptions,
    Requirements,
    hookimpl,
    parse_options,
)


class SingleDriver(NetworkDriver):
    """A driver of one network, which has neither addresses nor options."""

    #: The driver's name.
    name: ClassVar[str]

    def __init__(self) -> None:
        self._network = ""

    @hookimpl
    async def cnm_network_requested(self, event: NetworkRequested) -> Requirements:
        """Refuse a second network, and whatever needs an interface."""
        problems = list(self._problems(event.network))
        try:
            parse_options(NoOptions, event.network.options)
        except InvalidError as exc:
            problems += exc.problems
        if problems:
            raise InvalidError(*problems)
        self._check(event.network)
        return Requirements(gateway4=False, gateway6=False, addresses=False)

    @hookimpl
    async def cnm_network_created(self, event: NetworkCreated) -> None:
        """Note that there is one."""
        self._check(event.network)
        self._network = event.network.id

    @hookimpl
    async def cnm_network_restored(self, event: NetworkRestored) -> None:
        """Note that there is one."""
        self._network = event.network.id

    @hookimpl
    async def cnm_network_deleted(self, event: NetworkDeleted) -> None:
        """Note that there is none."""
        if self._network == event.network.id:
            self._network = ""

    @hookimpl
    async def cnm_endpoint_created(self, event: EndpointCreated) -> None:
        """Refuse what needs an interface."""
        endpoint = event.endpoint
        parse_options(NoOptions, endpoint.options)
        given = {
            "mac": endpoint.mac,
            "interface_name": endpoint.interface_name,
            "link_local": endpoint.link_local,
            "sysctls": endpoint.sysctls,
        }
        if found := [what for what, value in given.items() if value]:
            raise InvalidError(
                *(f"{what}: a {self.name} network has no interfaces" for what in found)
            )

    @hookimpl
    async def cnm_endpoint_left(self, event: EndpointLeft) -> None:
        """There is nothing to take away."""

    def _check(self, network: NetworkInfo) -> None:
        if self._network not in ("", network.id):
            raise ForbiddenError(
                f'only one instance of "{self.name}" network is allowed'
            )

    def _problems(self, network: NetworkInfo) -> Iterator[str]:
        for subnet in network.subnets:
            yield f"subnets: {subnet}: a {self.name} network has no addresses"
        if network.internal:
            yield f"internal: a {self.name} network cannot be made internal"
