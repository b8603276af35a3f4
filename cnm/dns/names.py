"""The names of a controller's networks, and the resolvers of its sandboxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from socket import socket

import anyio
import anyio.to_thread

from ..errors import InvalidError
from ..linux import Kernel, Sockets
from ..types import EndpointInfo, NetworkInfo, SandboxInfo
from ..validation import shown
from .policy import Answered, NamePolicy
from .preparation import Preparation, State
from .records import NameServer
from .resolvconf import ResolvConf, host_configuration
from .situation import Situation, host_of
from .sockets import RESOLVER4
from .statistics import Counters, NameStatistics
from .view import Membership, SandboxView
from .zone import Zone

#: Seconds for which the host's resolv.conf is not read again.
REFRESH = 1


class HostConfiguration:
    """The host's resolv.conf, read again while it is in use."""

    def __init__(self, current: ResolvConf) -> None:
        self._current = current
        self._used = anyio.Event()

    @property
    def current(self) -> ResolvConf:
        """What it said a short while ago."""
        self._used.set()
        return self._current

    async def run(self) -> None:
        """Keep it up to date, until cancelled."""
        while True:
            await self._used.wait()
            self._current = await anyio.to_thread.run_sync(host_configuration)
            await anyio.sleep(REFRESH)
            self._used = anyio.Event()


class _Local:
    """What belongs to one sandbox.

    :ivar state: what there is of its names
    :ivar situation: what it is joined to
    :ivar resolver: answers its queries
    """

    def __init__(self, situation: Situation, names: Names) -> None:
        from .resolver import Resolver

        self.state: State = State()
        self.situation = situation
        self._names = names
        self._view = SandboxView(self._changed)
        self.resolver: Resolver = Resolver(
            situation.sandbox,
            self._view,
            self._name_servers,
            self._open_socket,
            names.forwarder,
        )

    def show(self, situation: Situation, memberships: Sequence[Membership]) -> None:
        """Set what it is joined to, and what it sees therefore."""
        self.situation = situation
        self._view.show(
            memberships,
            {name.lower(): found for name, found in situation.hosts.items()},
            # whoever says how many dots a name needs tries search domains next
            keeps_single=situation.overrides.set_ndots(self._names.host.current),
        )

    def _changed(self) -> None:
        self.resolver.forget()

    def _name_servers(self) -> tuple[NameServer, ...]:
        """Return whom to ask for the names of others.

        The host's name servers are not asked for a sandbox without a way out: names
        are a way out, too.
        """
        situation = self.situation
        own = (RESOLVER4, *self.state.addresses)
        if given := situation.overrides.nameservers:
            return tuple(NameServer(it, inside=True) for it in given if it not in own)
        if not situation.connected:
            return ()
        return tuple(map(NameServer, self._names.host.current.nameservers))

    async def _open_socket(self, inside: bool, family: int, type: int) -> socket:
        key = self.situation.sandbox.key if inside else ""
        return await self._names.kernel.run(Sockets.open_socket, family, type, key=key)


