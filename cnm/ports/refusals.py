"""Why ports of the host could not be taken: all reasons of a call together."""

from __future__ import annotations

import errno
import os

from ..errors import (
    InvalidError,
    KernelError,
    MissingCapability,
    NoAvailablePort,
    PortInUse,
)
from ..linux import sysctl
from .holding import too_many
from .owners import name_owners
from .places import HostPort

_NOT_AN_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL)
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SOMEBODY = "another program"
_BIND = "CAP_NET_BIND_SERVICE"


class Refusals:
    """Collects the ports that cannot be had.

    The methods are for plans.
    """

    def __init__(self) -> None:
        self._in_use: dict[HostPort, str] = {}
        self._absent: dict[str, None] = {}
        self._denied: list[HostPort] = []
        self._exhausted: dict[str, None] = {}

    def __bool__(self) -> bool:
        return bool(self._in_use or self._absent or self._denied or self._exhausted)

    @property
    def is_busy(self) -> bool:
        """Whether ports are in use, and nothing else is wrong."""
        return not (self._absent or self._denied or self._exhausted)

    def in_use(self, place: HostPort, by: str = _SOMEBODY) -> None:
        """Add a port that somebody has."""
        self._in_use[place] = by

    def exhausted(self, problem: str) -> None:
        """Add that no port of a range is free."""
        self._exhausted[problem] = None

    def refused(self, place: HostPort, error: OSError, count: int) -> None:
        """Add a port that the kernel refuses to give.

        :param count: how many ports have been taken so far
        :raises UnavailableError: if there is no room for another socket
        :raises KernelError: if the reason has nothing to do with the port
        """
        number = error.errno or errno.EIO
        if number == errno.EADDRINUSE:
            self.in_use(place)
        elif number in _NOT_AN_ADDRESS:
            address = f"host address {place.address}"
            self._absent[f"ports: {address} is not an address of this host"] = None
        elif number == errno.EACCES:
            self._denied.append(place)
        elif number in _NO_ROOM:
            raise too_many(count + 1, os.strerror(number)) from error
        else:
            raise KernelError(number, f"take {place.described}") from error

    def absorb(self, other: Refusals) -> None:
        """Add what somebody else has collected."""
        self._in_use |= other._in_use
        self._absent |= other._absent
        self._denied += other._denied
        self._exhausted |= other._exhausted

    def check(self) -> None:
        """Raise the error for all that has been added, if anything has.

        :raises PortInUse: if ports are in use
        :raises NoAvailablePort: if every port of a range is
        :raises MissingCapability: if ports are for the privileged only
        :raises InvalidError: if addresses are not there, or for several reasons
        """
        kinds = [self._in_use, self._absent, self._denied, self._exhausted]
        present = [kind for kind in kinds if kind]
        if not present:
            return
        if len(present) > 1 or self._absent:
            raise InvalidError(*self._sentences())
        if self._in_use:
            raise PortInUse(self._sentences(), map(str, self._in_use))
        if self._denied:
            raise MissingCapability(errno.EACCES, _privileged(self._denied), _BIND)
        raise NoAvailablePort("; ".join(self._exhausted))

    def _sentences(self) -> list[str]:
        sentences = list(self._absent)
        if self._denied:
            sentences.append(f"{_privileged(self._denied)} needs {_BIND}")
        unknown = [place for place, by in self._in_use.items() if by == _SOMEBODY]
        owners = self._in_use | (name_owners(unknown) if unknown else {})
        sentences += [f"{it.described} is in use by {by}" for it, by in owners.items()]
        return [*sentences, *self._exhausted]


def _privileged(places: list[HostPort]) -> str:
    ports = ", ".join(place.described for place in places)
    setting = "net.ipv4.ip_unprivileged_port_start"
    return f"publish {ports} ({setting} is {sysctl.read(setting)})"
