"""What the endpoints of a network are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..types import IPAddress, ServiceRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """A sandbox on a network.

    :ivar names: what it is called there, in lower case; the first one is its own, the
        others it may share; ``*.app`` stands for every name that ends in ``.app``
    :ivar addresses: its addresses there
    """

    names: tuple[str, ...]
    addresses: tuple[IPAddress, ...]


class Zone:
    """The names of a network.

    Names are in lower case, and without the network's own at the end.

    :param name: the network's name
    :param services: what it says of services
    :ivar name: the network's name in lower case
    """

    def __init__(self, name: str, services: Iterable[ServiceRecord] = ()) -> None:
        self.name: str = name.lower()
        self._hosts: dict[str, Host] = {}
        self._by_name: dict[str, dict[str, Host]] = {}
        self._by_address: dict[IPAddress, Host] = {}
        self._watchers: dict[Callable[[], None], None] = {}
        self._services = _by_service(services)

    def watch(self, changed: Callable[[], None]) -> None:
        """Have a function called after the next change, once.

        So those who have not looked at the zone since the last change cost nothing.
        """
        self._watchers[changed] = None

    def unwatch(self, changed: Callable[[], None]) -> None:
        """Have it called no more; no error if it would not be."""
        self._watchers.pop(changed, None)

    def add(self, identity: str, host: Host) -> None:
        """Enter a host, or change it.

        :param identity: how it is found again; an endpoint's id
        """
        self._strike_out(identity)
        self._hosts[identity] = host
        for name in host.names:
            self._by_name.setdefault(name, {})[identity] = host
        for address in host.addresses:
            self._by_address[address] = host
        self._changed()

    def remove(self, identity: str) -> None:
        """Strike out a host; no error if there is none."""
        self._strike_out(identity)
        self._changed()

    def serve(self, services: Iterable[ServiceRecord]) -> None:
        """Set what the network says of services."""
        self._services = _by_service(services)
        self._changed()

    def addresses(self, name: str) -> tuple[IPAddress, ...] | None:
        """Return the addresses of all hosts of a name; None if there is no host."""
        hosts = self._by_name.get(name)
        if hosts is None:
            return None
        return tuple(address for host in hosts.values() for address in host.addresses)

    def wildcard(self, name: str) -> str:
        """Return the wildcard that a name is covered by, the longest; or ``""``."""
        _, dot, parent = name.partition(".")
        while dot:
            if f"*.{parent}" in self._by_name:
                return f"*.{parent}"
            _, dot, parent = parent.partition(".")
        return ""

    def name_of(self, address: IPAddress) -> str:
        """Return the name of the host that has an address, or ``""``."""
        host = self._by_address.get(address)
        return host.names[0] if host else ""

    def services(self, name: str) -> tuple[ServiceRecord, ...]:
        """Return what is said of a service."""
        return self._services.get(name, ())

    def _strike_out(self, identity: str) -> None:
        host = self._hosts.pop(identity, None)
        if host is None:
            return
        for name in host.names:
            hosts = self._by_name[name]
            del hosts[identity]
            if not hosts:
                del self._by_name[name]
        for address in host.addresses:
            if self._by_address.get(address) is host:
                del self._by_address[address]

    def _changed(self) -> None:
        watchers, self._watchers = self._watchers, {}
        for changed in watchers:
            changed()


def _by_service(
    services: Iterable[ServiceRecord],
) -> dict[str, tuple[ServiceRecord, ...]]:
    found: dict[str, tuple[ServiceRecord, ...]] = {}
    for record in services:
        name = record.name.lower()
        found[name] = (*found.get(name, ()), record)
    return found