class Names:
    """The names of a controller's networks, and the resolvers of its sandboxes.

    :param host: what the host's resolv.conf says
    :param cache_size: how many answers of other name servers are kept
    """

    def __init__(self, kernel: Kernel, host: ResolvConf, cache_size: int) -> None:
        from .forwarder import Forwarder
        from .server import Server

        self.kernel = kernel
        self.host: HostConfiguration = HostConfiguration(host)
        self.forwarder: Forwarder = Forwarder(cache_size=cache_size)
        self._server = Server()
        self._zones: dict[str, Zone] = {}
        self._sandboxes: dict[str, _Local] = {}
        self._base: list[str] | None = None
        self._gone = Counters()
        self._observe: Callable[[Answered], None] | None = None

    @property
    def statistics(self) -> NameStatistics:
        """What all sandboxes have asked so far, those that are gone included."""
        total = Counters()
        total.add(self._gone)
        for local in self._sandboxes.values():
            total.add(local.resolver.counters)
        return total.snapshot()

    def statistics_of(self, sandbox: SandboxInfo) -> NameStatistics:
        """What a sandbox has asked so far."""
        local = self._sandboxes.get(sandbox.id)
        return local.resolver.counters.snapshot() if local else NameStatistics()

    def policy_of(self, sandbox: SandboxInfo) -> NamePolicy | None:
        """Return what has a say in which names a sandbox may ask for."""
        local = self._sandboxes.get(sandbox.id)
        return local.resolver.policy if local else None

    def set_policy(self, sandbox: SandboxInfo, policy: NamePolicy | None) -> None:
        """Set what has a say in which names a sandbox may ask for.

        :raises InvalidError: if it is no policy
        """
        parts = [getattr(policy, name, None) for name in ("allows", "answered")]
        if policy is not None and not all(map(callable, parts)):
            raise InvalidError(
                "name_policy: expected an object with allows() and answered(), or "
                f"None, not {shown(policy)}"
            )
        self._sandboxes[sandbox.id].resolver.policy = policy

    def observe(self, observe: Callable[[Answered], None] | None) -> None:
        """Set what is called after each answer from now on; None for nothing."""
        if (observe is None) == (self._observe is None):
            return
        self._observe = observe
        for local in self._sandboxes.values():
            local.resolver.observe = observe

    async def run(self) -> None:
        """Serve, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.host.run)
            await self._server.run()

    def close(self) -> None:
        """Close all sockets."""
        self._server.shut()

    # --- networks ---------------------------------------------------------------------

    def serve(self, network: NetworkInfo) -> None:
        """Take up a network, or what it says of services."""
        zone = self._zones.get(network.id)
        if zone is None:
            self._zones[network.id] = Zone(network.name, network.services)
        else:
            zone.serve(network.services)

    def drop(self, network: NetworkInfo) -> None:
        """Forget a network that has no endpoints any more."""
        self._zones.pop(network.id, None)

    def enter(self, sandbox: SandboxInfo, endpoint: EndpointInfo) -> None:
        """Have the sandboxes of a network find one that has joined it."""
        zone = self._zones[endpoint.network.id]
        zone.add(endpoint.id, host_of(sandbox, endpoint))

    def leave(self, endpoint: EndpointInfo) -> None:
        """Have nobody find a sandbox any more that leaves a network."""
        if zone := self._zones.get(endpoint.network.id):
            zone.remove(endpoint.id)

    # --- sandboxes --------------------------------------------------------------------

    def prepare(self, situation: Situation) -> Preparation:
        """Return what is to be done inside a sandbox."""
        local = self._sandboxes.get(situation.sandbox.id)
        state = local.state if local else State()
        # the namespaces that we make are all alike
        base = None if situation.adopted else self._base
        return Preparation(situation, state, self.host.current, base)

    def adopt(self, done: Preparation) -> None:
        """Take over what has been done inside a sandbox."""
        local = self._local(done.situation)
        local.state = done.state
        if not done.situation.adopted:
            self._base = done.base
        if done.listeners:
            self._server.close(local.resolver)
        for listeners in done.listeners:
            self._server.open(local.resolver, listeners.udp, listeners.tcp)

    def show(self, situation: Situation) -> None:
        """Have a sandbox see the names of the networks that it is joined to."""
        memberships = [
            Membership(
                zone=self._zones[endpoint.network.id],
                links={
                    link.lower(): name.lower() for link, name in endpoint.links.items()
                },
            )
            for endpoint in situation.endpoints
        ]
        self._local(situation).show(situation, memberships)

    def redirects(self, sandbox: SandboxInfo) -> bool:
        """Tell whether a rule of ours is in a sandbox's namespace."""
        local = self._sandboxes.get(sandbox.id)
        return local is not None and local.state.redirected

    def remove(self, sandbox: SandboxInfo) -> Callable[[Sockets], None]:
        """Have a sandbox's resolver answer no more.

        :return: the plan that closes its sockets, which keep the namespace alive
        """
        listening: list[socket] = []
        if local := self._sandboxes.pop(sandbox.id, None):
            local.show(local.situation, ())
            listening = self._server.release(local.resolver)
            self._gone.add(local.resolver.counters)
        return partial(_close, listening)

    def _local(self, situation: Situation) -> _Local:
        identity = situation.sandbox.id
        if identity not in self._sandboxes:
            local = self._sandboxes[identity] = _Local(situation, self)
            local.resolver.observe = self._observe
        return self._sandboxes[identity]


def _close(listening: Sequence[socket], sockets: Sockets) -> None:
    for made in listening:
        made.close()


async def open_names(kernel: Kernel, cache_size: int) -> Names:
    """Return the names of a controller that starts.

    :param cache_size: how many answers of other name servers are kept
    """
    host = await anyio.to_thread.run_sync(_prepare)
    return Names(kernel, host, cache_size)


def _prepare() -> ResolvConf:
    """Import what takes a while to import, and read the host's configuration."""
    import_module("cnm.dns.resolver")
    return host_configuration()
