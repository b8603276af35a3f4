"""The events of networks, endpoints and sandboxes.

An event states a fact about the model; the network's driver makes it true in the
kernel, while the operation waits. Subscribers hear it after it has been stored.

The class ``EndpointJoined``, its name ``"endpoint.joined"`` and the hook
``cnm_endpoint_joined`` belong together, mechanically. What a driver's handler
returns is part of the event's type: ``DriverEvent[JoinInfo]``.
"""

from __future__ import annotations

from ..answers import Capability, JoinInfo, LeaveInfo, PublishInfo
from .base import (
    DriverEvent,
    Event,
)
from .ipam import (
    AddressReleased,
    AddressRequested,
    PoolInspected,
    PoolReleased,
    PoolRequested,
)
from .model import (
    ControllerEvent,
    ControllerStarted,
    ControllerStopped,
    DamageFound,
    DriverFailed,
    DriverLoaded,
    EndpointCreated,
    EndpointDeleted,
    EndpointEvent,
    EndpointInspected,
    EndpointJoined,
    EndpointLeft,
    EndpointPublished,
    EndpointUnpublished,
    FirewallRebuilt,
    LinkRemoved,
    NameQueried,
    NetworkChecked,
    NetworkCreated,
    NetworkDeleted,
    NetworkEvent,
    NetworkRequested,
    NetworkRestored,
    SandboxCreated,
    SandboxDeleted,
    SandboxEvent,
)

__all__ = [
    "AddressReleased",
    "AddressRequested",
    "Capability",
    "ControllerEvent",
    "ControllerStarted",
    "ControllerStopped",
    "DamageFound",
    "DriverEvent",
    "DriverFailed",
    "DriverLoaded",
    "EndpointCreated",
    "EndpointDeleted",
    "EndpointEvent",
    "EndpointInspected",
    "EndpointJoined",
    "EndpointLeft",
    "EndpointPublished",
    "EndpointUnpublished",
    "Event",
    "FirewallRebuilt",
    "JoinInfo",
    "LeaveInfo",
    "LinkRemoved",
    "NameQueried",
    "NetworkChecked",
    "NetworkCreated",
    "NetworkDeleted",
    "NetworkEvent",
    "NetworkRequested",
    "NetworkRestored",
    "PoolInspected",
    "PoolReleased",
    "PoolRequested",
    "PublishInfo",
    "SandboxCreated",
    "SandboxDeleted",
    "SandboxEvent",
]
