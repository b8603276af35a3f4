"""The Container Network Model for async Python.

General layout:

- Users begin with :class:`Controller` (``controller``), and get networks, endpoints and
  sandboxes from it (``network``, ``endpoint``, ``sandbox``). ``running`` does its work;
  that is imported when the first controller starts (``lifecycle``).
- What they ask for is checked in ``requests``, with ``validation``.
- ``events`` says what happens; drivers handle events (``hookspecs``, ``plugins``) and
  everybody else subscribes to them (``bus``). ``driver`` is what driver authors import.
- ``linux`` is the kit that works on the kernel, ``firewall`` the nftables table, and
  ``ports`` publishes ports.
- ``ipam`` has the bundled IPAM drivers, ``store`` the stores, ``dns`` names.

This module, ``cnm.driver``, ``cnm.linux``, ``cnm.firewall``, ``cnm.ports``,
``cnm.options`` and ``cnm.testing`` are the public API; other modules may move.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .bus import Subscription
from .controller import Controller
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
    NoAvailablePort,
    NotFoundError,
    PoolNotFound,
    PoolOverlap,
    PortInUse,
    PortNotFound,
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
    DamageFound,
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
    NameQueried,
    NetworkCreated,
    NetworkDeleted,
    NetworkEvent,
    NetworkRestored,
    SandboxCreated,
    SandboxDeleted,
    SandboxEvent,
)
from .plugins import DriverInfo, DriverRegistry
from .reports import Difference, Restored, RestoreReport
from .store import (
    Delete,
    MemoryStore,
    Put,
    Record,
    Store,
)
from .types import (
    JSON,
    AddressPool,
    EndpointInfo,
    Finding,
    IPAddress,
    IPAMData,
    IPInterface,
    IPNetwork,
    NetworkInfo,
    PoolStatus,
    PortBinding,
    PortRequest,
    SandboxInfo,
    ServiceRecord,
    TransportPort,
)

if TYPE_CHECKING:
    from .dns import NamePolicy, NameStatistics
    from .endpoint import Endpoint
    from .network import Network
    from .sandbox import Sandbox
    from .service_records import ServiceRecords
    from .store.sqlite import SQLiteStore

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
    "DamageFound",
    "Delete",
    "Difference",
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
    "Finding",
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
    "NamePolicy",
    "NameQueried",
    "NameStatistics",
    "NetlinkError",
    "Network",
    "NetworkCreated",
    "NetworkDeleted",
    "NetworkEvent",
    "NetworkInfo",
    "NetworkNotFound",
    "NetworkRestored",
    "NoAvailableAddress",
    "NoAvailablePool",
    "NoAvailablePort",
    "NotFoundError",
    "PoolNotFound",
    "PoolOverlap",
    "PoolStatus",
    "PortBinding",
    "PortInUse",
    "PortNotFound",
    "PortRequest",
    "Put",
    "Record",
    "RestoreReport",
    "Restored",
    "SQLiteStore",
    "Sandbox",
    "SandboxCreated",
    "SandboxDeleted",
    "SandboxEvent",
    "SandboxInfo",
    "SandboxNotFound",
    "ServiceRecord",
    "ServiceRecords",
    "Store",
    "StoreConflict",
    "StoreError",
    "SubscriberTooSlow",
    "Subscription",
    "TeardownError",
    "TransportPort",
    "UnavailableError",
    "__version__",
]

#: Where the names are that need what works on the kernel, or on files. That takes as
#: long to import as all the rest: it comes with the first who uses them, or with the
#: first controller that starts. Annotations say ``cnm.Network``, so that whoever
#: evaluates them, as typing.get_type_hints does, is among the first.
_LATER = {
    "Endpoint": ".endpoint",
    "NamePolicy": ".dns",
    "NameStatistics": ".dns",
    "Network": ".network",
    "SQLiteStore": ".store.sqlite",
    "Sandbox": ".sandbox",
    "ServiceRecords": ".service_records",
}
#: Packages that come likewise.
_PACKAGES = ("firewall", "linux", "ports")

if not TYPE_CHECKING:  # who checks types sees the names above, and no others

    def __getattr__(name: str) -> object:
        if name in _PACKAGES:
            return import_module(f".{name}", __name__)
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_LATER[name], __name__), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
