"""The names of a controller's networks, and the resolvers of its sandboxes."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from socket import socket

import anyio
import anyio.to_thread

from ..errors import KernelError
from ..linux import Kernel, SandboxSockets, Sockets, sysctl
from ..types import EndpointInfo, IPAddress, NetworkInfo, SandboxInfo
from .files import Files
from .hosts import host_lines, loopback_lines
from .policy import Answered, NamePolicy
from .records import NameServer
from .resolvconf import ResolvConf, host_configuration, host_file, sandbox_file
from .situation import Situation
from .sockets import RESOLVER4, RESOLVER6, Listeners, listen
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """What there is of a sandbox's names.

    :ivar lines: the lines of its hosts file that are ours; None without a file
    :ivar nameserver: what its resolv.conf names
    :ivar addresses: where its resolver listens
    :ivar redirected: whether a rule leads queries to it
    """

    lines: list[str] | None = None
    nameserver: IPAddress | None = None
    addresses: tuple[IPAddress, ...] = ()
    redirected: bool = False


class Preparation:
    """What is done inside a sandbox, so that names are right afterwards.

    :param situation: what the sandbox is joined to then
    :param state: what there is so far
    :param host: what the host's resolv.conf says
    :ivar listeners: sockets that have been made, in place of those that there were
    :ivar state: what there is afterwards
    """

    def __init__(self, situation: Situation, state: _State, host: ResolvConf) -> None:
        self.situation = situation
        self.state = state
        self.listeners: tuple[Listeners, ...] = ()
        self._host = host

    @property
    def _listens(self) -> bool:
        """Whether its resolver needs sockets, or other ones."""
        situation = self.situation
        if situation.on_host or not situation.endpoints:
            return False
        needs_rule = situation.serves_names and not self.state.redirected
        return not self.state.addresses or needs_rule

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to do."""
        lines = self.situation.hosts_lines
        named = self._nameserver(self.state.addresses)
        return (
            self._listens or lines != self.state.lines or named != self.state.nameserver
        )

    def run(self, sockets: Sockets, sandbox: SandboxSockets) -> None:
        """Plan: write the sandbox's files, and make the sockets of its resolver.

        :raises OSError: if that is not possible
        """
        situation, state = self.situation, self.state
        if self._listens:
            self.listeners = listen(
                sockets,
                sandbox,
                ipv6=situation.only_ipv6,
                redirect=situation.serves_names,
            )
            state = replace(
                state,
                addresses=tuple(it.address for it in self.listeners),
                redirected=any(it.redirected for it in self.listeners),
            )
        try:
            self.state = self._write(sockets, sandbox, state)
        except BaseException:
            for listeners in self.listeners:
                listeners.close()
            raise

    def _write(
        self, sockets: Sockets, sandbox: SandboxSockets, state: _State
    ) -> _State:
        files = Files(self.situation.directory)
        lines = self.situation.hosts_lines
        if lines != state.lines:
            files.make()
            base = partial(self._base, sockets, sandbox)
            files.write_hosts(base, state.lines or (), lines)
        nameserver = self._nameserver(state.addresses)
        if nameserver != state.nameserver or state.lines is None:
            files.write_resolv_conf(self._resolv_conf(nameserver))
        return replace(state, lines=lines, nameserver=nameserver)

    def _base(self, sockets: Sockets, sandbox: SandboxSockets) -> list[str]:
        """Plan: return what a new hosts file begins with."""
        if self.situation.on_host:
            return host_lines()
        with sockets.inside(sandbox.netns):
            return loopback_lines(ipv6=_has_loopback6())

    def _nameserver(self, addresses: tuple[IPAddress, ...]) -> IPAddress | None:
        situation = self.situation
        if situation.on_host:
            return None
        only6 = situation.only_ipv6 and RESOLVER6 in addresses
        return RESOLVER6 if only6 else RESOLVER4

    def _resolv_conf(self, nameserver: IPAddress | None) -> str:
        overrides = self.situation.overrides
        if nameserver is None:
            return host_file(self._host, overrides)
        return sandbox_file(self._host, overrides, nameserver)


def _has_loopback6() -> bool:
    try:
        return sysctl.read("net.ipv6.conf.lo.disable_ipv6") == "0"
    except KernelError as exc:
        if exc.errno != errno.ENOENT:
            raise
        return False  # a kernel without IPv6


class _Local:
    """What belongs to one sandbox.

    :ivar state: what there is of its names
    :ivar situation: what it is joined to
    :ivar resolver: answers its queries
    """

    def __init__(self, situation: Situation, names: Names) -> None:
        from .resolver import Resolver

        self.state = _State()
        self.situation = situation
        self._names = names
        self._view = SandboxView(self._changed)
        self.resolver = Resolver(
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
        self.host = HostConfiguration(host)
        self.forwarder = Forwarder(cache_size=cache_size)
        self._server = Server()
        self._zones: dict[str, Zone] = {}
        self._sandboxes: dict[str, _Local] = {}
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
        """Set what has a say in which names a sandbox may ask for."""
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

    def enter(self, situation: Situation, endpoint: EndpointInfo) -> None:
        """Have the sandboxes of a network find one that has joined it."""
        zone = self._zones[endpoint.network.id]
        zone.add(endpoint.id, situation.host(endpoint))

    def leave(self, endpoint: EndpointInfo) -> None:
        """Have nobody find a sandbox any more that leaves a network."""
        if zone := self._zones.get(endpoint.network.id):
            zone.remove(endpoint.id)

    # --- sandboxes --------------------------------------------------------------------

    def prepare(self, situation: Situation) -> Preparation:
        """Return what is to be done inside a sandbox."""
        local = self._sandboxes.get(situation.sandbox.id)
        state = local.state if local else _State()
        return Preparation(situation, state, self.host.current)

    def adopt(self, done: Preparation) -> None:
        """Take over what has been done inside a sandbox."""
        local = self._local(done.situation)
        local.state = done.state
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

    def remove(self, sandbox: SandboxInfo) -> None:
        """Close a sandbox's resolver, whose sockets keep its namespace alive."""
        if local := self._sandboxes.pop(sandbox.id, None):
            local.show(local.situation, ())
            self._server.close(local.resolver)
            self._gone.add(local.resolver.counters)

    def _local(self, situation: Situation) -> _Local:
        identity = situation.sandbox.id
        if identity not in self._sandboxes:
            local = self._sandboxes[identity] = _Local(situation, self)
            local.resolver.observe = self._observe
        return self._sandboxes[identity]


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
