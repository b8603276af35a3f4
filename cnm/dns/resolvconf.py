"""Reading and making resolv.conf(5)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from ..types import IPAddress, IPNetwork

HOST_FILE = "/etc/resolv.conf"


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvConf:
    """What a resolv.conf says; unknown directives are kept as they are."""

    nameservers: tuple[IPAddress, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    other: tuple[str, ...] = ()

    @classmethod
    def parse(cls, content: str) -> ResolvConf:
        """Read a file's content. What cannot be understood is left out."""
        servers: list[IPAddress] = []
        search: tuple[str, ...] = ()
        options: list[str] = []
        other: list[str] = []
        for line in content.splitlines():
            words = line.split()
            if not words or words[0][0] in "#;":
                continue
            if words[0] == "nameserver":
                try:
                    servers.append(ipaddress.ip_address("".join(words[1:2])))
                except ValueError:
                    continue
            elif words[0] in ("search", "domain"):
                search = tuple(words[1:])
            elif words[0] == "options":
                options.extend(words[1:])
            else:
                other.append(line.strip())
        return cls(
            nameservers=tuple(servers),
            search=search,
            options=tuple(options),
            other=tuple(other),
        )

    def for_sandbox(
        self,
        nameservers: tuple[IPAddress, ...],
        search: tuple[str, ...],
        options: tuple[str, ...],
    ) -> ResolvConf:
        """Return what a sandbox gets on a host with this file.

        What is given replaces what the host has; a search domain ``.`` clears the
        list. The host's name servers on its loopback cannot be reached from a sandbox,
        and are left out.
        """
        reachable = tuple(
            server for server in self.nameservers if not server.is_loopback
        )
        domains = search or self.search
        return ResolvConf(
            nameservers=nameservers or reachable,
            search=() if domains == (".",) else domains,
            options=options or self.options,
            other=self.other,
        )

    def render(self) -> str:
        """Return the content of the file."""
        lines = [f"nameserver {server}" for server in self.nameservers]
        if not self.nameservers:
            lines.append("# NO EXTERNAL NAMESERVERS DEFINED")
        if self.search:
            lines.append("search " + " ".join(self.search))
        if self.options:
            lines.append("options " + " ".join(self.options))
        return "\n".join([*lines, *self.other, ""])


def host_configuration() -> ResolvConf:
    """Read the host's file. Blocks. A missing file is an empty one."""
    try:
        with open(HOST_FILE, encoding="utf-8", errors="replace") as file:
            return ResolvConf.parse(file.read())
    except OSError:
        return ResolvConf()


def name_servers() -> tuple[IPNetwork, ...]:
    """Return the host's name servers, each as a subnet of one address. Blocks."""
    servers = host_configuration().nameservers
    return tuple(
        ipaddress.ip_network(server.packed)
        for server in servers
        if not server.is_loopback
    )
