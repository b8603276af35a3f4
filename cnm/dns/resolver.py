"""Answering the queries of one sandbox."""

from __future__ import annotations

import logging
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import cached_property

import anyio
import dns.rcode

from ..types import SandboxInfo
from .forwarder import Asker, Forwarder, TooMany
from .messages import (
    Malformed,
    Question,
    addresses_of,
    answer,
    is_truncated,
    lifetime,
    own_answer,
    passed_on,
    read_question,
    refusal,
    rejection,
    render,
    rotations,
    turns,
)
from .parsing import Message, sized
from .policy import Answered, NamePolicy
from .records import Found, NameServer, Opener, View
from .statistics import Counters

_logger = logging.getLogger(__name__)

#: Answers of our own names that are kept in wire format, and bytes of the largest query
#: that they are kept for: one for the longest name, with EDNS.
KEPT = 256
LARGEST_KEPT = 300
#: Queries of a sandbox that may wait for other name servers.
LIMIT = 256
#: Seconds that a policy may take.
POLICY_TIMEOUT = 10
#: Seconds between two complaints in the log.
COMPLAINTS = 2


class Kept(deque[bytes]):
    """An answer in wire format, in several orders of its records, without the id.

    :ivar truncated: whether it has not all of the records
    """

    __slots__ = ("truncated",)

    def __init__(self, wires: Iterable[bytes], truncated: bool) -> None:
        super().__init__(wire[2:] for wire in wires)
        self.truncated: bool = truncated


