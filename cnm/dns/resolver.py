"""Answering the queries of one sandbox."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable

import anyio
import dns.exception
import dns.flags
import dns.rcode

from ..types import SandboxInfo
from .forwarder import Answers, Forwarder, TooMany
from .messages import (
    Malformed,
    Message,
    Question,
    addresses_of,
    answer,
    lifetime,
    own_answer,
    parse_message,
    passed_on,
    read_question,
    refusal,
    rejection,
    render,
    turns,
)
from .policy import Answered, NamePolicy
from .records import Found, NameServer, Opener, View
from .statistics import Counters
from .upstream import sized

_logger = logging.getLogger(__name__)

#: Answers of our own names that are kept in wire format.
KEPT = 1024
#: Queries of a sandbox that may wait for other name servers.
LIMIT = 256
#: Answers of a sandbox's own name servers that are kept.
INSIDE_CACHE = 256
#: Seconds that a policy may take.
POLICY_TIMEOUT = 10
#: Seconds between two complaints in the log.
COMPLAINTS = 2


class Resolver:
    """Answers the queries of one sandbox.

    A query is answered at once (:meth:`begin`) or after others have been asked
    (:meth:`finish`).

    :param view: the names that the sandbox sees
    :param name_servers: returns whom to ask for other names
    :param opener: makes sockets to ask them
    :ivar answers: answers of our own names, for UDP, by query; both without the id.
        Several stand for as many orders of the addresses
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
        self.answers: dict[bytes, bytes | deque[bytes]] = {}
        self.counters: Counters = Counters()
        self._view = view
        self._name_servers = name_servers
        self._opener = opener
        self._forwarder = forwarder
        self._inside: Answers = Answers(INSIDE_CACHE if forwarder.caches else 0)
        self._waiting = 0
        self._complained = -math.inf
        self._policy: NamePolicy | None = None
        self._observe: Callable[[Answered], None] | None = None

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
            found = self._view.find(question.name, question.kind)
            if found is not None:
                return self._own(question, found, b"" if tcp else data[2:])
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
            wire = await sized(size, self._rendered, question, made)
            self.counters.code(made.rcode())
        except Exception:
            self._complain(question)
            source, made = "none", answer(question, dns.rcode.SERVFAIL)
            wire = self._sent(question, made)
        finally:
            self._waiting -= 1
        seconds = time.perf_counter() - started
        self._count(source, seconds)
        if self._observe is not None:
            self._observe(
                Answered(
                    sandbox_id=self.sandbox.id,
                    name=question.name,
                    kind=question.kind,
                    code=dns.rcode.to_text(made.rcode()),
                    source=source,
                    addresses=addresses_of(made),
                    seconds=seconds,
                )
            )
        return wire

    def _own(self, question: Question, found: Found, key: bytes) -> bytes:
        """Answer with our own names, and keep the answer if it has a key."""
        self.counters.own += 1
        try:
            wires = deque(
                self._rendered(question, own_answer(question, found, turn))
                for turn in range(turns(found) if key else 1)
            )
        except dns.exception.DNSException:
            self._complain(question)
            return self._sent(question, answer(question, dns.rcode.SERVFAIL))
        self.counters.noerror += 1
        if key:
            if len(self.answers) >= KEPT:
                self.answers.clear()
            kept = deque(wire[2:] for wire in wires)
            self.answers[key] = kept if len(kept) > 1 else kept[0]
        return wires[0]

    async def _decide(self, question: Question) -> tuple[str, Message, int]:
        """Return whose answer it is, the answer, and about how large it is."""
        size = 0
        policy = self._policy
        sandbox, name, kind = self.sandbox.id, question.name, question.kind
        if policy is not None and not policy.allows(sandbox, name, kind):
            return "none", refusal(question), size
        found = self._view.find(name, kind)
        if found is not None:
            source, made = "own", own_answer(question, found, self._turn(found))
        else:
            source, made, size = await self._forward(question)
        if policy is not None and (addresses := addresses_of(made)):
            with anyio.fail_after(POLICY_TIMEOUT):
                await policy.answered(sandbox, name, addresses, lifetime(made))
        return source, made, size

    def _turn(self, found: Found) -> int:
        return self.counters.queries % turns(found)

    async def _forward(self, question: Question) -> tuple[str, Message, int]:
        servers = self._name_servers()
        if not servers:
            return "none", answer(question, dns.rcode.SERVFAIL), 0
        answers = self._inside if servers[0].inside else self._forwarder.answers
        try:
            outcome = await self._forwarder.resolve(
                question, servers, self._opener, answers, self.counters
            )
        except TooMany:
            self.counters.limited += 1
            return "none", answer(question, dns.rcode.REFUSED), 0
        if outcome is None:
            return "none", answer(question, dns.rcode.SERVFAIL), 0
        size = len(outcome.wire)
        theirs = await sized(size, parse_message, outcome.wire)
        source = "cache" if outcome.cached else "upstream"
        return source, passed_on(question, theirs, outcome.age), size

    def _sent(self, question: Question, made: Message) -> bytes:
        wire = self._rendered(question, made)
        self.counters.code(made.rcode())
        return wire

    def _rendered(self, question: Question, made: Message) -> bytes:
        wire = render(made, question.limit)
        self.counters.truncated += bool(made.flags & dns.flags.TC)
        return wire

    def _count(self, source: str, seconds: float) -> None:
        if source == "own":
            self.counters.own += 1
        elif source == "cache":
            self.counters.cached += 1
        elif source == "upstream":
            self.counters.took(seconds)

    def _complain(self, question: Question) -> None:
        now = time.monotonic()
        if now - self._complained >= COMPLAINTS:
            self._complained = now
            _logger.exception(
                "sandbox %r: no answer for %r", self.sandbox.name, question.name
            )
