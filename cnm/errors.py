"""The exceptions of cnm.

::

    CNMError
    ├── InvalidError (also ValueError)          wrong parameters: see .problems
    ├── NotFoundError (also LookupError)
    │   ├── NetworkNotFound  EndpointNotFound  SandboxNotFound
    │   └── DriverNotFound  PoolNotFound  PortNotFound
    ├── ConflictError                           exists already, is in use, overlaps
    │   └── NameConflict  AddressInUse  PoolOverlap  PortInUse
    ├── ForbiddenError                          the state of things does not allow it
    │   ├── ActiveEndpointsError  ActiveSandboxError
    │   └── MissingCapability (also KernelError)
    ├── UnavailableError                        none left, or not there
    │   ├── NoAvailableAddress  NoAvailablePool  NoAvailablePort
    │   └── MissingFeature (also KernelError)
    ├── DriverError                             a driver failed to handle an event
    ├── DriverLoadError                         a driver is installed but cannot be used
    ├── KernelError (also OSError)              the kernel refused
    │   └── NetlinkError
    ├── StoreError
    │   └── StoreConflict
    ├── SubscriberTooSlow
    └── TeardownError (also ExceptionGroup)     a removal went on past failures

The kinds are those of libnetwork's errdefs, so a server maps them to
400, 404, 409, 403 and 503, and the rest to 500.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterable, Sequence


class CNMError(Exception):
    """Base class of every error that cnm raises."""


class InvalidError(CNMError, ValueError):
    """What was asked for is wrong.

    :ivar problems: every fault that was found in the call, one sentence each
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class NotFoundError(CNMError, LookupError):
    """There is no such thing.

    :ivar kind: what was looked for, e.g. ``"network"``
    :ivar ref: the name or id by which it was looked for
    """

    kind = "object"

    def __init__(self, ref: str, detail: str = "") -> None:
        super().__init__(f"{self.kind} {ref!r} not found{detail}")
        self.ref = ref


class NetworkNotFound(NotFoundError):
    """No network has that name, id or id prefix."""

    kind = "network"


class EndpointNotFound(NotFoundError):
    """No endpoint has that name, id or id prefix."""

    kind = "endpoint"


class SandboxNotFound(NotFoundError):
    """No sandbox has that name, id or id prefix."""

    kind = "sandbox"


class PoolNotFound(NotFoundError):
    """The IPAM driver has handed out no pool of that id."""

    kind = "pool"


class DriverNotFound(NotFoundError):
    """No driver is installed under that name.

    :ivar available: the names that are installed
    """

    kind = "driver"

    def __init__(self, ref: str, available: Sequence[str] = ()) -> None:
        super().__init__(ref, f" (installed: {', '.join(available) or 'none'})")
        self.available: tuple[str, ...] = tuple(available)


class PortNotFound(NotFoundError):
    """The endpoint was not asked to publish that port."""

    kind = "port"


class ConflictError(CNMError):
    """Something of that name, address or kind is there already."""


class NameConflict(ConflictError):
    """The name is taken."""


class AddressInUse(ConflictError):
    """The address belongs to another endpoint, to a gateway, or is reserved."""


class PoolOverlap(ConflictError):
    """The subnet overlaps one that is in use."""


class PortInUse(ConflictError):
    """Ports of the host are taken.

    :ivar problems: a sentence for each of them
    :ivar ports: which ones, e.g. ``"0.0.0.0:8080/tcp"``
    """

    def __init__(self, problems: Iterable[str], ports: Iterable[str]) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        self.ports: tuple[str, ...] = tuple(ports)
        super().__init__("; ".join(self.problems))


class ForbiddenError(CNMError):
    """The present state of things does not allow the operation."""


