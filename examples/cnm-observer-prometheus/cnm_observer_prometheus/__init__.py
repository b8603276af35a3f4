"""Metrics of cnm for Prometheus."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import anyio.to_thread
from prometheus_client import Counter, Gauge, start_http_server

import cnm
from cnm.driver import EndpointInfo, Event, NetworkInfo, Observer, SandboxInfo, hookimpl

__all__ = ["Metrics"]

EVENTS = Counter("cnm_events", "Events", ["event", "driver"])
FAILURES = Counter("cnm_driver_failures", "Failures of drivers", ["driver", "event"])
DAMAGE = Counter("cnm_damage", "What others have damaged", ["mended"])
OBJECTS = Gauge("cnm_objects", "Objects that there are", ["kind"])

#: What becomes of the objects of a kind: whether an event adds one, and which.
CHANGES: dict[type[Event], tuple[tuple[str, bool], ...]] = {
    cnm.NetworkCreated: (("network", True),),
    cnm.NetworkRestored: (("network", True),),
    cnm.NetworkDeleted: (("network", False),),
    cnm.SandboxCreated: (("sandbox", True),),
    cnm.SandboxDeleted: (("sandbox", False),),
    cnm.EndpointCreated: (("endpoint", True),),
    cnm.EndpointDeleted: (("endpoint", False), ("joined", False)),
    cnm.EndpointJoined: (("joined", True),),
    cnm.EndpointLeft: (("joined", False),),
}


class Metrics(Observer):
    """Counts events, and the objects of one controller."""

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {}
        self._stop: Callable[[], None] | None = None

    @hookimpl
    async def cnm_event(self, event: Event) -> None:
        """Count an event."""
        EVENTS.labels(event.name, _driver(event)).inc()
        for kind, there in CHANGES.get(type(event), ()):
            self._note(kind, _identity(event), there=there)
        if isinstance(event, cnm.ControllerStarted):
            await self._start(event)
        elif isinstance(event, cnm.ControllerStopped):
            await self._end()
        elif isinstance(event, cnm.DriverFailed):
            FAILURES.labels(event.driver, event.event.name).inc()
        elif isinstance(event, cnm.DamageFound):
            for difference in event.differences:
                DAMAGE.labels(str(difference.mended).lower()).inc()

    def _note(self, kind: str, identity: str, *, there: bool) -> None:
        known = self._known.setdefault(kind, set())
        if there and identity not in known:
            known.add(identity)
            OBJECTS.labels(kind).inc()
        elif not there and identity in known:
            known.remove(identity)
            OBJECTS.labels(kind).dec()

    async def _start(self, event: cnm.ControllerStarted) -> None:
        for entry in event.report.of("kept", "remade", "detached"):
            subject = entry.subject
            if isinstance(subject, SandboxInfo):
                self._note("sandbox", subject.id, there=True)
            elif isinstance(subject, NetworkInfo):
                self._note("network", subject.id, there=True)
            elif isinstance(subject, EndpointInfo):
                self._note("endpoint", subject.id, there=True)
        if address := os.environ.get("CNM_METRICS_ADDRESS"):
            host, _, port = address.rpartition(":")
            serve = partial(start_http_server, int(port), host or "127.0.0.1")
            server, _ = await anyio.to_thread.run_sync(serve)

            def stop() -> None:
                server.shutdown()
                server.server_close()

            self._stop = stop

    async def _end(self) -> None:
        for kind, known in self._known.items():
            OBJECTS.labels(kind).dec(len(known))
        self._known.clear()
        if self._stop is not None:
            stop, self._stop = self._stop, None
            await anyio.to_thread.run_sync(stop)


def _driver(event: Event) -> str:
    if isinstance(event, cnm.NetworkEvent):
        return event.network.driver
    if isinstance(event, cnm.EndpointEvent):
        return event.endpoint.network.driver
    return event.driver if isinstance(event, cnm.DriverFailed) else ""


def _identity(event: Event) -> str:
    if isinstance(event, cnm.NetworkEvent):
        return event.network.id
    if isinstance(event, cnm.EndpointEvent):
        return event.endpoint.id
    return event.sandbox.id if isinstance(event, cnm.SandboxEvent) else ""