class Resolver:
    """Answers the queries of one sandbox.

    A query is answered at once (:meth:`begin`) or after others have been asked
    (:meth:`finish`).

    :param view: the names that the sandbox sees
    :param name_servers: returns whom to ask for other names
    :param opener: makes sockets to ask them
    :ivar answers: answers of our own names, for UDP, by query; both without the id
    :ivar counters: what has been asked, and how it was answered
    """

    def __init__(
        self,
        sandbox: SandboxInfo,
        view: View,
        name_servers: Callable[[], tuple[NameServer, ...]],
        opener: Opener,
        forwarder: Forwarder,
    ) -> None:
        self.sandbox = sandbox
        self.answers: dict[bytes, bytes | Kept] = {}
        self.counters: Counters = Counters()
        self._view = view
        self._name_servers = name_servers
        self._forwarder = forwarder
        self._opener = opener
        self._waiting = 0
        self._complained = -math.inf
        self._policy: NamePolicy | None = None
        self._observe: Callable[[Answered], None] | None = None

    @cached_property
    def _asker(self) -> Asker:
        # many a sandbox never asks for a name that is not ours
        return self._forwarder.asker(self._opener, self.counters)

    @property
    def policy(self) -> NamePolicy | None:
        """What has a say in which names may be asked for."""
        return self._policy

    @policy.setter
    def policy(self, policy: NamePolicy | None) -> None:
        self._policy = policy
        self.forget()

    @property
    def observe(self) -> Callable[[Answered], None] | None:
        """What is called after each answer."""
        return self._observe

    @observe.setter
    def observe(self, observe: Callable[[Answered], None] | None) -> None:
        self._observe = observe
        self.forget()

    def forget(self) -> None:
        """Make the answers of our own names anew: a name may have changed."""
        self.answers.clear()

    def begin(self, data: bytes, *, tcp: bool) -> bytes | Question:
        """Answer a query, or return the question that has to be finished.

        :return: the answer, ``b""`` for none, or the question
        """
        self.counters.queries += 1
        self.counters.tcp += tcp
        try:
            question = read_question(data, tcp=tcp)
        except Malformed as exc:
            self.counters.malformed += 1
            return rejection(data, exc.code)
        if self._policy is None and self._observe is None:
            try:
                found = self._find(question)
                if found is not None:
                    return self._own(question, found, b"" if tcp else data[2:])
            except Exception:
                self.complain(question.name)
                return self._sent(question, answer(question, dns.rcode.SERVFAIL))
        if self._waiting >= LIMIT:
            self.counters.limited += 1
            return self._sent(question, answer(question, dns.rcode.REFUSED))
        self._waiting += 1
        return question

    async def finish(self, question: Question) -> bytes:
        """Answer a question, which may take some seconds."""
        started = time.perf_counter()
        try:
            source, made, size = await self._decide(question)
            wire = await sized(size, render, made, question.limit)
            self._count(made, wire)
        except Exception:
            self.complain(question.name)
            source, made = "none", answer(question, dns.rcode.SERVFAIL)
            wire = self._sent(question, made)
        finally:
            self._waiting -= 1
        if observe := self._observe:
            seconds = time.perf_counter() - started
            try:
                observe(self._answered(question, made, source, seconds))
            except Exception:
                # who watches is not to keep the sandbox from its answer
                self.complain(question.name)
        return wire

    def complain(self, what: str) -> None:
        """Have the log tell of the exception that is being handled, now and then."""
        now = time.monotonic()
        if now - self._complained >= COMPLAINTS:
            self._complained = now
            _logger.exception("sandbox %r: no answer for %r", self.sandbox.name, what)

    def _find(self, question: Question) -> Found | None:
        if any(b"." in label for label in question.section.name.labels):
            return None  # it only looks like one of ours
        return self._view.find(question.name, question.kind)

    def _own(self, question: Question, found: Found, key: bytes) -> bytes:
        """Answer with our own names, and keep the answer if it has a key."""
        made = own_answer(question, found, random.randrange(turns(found)))
        wire = self._sent(question, made)
        self.counters.own += 1
        if 0 < len(key) <= LARGEST_KEPT:
            if len(self.answers) >= KEPT:
                self.answers.clear()
            kept = Kept(rotations(question, found, wire), is_truncated(wire))
            varies = len(kept) > 1 or kept.truncated
            self.answers[key] = kept if varies else kept[0]
        return wire

    async def _decide(self, question: Question) -> tuple[str, Message, int]:
        """Return whose answer it is, the answer, and about how large it is."""
        size = 0
        policy = self._policy
        sandbox, name, kind = self.sandbox.id, question.name, question.kind
        if policy is not None and not policy.allows(sandbox, name, kind):
            return "none", refusal(question), size
        found = self._find(question)
        if found is not None:
            turn = random.randrange(turns(found))
            source, made = "own", own_answer(question, found, turn)
            self.counters.own += 1
        else:
            source, made, size = await self._forward(question)
        if policy is not None and (addresses := addresses_of(made)):
            with anyio.fail_after(POLICY_TIMEOUT):
                await policy.answered(sandbox, name, addresses, lifetime(made))
        return source, made, size

    async def _forward(self, question: Question) -> tuple[str, Message, int]:
        servers = self._name_servers()
        if not servers:
            return "none", answer(question, dns.rcode.SERVFAIL), 0
        started = time.perf_counter()
        try:
            outcome = await self._forwarder.resolve(question, servers, self._asker)
        except TooMany:
            self.counters.limited += 1
            return "none", answer(question, dns.rcode.REFUSED), 0
        if outcome is None:
            return "none", answer(question, dns.rcode.SERVFAIL), 0
        made = passed_on(question, outcome.message, outcome.age)
        if outcome.cached:
            self.counters.cached += 1
            return "cache", made, outcome.size
        self.counters.took(time.perf_counter() - started)
        return "upstream", made, outcome.size

    def _sent(self, question: Question, made: Message) -> bytes:
        wire = render(made, question.limit)
        self._count(made, wire)
        return wire

    def _count(self, made: Message, wire: bytes) -> None:
        self.counters.code(made.rcode())
        self.counters.truncated += is_truncated(wire)

    def _answered(
        self, question: Question, made: Message, source: str, seconds: float
    ) -> Answered:
        return Answered(
            sandbox_id=self.sandbox.id,
            name=question.name,
            kind=question.kind,
            code=dns.rcode.to_text(made.rcode()),
            source=source,
            addresses=addresses_of(made),
            seconds=seconds,
        )
