"""The rules for what a network driver says of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ...events import EndpointPublished
from .. import faults
from .recording import within
from .subject import NAME, Subject, clear


async def publishes(subject: Subject) -> AsyncIterator[str]:
    """Publish a port, if the driver says that it does so."""
    async with subject.controller() as controller:
        driver = await controller._services.driver(NAME)
        if not driver.handles(EndpointPublished):
            return
        network = await subject.network(controller)
        endpoint = await network.connect(
            await subject.sandbox(controller), ports=["80/tcp"]
        )
        ports = {(it.container_port, it.proto) for it in endpoint.ports}
        if ports != {(80, "tcp")}:
            yield f"endpoint.published was asked for 80/tcp, and returned {ports}"
        await endpoint.leave()
        if endpoint.ports:
            yield "ports stay published when the endpoint has left"
        await clear(controller)


async def planned(subject: Subject) -> AsyncIterator[str]:
    """See what handlers change that leave everything to plans, as they say."""
    async with subject.controller() as controller:
        driver = await controller._services.driver(NAME)
        if not controller._services.capabilities[NAME].planned:
            return
        network = await subject.network(controller)
        box = await subject.sandbox(controller)
        ports = ["80/tcp"] if driver.handles(EndpointPublished) else []

        async def use() -> None:
            await network.connect(box, ports=ports)
            await network.disconnect(box)

        await use()  # what is opened once, for all endpoints, is no part of them
        with faults.counting() as points, within(points) as passed:
            await use()
        for event, point in passed:
            if event.startswith("endpoint.") and point.kind in ("kernel", "file"):
                yield f"{event} did this itself: {point.what}"
        await clear(controller)
