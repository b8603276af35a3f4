"""Which programs have ports of the host: for error messages only, since it is slow."""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, NamedTuple

from ..requests.specs import overlap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..types import IPAddress, Proto
    from .places import HostPort

# Documentation/networking/proc_net_tcp.rst
_TABLES: tuple[tuple[str, Proto], ...] = (
    ("tcp", "tcp"),
    ("tcp6", "tcp"),
    ("udp", "udp"),
    ("udp6", "udp"),
)
_LOCAL_ADDRESS = 1
_INODE = 9


class _Entry(NamedTuple):
    """A socket in a table of /proc/net."""

    address: IPAddress
    proto: Proto
    port: int
    inode: str


def name_owners(places: Iterable[HostPort]) -> dict[HostPort, str]:
    """Plan: say which processes have ports, e.g. ``"process 123 (nginx)"``.

    Not every socket is to be seen, and not every process. A port whose owner is not
    found is left out.
    """
    wanted = list(places)
    entries = list(_entries({place.port for place in wanted}))
    inodes = {}
    for place in wanted:
        if inode := _inode(place, entries):
            inodes[place] = inode
    processes = _processes(set(inodes.values()))
    return {
        place: processes[inode] for place, inode in inodes.items() if inode in processes
    }


def _entries(ports: set[int]) -> Iterator[_Entry]:
    """Yield the sockets of the thread's network namespace that have some ports."""
    for table, proto in _TABLES:
        try:
            with open(f"/proc/thread-self/net/{table}", encoding="ascii") as file:
                rows = file.readlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for row in rows:
            fields = row.split()
            address, _, port = fields[_LOCAL_ADDRESS].partition(":")
            if int(port, 16) in ports and fields[_INODE] != "0":
                yield _Entry(_address(address), proto, int(port, 16), fields[_INODE])


def _address(text: str) -> IPAddress:
    """Parse an address: words of 32 bits, as the machine has them in memory."""
    packed = b"".join(
        int(text[start : start + 8], 16).to_bytes(4, "little")
        for start in range(0, len(text), 8)
    )
    if len(packed) == 4:
        return IPv4Address(packed)
    address = IPv6Address(packed)
    return address.ipv4_mapped or address


def _inode(place: HostPort, entries: Iterable[_Entry]) -> str:
    """Return the inode of the socket that has a port, or ``""``."""
    mapped = ""
    for entry in entries:
        if (entry.proto, entry.port) != (place.proto, place.port):
            continue
        if overlap(entry.address, place.address):
            return entry.inode
        if entry.address.version == 6 and entry.address.is_unspecified:
            mapped = entry.inode  # most servers take IPv4 by such a socket as well
    return mapped


def _processes(inodes: set[str]) -> dict[str, str]:
    """Return the processes that have sockets open, by their inodes."""
    found: dict[str, str] = {}
    links = {f"socket:[{inode}]": inode for inode in inodes}
    for name in os.listdir("/proc"):
        if len(found) == len(links):
            break
        if not name.isdecimal():
            continue
        for target in _open_files(name):
            if inode := links.get(target):
                found.setdefault(inode, f"process {name} ({_command(name)})")
    return found


def _open_files(process: str) -> Iterator[str]:
    directory = f"/proc/{process}/fd"
    try:
        names = os.listdir(directory)
    except OSError:
        return  # it has ended, or is not for us to see
    for name in names:
        with suppress(OSError):  # closed meanwhile
            yield os.readlink(f"{directory}/{name}")


def _command(process: str) -> str:
    try:
        with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"
