"""Finding an answer among several name servers."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Hashable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from .cache import LARGEST, Cache
from .messages import Question, is_negative, lifetime
from .parsing import Message, parse, sized
from .records import NameServer, Opener
from .statistics import Counters
from .upstream import NoAnswer, ask

_logger = logging.getLogger(__name__)
_Answer: TypeAlias = tuple[bytes, Message]

#: Name servers that are asked (libnetwork: maxExtDNS).
MOST_SERVERS = 3
#: Seconds after which the next name server is asked as well.
PATIENCE = 1.0
#: Seconds after which the client is told that there is no answer; it asks again after
#: five, resolv.conf(5).
DEADLINE = 4.5
#: Seconds that a question waits for its turn.
QUEUE = 4.0
#: One sandbox may ask this part of what is asked at a time.
SHARE = 4


class TooMany(Exception):
    """There are too many questions at a time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer of another name server.

    :ivar message: the answer, which is not to be changed unless it had been kept
    :ivar size: its bytes
    :ivar age: seconds since it was received
    :ivar cached: whether it had been kept
    """

    message: Message
    size: int
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
        self.abandoned: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Asker:
    """A sandbox, for which name servers are asked.

    :ivar opener: makes sockets to ask them
    :ivar counters: where failures are counted
    :ivar inside: what the sandbox's own name servers have answered; nobody else is to
        believe them
    :ivar turns: its share of the questions that are asked at a time
    """

    opener: Opener
    counters: Counters
    inside: Answers
    turns: anyio.Semaphore


class Forwarder:
    """Asks name servers, for all the sandboxes of a controller.

    :param cache_size: how many answers are kept
    :param limit: how many questions are asked at a time; each takes a socket for every
        name server that has been asked for it
    :param inside_size: how many answers of a sandbox's own name servers are kept
    """

    def __init__(
        self, *, cache_size: int = 10_000, limit: int = 128, inside_size: int = 256
    ) -> None:
        self._answers = Answers(cache_size)
        self._inside_size = min(cache_size, inside_size)
        self._turns = anyio.Semaphore(limit)
        self._share = max(1, limit // SHARE)

    def asker(self, opener: Opener, counters: Counters) -> Asker:
        """Take up a sandbox."""
        return Asker(
            opener=opener,
            counters=counters,
            inside=Answers(self._inside_size),
            turns=anyio.Semaphore(self._share),
        )

    async def resolve(
        self, question: Question, servers: Sequence[NameServer], asker: Asker
    ) -> Outcome | None:
        """Find the answer to a question.

        The same question is asked once at a time, however many wait for the answer.

        :return: None if no server has an answer
        :raises TooMany: if it is not the question's turn soon
        """
        answers = asker.inside if servers[0].inside else self._answers
        key = _key(question, servers)
        while True:
            if kept := answers.cache.get(key):
                return await _read(*kept)
            if pending := answers.pending.get(key):
                await pending.done.wait()
                if not pending.abandoned:
                    return pending.outcome
                continue
            async with self._turn(asker):
                # while it was waiting, somebody else may have had the same question
                if key not in answers.pending and answers.cache.get(key) is None:
                    return await _lead(question, servers, asker, answers)

    @asynccontextmanager
    async def _turn(self, asker: Asker) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            try:
                with anyio.fail_after(QUEUE):
                    await stack.enter_async_context(asker.turns)
                    await stack.enter_async_context(self._turns)
            except TimeoutError:
                raise TooMany from None
            yield


def _key(question: Question, servers: Sequence[NameServer]) -> Hashable:
    # what other servers have said is forgotten when the host has got new ones
    return question.key, tuple(servers)


async def _read(wire: bytes, age: int) -> Outcome | None:
    message = await sized(len(wire), parse, wire)
    return Outcome(message, len(wire), age, cached=True) if message else None


async def _lead(
    question: Question, servers: Sequence[NameServer], asker: Asker, answers: Answers
) -> Outcome | None:
    """Ask a question for everybody who has it."""
    key = _key(question, servers)
    pending = answers.pending[key] = Pending()
    try:
        found = await _first_answer(question, servers, asker)
        if found is not None:
            wire, message = found
            pending.outcome = Outcome(message, len(wire))
            if len(wire) <= LARGEST:
                negative = is_negative(message)
                answers.cache.put(key, wire, lifetime(message), negative=negative)
        return pending.outcome
    except anyio.get_cancelled_exc_class():
        # whoever waits for a question that was cancelled asks it again
        pending.abandoned = True
        raise
    finally:
        del answers.pending[key]
        pending.done.set()


async def _first_answer(
    question: Question, servers: Sequence[NameServer], asker: Asker
) -> _Answer | None:
    """Ask servers until one answers.

    The next one is asked when one fails, or has not answered for a while.
    """
    left = list(servers[:MOST_SERVERS])
    again = PATIENCE * len(left)
    asking = 0
    send, receive = anyio.create_memory_object_stream[_Answer | None](MOST_SERVERS)
    with send, receive, anyio.move_on_after(DEADLINE):
        async with anyio.create_task_group() as tasks:
            while left or asking:
                if left:
                    server = left.pop(0)
                    tasks.start_soon(_ask, server, question, asker.opener, again, send)
                    asking += 1
                with anyio.move_on_after(PATIENCE if left else math.inf):
                    answer = await receive.receive()
                    asking -= 1
                    if answer is not None:
                        tasks.cancel_scope.cancel()
                        return answer
                    asker.counters.failures += 1
    asker.counters.failures += asking
    return None


async def _ask(
    server: NameServer,
    question: Question,
    opener: Opener,
    again: float,
    send: MemoryObjectSendStream[_Answer | None],
) -> None:
    try:
        answer = await ask(server, question, opener, again)
    except NoAnswer as exc:
        _logger.debug("name server %s: %s", server.address, exc)
        send.send_nowait(None)
    else:
        send.send_nowait(answer)
