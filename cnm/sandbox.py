"""Sandboxes: network stacks of their own."""

from __future__ import annotations

import socket as stdlib_socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import IO, Any, TypeAlias

import anyio
from anyio.abc import Process, SocketListener, SocketStream, UDPSocket

from . import interfaces, leaving, naming, sandbox_io
from .dns import Files, NamePolicy, NameStatistics, Situation
from .endpoint import Endpoint
from .errors import ConflictError, SandboxNotFound, TeardownError
from .gateways import Candidate, elect
from .interfaces import DefaultRoute
from .linux import Sockets
from .linux.process import SandboxProcess
from .requests import SandboxRequest
from .roles import Member
from .services import Services
from .types import EndpointInfo, IPAddress, PortBinding, SandboxInfo

#: What a process is started with: a program and its arguments, or a shell's line.
Command: TypeAlias = str | Sequence[str]


class Sandbox:
    """A network stack of its own: interfaces, addresses, routes and names.

    Joining and leaving happen one after the other.
    """

    def __init__(
        self, services: Services, info: SandboxInfo, request: SandboxRequest
    ) -> None:
        self._services = services
        self._info = info
        self._request = request
        self._endpoints: dict[str, Endpoint] = {}
        self._deleting = False
        self._deletion = anyio.Lock(fast_acquire=True)
        self.lock: anyio.Lock = anyio.Lock(fast_acquire=True)

    def __repr__(self) -> str:
        return f"<Sandbox {self.name!r} at {self.key}>"

    @property
    def info(self) -> SandboxInfo:
        """A snapshot of the sandbox."""
        return self._info

    @property
    def id(self) -> str:
        """The id: 64 hexadecimal digits."""
        return self._info.id

    @property
    def name(self) -> str:
        """The name, unique in the controller."""
        return self._info.name

    @property
    def key(self) -> str:
        """Path of the network namespace."""
        return self._info.key

    @property
    def hostname(self) -> str:
        """The host name."""
        return self._info.hostname

    @property
    def domainname(self) -> str:
        """The domain name."""
        return self._info.domainname

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels."""
        return self._info.labels

    @property
    def created(self) -> datetime:
        """When the sandbox was created."""
        return self._info.created

    @property
    def adopted(self) -> bool:
        """Whether the namespace was there before the sandbox."""
        return self._request.netns is not None

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints that are joined to it, in the order of joining."""
        return tuple(self._endpoints.values())

    @property
    def gateways(self) -> Mapping[int, Endpoint]:
        """The endpoints that provide the default routes, by family (4, 6)."""
        chosen = elect(endpoint.candidate for endpoint in self.endpoints)
        return {
            version: self._endpoints[candidate.endpoint]
            for version, candidate in chosen.items()
        }

    @property
    def ports(self) -> tuple[PortBinding, ...]:
        """The ports that are published by way of its endpoints."""
        return tuple(binding for each in self.endpoints for binding in each.ports)

    @property
    def _files(self) -> Files:
        return Files(naming.directory(self._services, self._info))

    @property
    def hosts_path(self) -> str:
        """Path of the file that is its /etc/hosts.

        It exists as long as the sandbox does, is changed in place when endpoints join
        and leave, and so can be mounted into containers. What others write into it
        stays.
        """
        return self._files.hosts

    @property
    def resolv_conf_path(self) -> str:
        """Path of the file that is its /etc/resolv.conf.

        As with :attr:`hosts_path`, but once somebody has edited it, it is not changed
        any more.
        """
        return self._files.resolv_conf

    @property
    def name_statistics(self) -> NameStatistics:
        """What its programs have asked the resolver so far."""
        return self._services.names.statistics_of(self._info)

    @property
    def name_policy(self) -> NamePolicy | None:
        """What has a say in which names its programs may ask for; None for nothing.

        It is not stored: whoever restarts a controller sets it again.
        """
        return self._services.names.policy_of(self._info)

    @name_policy.setter
    def name_policy(self, policy: NamePolicy | None) -> None:
        self.require()
        self._services.names.set_policy(self._info, policy)

    # --- what endpoints need of it; they hold its lock --------------------------------

    def require(self) -> None:
        """Raise SandboxNotFound if the sandbox is gone or going."""
        if self._deleting:
            raise SandboxNotFound(self.name)

    async def choose_interface(self, wanted: str, prefix: str) -> str:
        """Choose the name of a new interface.

        :param wanted: the name that was asked for, or ``""``
        :param prefix: what a chosen name begins with; the lowest free number follows
        """
        used: set[str] | frozenset[str] = {e.interface for e in self.endpoints}
        if self.adopted:
            names = self._services.kernel.run(interfaces.names, self.key)
            used = used | await names
        if wanted and (wanted in used or wanted == "lo"):
            raise ConflictError(
                f"interface name {wanted!r} is taken in sandbox {self.name!r}"
            )
        number = 0
        while not wanted and f"{prefix}{number}" in used:
            number += 1
        return wanted or f"{prefix}{number}"

    def defaults_with(
        self, candidate: Candidate
    ) -> tuple[tuple[DefaultRoute, ...], tuple[DefaultRoute, ...]]:
        """Return the default routes that a joining endpoint takes over.

        :return: the new ones, and those that they replace
        """
        present = [endpoint.candidate for endpoint in self.endpoints]
        before, after = elect(present), elect([*present, candidate])
        taken = [v for v, chosen in after.items() if chosen is candidate]
        new = tuple(
            DefaultRoute(
                version=version,
                via=candidate.next_hop(version),
                replace=version in before,
            )
            for version in taken
        )
        previous = tuple(
            _default(version, before[version]) for version in taken if version in before
        )
        return new, previous

    async def reroute(self) -> None:
        """Have the default routes go through those endpoints that have joined."""
        chosen = elect(endpoint.candidate for endpoint in self.endpoints)
        defaults = [_default(*each) for each in chosen.items()]
        if defaults:
            await self._services.kernel.run(interfaces.reroute, self.key, defaults)

    async def reroute_without(self, leaving: Endpoint) -> None:
        """Move the default routes of a leaving endpoint to others."""
        before = elect(endpoint.candidate for endpoint in self.endpoints)
        after = elect(e.candidate for e in self.endpoints if e is not leaving)
        moved = [
            _default(version, chosen)
            for version, chosen in after.items()
            if before[version].endpoint == leaving.id
        ]
        if moved:
            await self._services.kernel.run(interfaces.reroute, self.key, moved)

    def members(self, *, leaving: Endpoint | None = None) -> list[Member]:
        """Return the endpoints, for the decision which of them publish ports."""
        return [
            Member(
                endpoint=each,
                info=each.info,
                candidate=None if each is leaving else each.candidate,
            )
            for each in self.endpoints
        ]

    def situation(
        self,
        more: tuple[EndpointInfo, Candidate] | None = None,
        *,
        without: Endpoint | None = None,
    ) -> Situation:
        """Return what its names depend on.

        :param more: an endpoint that joins
        :param without: an endpoint that leaves
        """
        joined = [
            (endpoint.info, endpoint.candidate)
            for endpoint in self.endpoints
            if endpoint is not without and endpoint.interface
        ]
        joined += [more] if more is not None else []
        return naming.situation(self._services, self._info, self._request, joined)

    def attach(self, endpoint: Endpoint) -> None:
        """Note that an endpoint has joined."""
        mine = sorted([*self.endpoints, endpoint], key=lambda it: it.order)
        self._endpoints = {it.id: it for it in mine}

    def detach(self, endpoint: Endpoint) -> None:
        """Note that an endpoint has left."""
        self._endpoints.pop(endpoint.id, None)
        if not self._deleting:
            self._services.names.show(self.situation())

    # --- processes and sockets --------------------------------------------------------

    async def open_process(
        self,
        command: Command,
        *,
        stdin: int | IO[Any] | None = subprocess.PIPE,
        stdout: int | IO[Any] | None = subprocess.PIPE,
        stderr: int | IO[Any] | None = subprocess.PIPE,
        **options: Any,
    ) -> Process:
        """Start a process in the sandbox.

        It has the sandbox's network, its own /etc/resolv.conf and /etc/hosts, and a
        /sys that shows the sandbox's devices. Use it as an async context manager: the
        process is killed if the block is cancelled.

        :param options: further arguments of :class:`subprocess.Popen`, such as
            ``cwd``, ``env`` and ``user``
        :raises OSError: if the program cannot be started
        :raises KernelError: if its namespaces cannot be made
        """
        self.require()
        everything = {"stdin": stdin, "stdout": stdout, "stderr": stderr, **options}
        popen = await self._services.kernel.run(
            sandbox_io.start_process, self.key, command, self._files.mounts, everything
        )
        return SandboxProcess(popen)

    async def run(
        self,
        command: Command,
        *,
        input: bytes | None = None,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = subprocess.PIPE,
        stderr: int | IO[Any] | None = subprocess.PIPE,
        check: bool = True,
        **options: Any,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program in the sandbox, and wait for its end (anyio.run_process).

        The program is killed if the call is cancelled.

        :param input: what it finds on its standard input
        :param check: raise CalledProcessError if its exit status is not zero
        """
        if input is not None and stdin is not None:
            raise ValueError("only one of input and stdin may be given")
        if stdin is None:
            stdin = subprocess.PIPE if input is not None else subprocess.DEVNULL
        process = await self.open_process(
            command, stdin=stdin, stdout=stdout, stderr=stderr, **options
        )
        return await sandbox_io.communicate(process, command, input, check=check)

    async def socket(
        self,
        family: int = stdlib_socket.AF_INET,
        type: int = stdlib_socket.SOCK_STREAM,
        proto: int = 0,
    ) -> stdlib_socket.socket:
        """Make a non-blocking socket inside the sandbox, usable from anywhere.

        An open socket keeps the network namespace alive.
        """
        self.require()
        return await self._services.kernel.run(
            Sockets.open_socket, family, type, proto, key=self.key
        )

    async def connect_tcp(self, host: str | IPAddress, port: int) -> SocketStream:
        """Connect from the sandbox to an address.

        :raises OSError: if there is no connection
        """
        return await sandbox_io.connect_tcp(self, host, port)

    async def listen_tcp(
        self, host: str | IPAddress = "::", port: int = 0, backlog: int = 65536
    ) -> SocketListener:
        """Listen in the sandbox; ``"::"`` is every address of both families."""
        return await sandbox_io.listen_tcp(self, host, port, backlog)

    async def udp(self, host: str | IPAddress = "::", port: int = 0) -> UDPSocket:
        """Make a UDP socket in the sandbox; ``"::"`` is any address of all families."""
        return await sandbox_io.udp(self, host, port)

    # --- removal ----------------------------------------------------------------------

    async def delete(self) -> None:
        """Remove the sandbox; its endpoints leave and are deleted first.

        An adopted namespace is left as it was found. Once begun, the removal is not
        interrupted by cancellation, and goes on past failures, which are raised
        together at the end.

        To delete it twice is no error.

        :raises TeardownError: if something failed on the way
        """
        with anyio.CancelScope(shield=True):
            await self._services.turns.take()
            async with self._deletion:
                if self._services.sandboxes.get(self.id) is self:
                    await self._delete()

    async def _delete(self) -> None:
        self._deleting = True
        async with AsyncExitStack() as locks:
            # endpoints first, then the sandbox: the order of joining and leaving
            async with self.lock:
                mine = sorted(self.endpoints, key=lambda e: e.id)
            for endpoint in mine:
                await locks.enter_async_context(endpoint.lock)
            await locks.enter_async_context(self.lock)
            try:
                directory = self._files.directory
                failures = await leaving.remove(self._services, self, directory)
            except BaseException:
                self._deleting = False
                raise
        if failures:
            raise TeardownError(f"removing sandbox {self.name!r}", failures)


def _default(version: int, candidate: Candidate) -> DefaultRoute:
    return DefaultRoute(
        version=version,
        via=candidate.next_hop(version),
        index=candidate.index,
        replace=True,
    )
