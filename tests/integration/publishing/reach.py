"""Who reaches whom, from anywhere."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import anyio

import cnm
from tests.integration.api.traffic import BLOCKED_AFTER, PATIENCE, plain
from tests.integration.barriers import Barrier, all_but_one, without
from tests.integration.lab import Namespace, Question, failed, question

#: A machine outside, a sandbox, or None for the host.
Place: TypeAlias = Namespace | cnm.Sandbox | None
Probe: TypeAlias = tuple[Place, object, int, str]


async def _socket(where: Place, it: Question) -> socket.socket:
    arguments = it.family, it.kind, it.proto
    if where is None:
        made = socket.socket(*arguments)
    elif isinstance(where, Namespace):
        made = where.socket(*arguments)
    else:
        return await where.socket(*arguments)
    made.setblocking(False)
    return made


async def reach(
    where: Place,
    to: object,
    port: int,
    proto: str = "tcp",
    timeout: float = PATIENCE,
) -> str:
    """Return what a server answers: the address that it sees; by ICMP, ``echo``.

    :return: ``""`` if nothing comes in time, or the name of an error number
    """
    address = plain(to)
    it = question(address, proto)
    with await _socket(where, it) as client:
        with anyio.move_on_after(timeout):
            try:
                try:
                    client.connect((address, port))
                except BlockingIOError:
                    await anyio.wait_writable(client)
                if error := client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    return errno.errorcode[error]
                if it.text:
                    client.send(it.text)
                await anyio.wait_readable(client)
                return client.recv(100)[it.header :].decode()
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
    return {what: answer for what, answer in found.items() if not failed(answer)}


def unanswered(answers: dict[str, str]) -> dict[str, str]:
    """Return those probes that got no answer, though they must."""
    return {what: answer for what, answer in answers.items() if failed(answer)}


async def check(probes: Sequence[Probe], *barriers: Barrier) -> None:
    """Check that each of the barriers blocks probes, and that nothing else does."""
    with without(*barriers):
        assert unanswered(await reach_all(probes)) == {}
    for left in all_but_one(barriers):
        assert await none_reached(probes) == {}, left
    assert await none_reached(probes) == {}