class ActiveEndpointsError(ForbiddenError):
    """The network still has endpoints.

    :ivar endpoints: their names
    """

    def __init__(self, network: str, endpoints: Iterable[tuple[str, str]]) -> None:
        pairs = list(endpoints)
        listed = ", ".join(f"name:{name!r} id:{ident[:12]!r}" for name, ident in pairs)
        super().__init__(f"network {network!r} has active endpoints ({listed})")
        self.endpoints: tuple[str, ...] = tuple(name for name, _ in pairs)


class ActiveSandboxError(ForbiddenError):
    """The endpoint is joined to a sandbox."""


class UnavailableError(CNMError):
    """Nothing is left of what was asked for, or this machine does not have it."""


class NoAvailableAddress(UnavailableError):
    """Every address of the pool is taken."""


class NoAvailablePool(UnavailableError):
    """Every subnet of the predefined pools is taken."""


class NoAvailablePort(UnavailableError):
    """Every port of the range is taken."""


def told(reason: object) -> str:
    """Return what an exception says; of a group, what all in it say."""
    if isinstance(reason, BaseExceptionGroup):
        return "; ".join(map(told, reason.exceptions))
    # some say nothing, or no more than a key
    return repr(reason) if isinstance(reason, KeyError) else str(reason) or repr(reason)


class DriverError(CNMError):
    """A driver failed to handle an event; the cause is what it raised.

    :ivar driver: name of the driver
    :ivar event: name of the event, e.g. ``"endpoint.joined"``
    """

    def __init__(self, driver: str, event: str, reason: object) -> None:
        super().__init__(f"driver {driver!r} failed to handle {event}: {told(reason)}")
        self.driver = driver
        self.event = event


class DriverLoadError(CNMError):
    """A driver is installed but cannot be used."""


def _reason(code: int) -> str:
    reason = os.strerror(code)
    if code != errno.EMFILE:
        return reason
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"{reason} (ulimit -n is {limit})"


class KernelError(CNMError, OSError):
    """The kernel refused a request.

    :ivar errno: the kernel's error number
    :ivar what: what was attempted, e.g. ``"add address 10.9.0.2/24 to eth0"``
    """

    def __init__(self, errno: int, what: str, text: str = "") -> None:
        super().__init__(errno, text or _reason(errno))
        self.what = what

    def __str__(self) -> str:
        return f"{self.what}: {self.strerror}"


class NetlinkError(KernelError):
    """The kernel answered a netlink request with an error.

    :ivar text: the kernel's own explanation (extended acknowledgement), or ``""``
    :ivar index: position of the request in its batch
    :ivar others: further errors of the same batch
    """

    def __init__(self, errno: int, what: str, text: str = "", index: int = 0) -> None:
        super().__init__(errno, what, text)
        self.text = text
        self.index = index
        self.others: tuple[NetlinkError, ...] = ()


class MissingCapability(ForbiddenError, KernelError):
    """The process lacks a Linux capability.

    :ivar capability: e.g. ``"CAP_NET_ADMIN"``
    """

    def __init__(self, errno: int, what: str, capability: str) -> None:
        KernelError.__init__(
            self, errno, what, f"{os.strerror(errno)} (needs {capability})"
        )
        self.capability = capability


class MissingFeature(UnavailableError, KernelError):
    """The running kernel lacks a feature.

    :ivar feature: the kernel option to build it with, e.g. ``"CONFIG_BRIDGE"``
    """

    def __init__(self, errno: int, what: str, feature: str) -> None:
        KernelError.__init__(self, errno, what, f"this kernel lacks {feature}")
        self.feature = feature


class StoreError(CNMError):
    """The store cannot be opened, read or written."""


class StoreConflict(StoreError, ConflictError):
    """The record has another version than the one that was expected."""


class SubscriberTooSlow(CNMError):
    """The subscriber's buffer ran full; the subscription has ended.

    Events that were buffered have been delivered; later ones have not.
    """


class TeardownError(CNMError, ExceptionGroup[Exception]):
    """A removal went on past failures; what could be removed has been."""
