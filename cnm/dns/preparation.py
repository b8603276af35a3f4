"""What is done inside a sandbox for its names: files, and sockets of its resolver."""

from __future__ import annotations

import errno
from functools import partial
from typing import NamedTuple

from ..errors import KernelError
from ..linux import SandboxSockets, Sockets, sysctl
from ..types import IPAddress
from .files import Files
from .hosts import host_lines, loopback_lines
from .resolvconf import ResolvConf, host_file, sandbox_file
from .situation import Situation
from .sockets import RESOLVER4, RESOLVER6, Listeners, listen


class State(NamedTuple):
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
    :param base: what a new hosts file begins with, if that is known
    :ivar base: the same, if it is known then
    :ivar listeners: sockets that have been made, in place of those that there were
    :ivar state: what there is afterwards
    :ivar done: whether all of it is done
    """

    def __init__(
        self,
        situation: Situation,
        state: State,
        host: ResolvConf,
        base: list[str] | None = None,
    ) -> None:
        self.situation = situation
        self.state: State = state
        self.base: list[str] | None = base
        self.listeners: tuple[Listeners, ...] = ()
        self.done: bool = False
        self._host = host

    @property
    def _listens(self) -> bool:
        """Whether its resolver needs sockets, or other ones."""
        situation = self.situation
        if situation.on_host or not situation.endpoints:
            return False
        needs_rule = situation.serves_names and not self.state.redirected
        return not self.state.addresses or needs_rule

    def run(self, sockets: Sockets, sandbox: SandboxSockets) -> None:
        """Plan: write the sandbox's files, and make the sockets of its resolver.

        :raises KernelError: if that is not possible
        """
        try:
            self._do(sockets, sandbox)
        except OSError as exc:
            if isinstance(exc, KernelError):
                raise
            what = f"have sandbox {self.situation.sandbox.name!r} resolve names"
            raise KernelError(exc.errno or errno.EIO, what) from exc

    def _do(self, sockets: Sockets, sandbox: SandboxSockets) -> None:
        situation, state = self.situation, self.state
        if self._listens:
            self.listeners = listen(
                sockets,
                sandbox,
                adopted=situation.adopted,
                ipv6=situation.only_ipv6,
                redirect=situation.serves_names,
            )
            state = state._replace(
                addresses=tuple(it.address for it in self.listeners),
                redirected=any(it.redirected for it in self.listeners),
            )
        try:
            self.state = self._write(sockets, sandbox, state)
        except BaseException:
            for listeners in self.listeners:
                listeners.close()
            self.listeners = ()
            raise
        self.done = True

    def _write(self, sockets: Sockets, sandbox: SandboxSockets, state: State) -> State:
        files = Files(self.situation.directory)
        lines = self.situation.hosts_lines
        fresh = False
        if lines != state.lines:
            fresh = files.make()
            base = partial(self._base, sockets, sandbox)
            files.write_hosts(base, state.lines or (), lines, fresh=fresh)
        nameserver = self._nameserver(state.addresses)
        if nameserver != state.nameserver or state.lines is None:
            try:
                files.write_resolv_conf(self._resolv_conf(nameserver), fresh=fresh)
            except BaseException:
                if state.lines is not None:
                    files.write_hosts(list, lines, state.lines)
                raise
        return state._replace(lines=lines, nameserver=nameserver)

    def _base(self, sockets: Sockets, sandbox: SandboxSockets) -> list[str]:
        """Plan: return what a new hosts file begins with."""
        if self.situation.on_host:
            return host_lines()
        if self.base is None:
            proc = sockets.procfs.path()
            with sockets.inside(sandbox.netns):
                self.base = loopback_lines(ipv6=_has_loopback6(proc))
        return self.base

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


def _has_loopback6(proc: str) -> bool:
    try:
        return sysctl.read("net.ipv6.conf.lo.disable_ipv6", proc) == "0"
    except KernelError as exc:
        if exc.errno != errno.ENOENT:
            raise
        return False  # a kernel without IPv6
