"""Who reaches whom, from anywhere."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import TypeAlias

import anyio

import cnm
from tests.integration.api.traffic import BLOCKED_AFTER, PATIENCE, plain
from tests.integration.lab import Namespace

#: A machine outside, a sandbox, or None for the host.
Place: TypeAlias = Namespace | cnm.Sandbox | None
Probe: TypeAlias = tuple[Place, object, int, str]


async def _socket(where: Place, family: int, kind: int) -> socket.socket:
    if where is None:
        made = socket.socket(family, kind)
    elif isinstance(where, Namespace):
        made = where.socket(family, kind)
    else:
        return await where.socket(family, kind)
    made.setblocking(False)
    return made


async def reach(
    where: Place,
    to: object,
    port: int,
    proto: str = "tcp",
    timeout: float = PATIENCE,
) -> str:
    """Return what a server answers: the address that it sees.

    :return: ``""`` if nothing comes in time, or the name of an error number
    """
    address = ip_address(plain(to))
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
    with await _socket(where, family, kind) as client:
        with anyio.move_on_after(timeout):
            try:
                try:
                    client.connect((str(address), port))
                except BlockingIOError:
                    await anyio.wait_writable(client)
                if failed := client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    return errno.errorcode[failed]
                if proto == "udp":
                    client.send(b"?")
                await anyio.wait_readable(client)
                return client.recv(100).decode()
            except OSError as exc:
                return errno.errorcode[exc.errno or 0]
    return ""


async def reach_all(
    probes: Iterable[Probe], timeout: float = PATIENCE
) -> dict[str, str]:
    """Send all probes at once; return the answers by what was tried."""
    answers: dict[str, str] = {}

    async def one(where: Place, to: object, port: int, proto: str) -> None:
        name = "host" if where is None else where.name
        key = f"{name} -> {to} {port}/{proto}"
        answers[key] = await reach(where, to, port, proto, timeout)

    async with anyio.create_task_group() as tasks:
        for probe in probes:
            tasks.start_soon(one, *probe)
    return dict(sorted(answers.items()))


async def none_reached(probes: Iterable[Probe]) -> dict[str, str]:
    """Return those probes that got an answer, though they must not."""
    found = await reach_all(probes, BLOCKED_AFTER)
    return {what: answer for what, answer in found.items() if not _failed(answer)}


def unanswered(answers: dict[str, str]) -> dict[str, str]:
    """Return those probes that got no answer, though they must."""
    return {what: answer for what, answer in answers.items() if _failed(answer)}


def _failed(answer: str) -> bool:
    return not answer or answer in errno.errorcode.values()
