"""The Container Network Model for async Python.

General layout:

- Users begin with :class:`Controller` (``controller``), and get networks, endpoints and
  sandboxes from it (``network``, ``endpoint``, ``sandbox``).
- What they ask for is checked in ``requests``, with ``validation``.
- ``events`` says what happens; drivers handle events (``hookspecs``, ``plugins``) and
  everybody else subscribes to them (``bus``). ``driver`` is what driver authors import.
- ``linux`` is the kit that works on the kernel, ``firewall`` the nftables table.
- ``ipam`` has the bundled IPAM drivers, ``store`` the stores, ``dns`` names.

This module, ``cnm.driver``, ``cnm.linux``, ``cnm.firewall``, ``cnm.options`` and
``cnm.testing`` are the public API; other modules may move.
"""

from .bus import Subscription
from .controller import Controller
from .endpoint import Endpoint
from .errors import (
    ActiveEndpointsError,
    ActiveSandboxError,
    AddressInUse,
    CNMError,
    ConflictError,
    DriverError,
    DriverLoadError,
    DriverNotFound,
    EndpointNotFound,
    ForbiddenError,
    InvalidError,
    KernelError,
    MissingCapability,
    MissingFeature,
    NameConflict,
    NetlinkError,
    NetworkNotFound,
    NoAvailableAddress,
    NoAvailablePool,
    NotFoundError,
    PoolOverlap,
    SandboxNotFound,
    StoreConflict,
    StoreError,
    SubscriberTooSlow,
    TeardownError,
    UnavailableError,
)
from .events import (
    ControllerEvent,
    ControllerStarted,
    ControllerStopped,
    DriverEvent,
    DriverFailed,
    EndpointCreated,
    EndpointDeleted,
    EndpointEvent,
    EndpointJoined,
    EndpointLeft,
    EndpointPublished,
    EndpointUnpublished,
    Event,
    FirewallRebuilt,
    LinkRemoved,
    NetworkCreated,
    NetworkDeleted,
    NetworkEvent,
    SandboxCreated,
    SandboxDeleted,
    SandboxEvent,
)
from .network import Network
from .plugins import DriverInfo, DriverRegistry
from .sandbox import Sandbox
from .store import (
    Delete,
    MemoryStore,
    Put,
    Record,
    SQLiteStore,
    Store,
)
from .types import (
    JSON,
    AddressPool,
    EndpointInfo,
    IPAddress,
    IPAMData,
    IPInterface,
    IPNetwork,
    NetworkInfo,
    PoolStatus,
    PortBinding,
    PortRequest,
    SandboxInfo,
)

__version__ = "0.1.0"
__all__ = [
    "ActiveEndpointsError",
    "ActiveSandboxError",
    "AddressInUse",
    "AddressPool",
    "CNMError",
    "ConflictError",
    "Controller",
    "ControllerEvent",
    "ControllerStarted",
    "ControllerStopped",
    "Delete",
    "DriverError",
    "DriverEvent",
    "DriverFailed",
    "DriverInfo",
    "DriverLoadError",
    "DriverNotFound",
    "DriverRegistry",
    "Endpoint",
    "EndpointCreated",
    "EndpointDeleted",
    "EndpointEvent",
    "EndpointInfo",
    "EndpointJoined",
    "EndpointLeft",
    "EndpointNotFound",
    "EndpointPublished",
    "EndpointUnpublished",
    "Event",
    "FirewallRebuilt",
    "ForbiddenError",
    "IPAMData",
    "IPAddress",
    "IPInterface",
    "IPNetwork",
    "InvalidError",
    "JSON",
    "KernelError",
    "LinkRemoved",
    "MemoryStore",
    "MissingCapability",
    "MissingFeature",
    "NameConflict",
    "NetlinkError",
    "Network",
    "NetworkCreated",
    "NetworkDeleted",
    "NetworkEvent",
    "NetworkInfo",
    "NetworkNotFound",
    "NoAvailableAddress",
    "NoAvailablePool",
    "NotFoundError",
    "PoolOverlap",
    "PoolStatus",
    "PortBinding",
    "PortRequest",
    "Put",
    "Record",
    "SQLiteStore",
    "Sandbox",
    "SandboxCreated",
    "SandboxDeleted",
    "SandboxEvent",
    "SandboxInfo",
    "SandboxNotFound",
    "Store",
    "StoreConflict",
    "StoreError",
    "SubscriberTooSlow",
    "Subscription",
    "TeardownError",
    "UnavailableError",
    "__version__",
]
