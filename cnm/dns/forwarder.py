"""Finding an answer among several name servers."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from .cache import LARGEST, Cache
from .messages import Question, lifetime, parse_message
from .records import NameServer, Opener
from .statistics import Counters
from .upstream import NoAnswer, ask

_logger = logging.getLogger(__name__)
_Result: TypeAlias = tuple[NameServer, bytes | None]

#: Name servers that are asked (libnetwork: maxExtDNS).
MOST_SERVERS = 3
#: Seconds after which the next name server is asked as well.
PATIENCE = 1.0
#: Seconds after which the client is told that there is no answer; it asks again after
#: five, resolv.conf(5).
DEADLINE = 4.5
#: Seconds that a question waits for its turn.
QUEUE = 4.0


class TooMany(Exception):
    """There are too many questions at a time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer of another name server.

    :ivar wire: in wire format
    :ivar age: seconds since it was received
    :ivar cached: whether it had been kept
    """

    wire: bytes
    age: int = 0
    cached: bool = False


class Answers:
    """What some name servers have answered, and are being asked.

    :param size: how many answers are kept
    """

    def __init__(self, size: int) -> None:
        self.cache: Cache = Cache(size)
        self.pending: dict[Hashable, Pending] = {}


class Pending:
    """A question that is being asked.

    :ivar done: is set when that ends
    :ivar outcome: what came of it
    :ivar abandoned: whether it was given up
    """

    def __init__(self) -> None:
        self.done: anyio.Event = anyio.Event()
        self.outcome: Outcome | None = None
        self.abandoned: bool = True


class Forwarder:
    """Asks name servers, for all the sandboxes of a controller.

    :param cache_size: how many answers are kept
    :param limit: how many questions are asked at a time
    :ivar answers: what the host's name servers have answered
    :ivar caches: whether answers are kept
    """

    def __init__(self, *, cache_size: int = 10_000, limit: int = 128) -> None:
        self.answers: Answers = Answers(cache_size)
        self.caches: bool = cache_size > 0
        self._turns = anyio.Semaphore(limit)

    async def resolve(
        self,
        question: Question,
        servers: Sequence[NameServer],
        opener: Opener,
        answers: Answers,
        counters: Counters,
    ) -> Outcome | None:
        """Find the answer to a question.

        The same question is asked once at a time, however many wait for the answer.

        :param answers: what these servers have answered
        :return: None if no server has an answer
        :raises TooMany: if it is not the question's turn soon
        """
        key = question.key
        while True:
            if kept := answers.cache.get(key):
                return Outcome(kept[0], kept[1], cached=True)
            pending = answers.pending.get(key)
            if pending is None:
                break
            await pending.done.wait()
            if not pending.abandoned:
                return pending.outcome
        pending = answers.pending[key] = Pending()
        try:
            async with self._turn():
                wire = await _first_answer(question, servers, opener, counters)
            if wire is not None:
                if len(wire) <= LARGEST:
                    _keep(answers.cache, question, wire)
                pending.outcome = Outcome(wire)
            pending.abandoned = False
        finally:
            # whoever waits for a question that was cancelled asks it again
            del answers.pending[key]
            pending.done.set()
        return pending.outcome

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        try:
            with anyio.fail_after(QUEUE):
                await self._turns.acquire()
        except TimeoutError:
            raise TooMany from None
        try:
            yield
        finally:
            self._turns.release()


def _keep(cache: Cache, question: Question, wire: bytes) -> None:
    message = parse_message(wire)
    cache.put(question.key, wire, lifetime(message), negative=not message.answer)


async def _first_answer(
    question: Question,
    servers: Sequence[NameServer],
    opener: Opener,
    counters: Counters,
) -> bytes | None:
    """Ask servers until one answers.

    The next one is asked when one fails, or has not answered for a while; those that
    are silent are asked again, since datagrams get lost.
    """
    left = list(servers[:MOST_SERVERS])
    asking = turn = 0
    send, receive = anyio.create_memory_object_stream[_Result](math.inf)
    with send, receive, anyio.move_on_after(DEADLINE):
        async with anyio.create_task_group() as tasks:
            while left or asking:
                if left:
                    server = left[turn % len(left)]
                    tasks.start_soon(_ask, server, question, opener, send)
                    turn, asking = turn + 1, asking + 1
                with anyio.move_on_after(PATIENCE if left else math.inf):
                    server, wire = await receive.receive()
                    asking -= 1
                    if wire is not None:
                        tasks.cancel_scope.cancel()
                        return wire
                    counters.failures += 1
                    if server in left:
                        left.remove(server)
    counters.failures += asking
    return None


async def _ask(
    server: NameServer,
    question: Question,
    opener: Opener,
    send: MemoryObjectSendStream[_Result],
) -> None:
    try:
        wire = await ask(server, question, opener)
    except NoAnswer as exc:
        _logger.debug("name server %s: %s", server.address, exc)
        send.send_nowait((server, None))
    else:
        send.send_nowait((server, wire))
