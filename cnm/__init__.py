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

from .bus import Subscription as Subscription
from .controller import Controller as Controller
from .endpoint import Endpoint as Endpoint
from .errors import ActiveEndpointsError as ActiveEndpointsError
from .errors import ActiveSandboxError as ActiveSandboxError
from .errors import AddressInUse as AddressInUse
from .errors import CNMError as CNMError
from .errors import ConflictError as ConflictError
from .errors import DriverError as DriverError
from .errors import DriverLoadError as DriverLoadError
from .errors import DriverNotFound as DriverNotFound
from .errors import EndpointNotFound as EndpointNotFound
from .errors import ForbiddenError as ForbiddenError
from .errors import InvalidError as InvalidError
from .errors import KernelError as KernelError
from .errors import MissingCapability as MissingCapability
from .errors import MissingFeature as MissingFeature
from .errors import NameConflict as NameConflict
from .errors import NetlinkError as NetlinkError
from .errors import NetworkNotFound as NetworkNotFound
from .errors import NoAvailableAddress as NoAvailableAddress
from .errors import NoAvailablePool as NoAvailablePool
from .errors import NotFoundError as NotFoundError
from .errors import PoolOverlap as PoolOverlap
from .errors import SandboxNotFound as SandboxNotFound
from .errors import StoreConflict as StoreConflict
from .errors import StoreError as StoreError
from .errors import SubscriberTooSlow as SubscriberTooSlow
from .errors import TeardownError as TeardownError
from .errors import UnavailableError as UnavailableError
from .events import ControllerEvent as ControllerEvent
from .events import ControllerStarted as ControllerStarted
from .events import ControllerStopped as ControllerStopped
from .events import DriverEvent as DriverEvent
from .events import DriverFailed as DriverFailed
from .events import EndpointCreated as EndpointCreated
from .events import EndpointDeleted as EndpointDeleted
from .events import EndpointEvent as EndpointEvent
from .events import EndpointJoined as EndpointJoined
from .events import EndpointLeft as EndpointLeft
from .events import EndpointPublished as EndpointPublished
from .events import EndpointUnpublished as EndpointUnpublished
from .events import Event as Event
from .events import FirewallRebuilt as FirewallRebuilt
from .events import LinkRemoved as LinkRemoved
from .events import NetworkCreated as NetworkCreated
from .events import NetworkDeleted as NetworkDeleted
from .events import NetworkEvent as NetworkEvent
from .events import SandboxCreated as SandboxCreated
from .events import SandboxDeleted as SandboxDeleted
from .events import SandboxEvent as SandboxEvent
from .network import Network as Network
from .plugins import DriverInfo as DriverInfo
from .plugins import DriverRegistry as DriverRegistry
from .sandbox import Sandbox as Sandbox
from .store import Delete as Delete
from .store import MemoryStore as MemoryStore
from .store import Put as Put
from .store import Record as Record
from .store import SQLiteStore as SQLiteStore
from .store import Store as Store
from .types import JSON as JSON
from .types import AddressPool as AddressPool
from .types import EndpointInfo as EndpointInfo
from .types import IPAddress as IPAddress
from .types import IPAMData as IPAMData
from .types import IPInterface as IPInterface
from .types import IPNetwork as IPNetwork
from .types import NetworkInfo as NetworkInfo
from .types import PoolStatus as PoolStatus
from .types import PortBinding as PortBinding
from .types import PortRequest as PortRequest
from .types import SandboxInfo as SandboxInfo

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
