"""Questions and answers in wire format.

dnspython does the format; it takes 50 ms to import, which is why only a controller that
runs imports this module.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from ..types import IPAddress
from .records import Found

Message: TypeAlias = dns.message.Message
#: The id, the flags and the counts, RFC 1035 section 4.1.1.
HEADER = 12
#: Seconds that programs may keep what they are told of our names. libnetwork says 600;
#: sandboxes come and go more quickly than that.
OWN_TTL = 5
#: Bytes of an answer by UDP: without EDNS (RFC 1035), and at most, so that it is not
#: fragmented (DNS flag day 2020).
PLAIN_SIZE = 512
LARGEST_DATAGRAM = 1232
LARGEST_MESSAGE = 65535
#: In how many orders the addresses of a name are handed out.
ROTATIONS = 8

_SMALLEST_RECORD = 12
_IN = dns.rdataclass.IN
_QR = 0x80
_OPCODE = 0x78
_OPT = 41
_EXTENDED = 16
_KEPT_FLAGS = dns.flags.RD | dns.flags.CD


class Malformed(Exception):
    """A message is not answered like others.

    :ivar code: the code to answer with
    """

    def __init__(self, code: dns.rcode.Rcode) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks.

    :ivar message: its query
    :ivar name: the name, in lower case and without a dot at the end
    :ivar kind: the type of records, such as ``"AAAA"``
    :ivar limit: bytes that the answer may have
    """

    message: Message
    name: str
    kind: str
    limit: int

    @property
    def section(self) -> dns.rrset.RRset:
        """The question as it stands in messages."""
        return self.message.question[0]

    @property
    def has_edns(self) -> bool:
        """Whether the client knows EDNS."""
        return self.message.edns >= 0

    @property
    def key(self) -> tuple[dns.name.Name, int, int]:
        """What makes it the same question as another one."""
        wants = self.message.flags & dns.flags.CD
        wants |= (self.message.ednsflags & dns.flags.DO) << 16
        return self.section.name.canonicalize(), int(self.section.rdtype), wants


def read_question(data: bytes, *, tcp: bool) -> Question:
    """Understand a query.

    :raises Malformed: if it is none
    """
    if len(data) < HEADER or data[2] & _QR:
        raise Malformed(dns.rcode.NOERROR)
    if data[2] & _OPCODE:
        raise Malformed(dns.rcode.NOTIMP)
    message = _parse(data)
    if message is None or len(message.question) != 1:
        raise Malformed(dns.rcode.FORMERR)
    if message.edns > 0:
        raise Malformed(dns.rcode.BADVERS)
    asked = message.question[0]
    if asked.rdclass != _IN:
        raise Malformed(dns.rcode.REFUSED)
    limit = LARGEST_MESSAGE
    if not tcp:
        limit = max(PLAIN_SIZE, min(message.payload, LARGEST_DATAGRAM))
    return Question(
        message,
        asked.name.canonicalize().to_text(omit_final_dot=True),
        dns.rdatatype.to_text(asked.rdtype),
        limit,
    )


def parse_message(data: bytes) -> Message:
    """Return a message that has been parsed before.

    :raises dns.exception.DNSException: if it is none
    """
    return dns.message.from_wire(data)


def _parse(data: bytes) -> Message | None:
    """Return a message, or None for what is none, whatever it is."""
    try:
        return parse_message(data)
    except Exception:  # the parser's errors are of many kinds
        return None


def rejection(data: bytes, code: dns.rcode.Rcode) -> bytes:
    """Return the answer to a query that is not understood, or ``b""`` for none.

    :param code: why; NOERROR for what is no query, which is not answered
    """
    if code == dns.rcode.NOERROR:
        return b""
    flags = bytes((_QR | data[2] & (_OPCODE | 1), int(code) & 0xF))
    if code < _EXTENDED:
        return data[:2] + flags + bytes(8)
    # the rest of the code is in an OPT record, RFC 6891 section 6.1.3
    extended = struct.pack(">xHHBxxxxx", _OPT, LARGEST_DATAGRAM, code >> 4)
    return data[:2] + flags + b"\0\0\0\0\0\0\0\1" + extended


def answer(question: Question, code: dns.rcode.Rcode = dns.rcode.NOERROR) -> Message:
    """Return an answer without records."""
    made = dns.message.make_response(
        question.message, recursion_available=True, our_payload=LARGEST_DATAGRAM
    )
    made.set_rcode(code)
    return made


def own_answer(question: Question, found: Found, turn: int = 0) -> Message:
    """Return the answer that our own names give.

    :param turn: how many of the records move from the beginning to the end
    """
    rdatas = list(_rdatas(found))
    made = answer(question)
    made.flags |= dns.flags.AA
    _add(made.answer, question.section.name, rdatas[turn:] + rdatas[:turn])
    for target in found.services:
        _add(made.additional, _name(target.host), list(map(_address, target.addresses)))
    return made


def turns(found: Found) -> int:
    """Return in how many orders the records of an answer are handed out."""
    return max(1, min(len(found.addresses), ROTATIONS))


def _add(
    section: list[dns.rrset.RRset],
    name: dns.name.Name,
    rdatas: Sequence[dns.rdata.Rdata],
) -> None:
    found = {(rrset.name, rrset.rdtype): rrset for rrset in section}
    for rdata in rdatas:
        key = (name, rdata.rdtype)
        if key not in found:
            found[key] = dns.rrset.RRset(name, _IN, rdata.rdtype)
            section.append(found[key])
        found[key].add(rdata, OWN_TTL)


def _rdatas(found: Found) -> Iterator[dns.rdata.Rdata]:
    for address in found.addresses:
        yield _address(address)
    for name in found.names:
        yield _rdata(dns.rdatatype.PTR, _name(name).to_text())
    for it in found.services:
        fields = it.priority, it.weight, it.port, _name(it.host)
        yield _rdata(dns.rdatatype.SRV, " ".join(map(str, fields)))
    for text in found.texts:
        escaped = "".join(f"\\{byte:03}" for byte in text.encode())
        yield _rdata(dns.rdatatype.TXT, f'"{escaped}"')


def _rdata(kind: dns.rdatatype.RdataType, text: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(_IN, kind, text)


def _address(address: IPAddress) -> dns.rdata.Rdata:
    kind = dns.rdatatype.A if address.version == 4 else dns.rdatatype.AAAA
    return _rdata(kind, str(address))


def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text)


def render(message: Message, limit: int) -> bytes:
    """Return a message in wire format; with fewer records if it is too long.

    Some clients use what a truncated answer has (musl before 1.2.4).

    :raises dns.exception.DNSException: if it cannot be put into wire format
    """
    try:
        return message.to_wire(max_size=limit, want_shuffle=False)
    except dns.exception.TooBig:
        message.flags |= dns.flags.TC
    message.authority, message.additional = [], []
    records = [(rrset, rdata) for rrset in message.answer for rdata in rrset]
    fits, too_many = 0, min(len(records), limit // _SMALLEST_RECORD) + 1
    wire = b""
    while fits + 1 < too_many or not wire:
        count = (fits + too_many) // 2
        message.answer = _first(records[:count])
        try:
            wire = message.to_wire(max_size=limit, want_shuffle=False)
            fits = count
        except dns.exception.TooBig:
            too_many = count
    return wire


def _first(
    records: Sequence[tuple[dns.rrset.RRset, dns.rdata.Rdata]],
) -> list[dns.rrset.RRset]:
    section: dict[int, dns.rrset.RRset] = {}
    for old, rdata in records:
        if id(old) not in section:
            section[id(old)] = dns.rrset.RRset(old.name, old.rdclass, old.rdtype)
        section[id(old)].add(rdata, old.ttl)
    return list(section.values())


# --- what is asked of other name servers ----------------------------------------------


def query(question: Question, identity: int, *, edns: bool) -> bytes:
    """Return a question to another name server, with nothing else of the client's."""
    made = dns.message.QueryMessage(id=identity)
    made.flags = question.message.flags & _KEPT_FLAGS | dns.flags.RD
    made.question = [question.section]
    if edns:
        flags = question.message.ednsflags & dns.flags.DO
        made.use_edns(0, flags, payload=LARGEST_DATAGRAM)
    return made.to_wire()


def read_answer(data: bytes, question: Question, identity: int) -> Message | None:
    """Understand the answer to a question; None for what is no answer to it."""
    if len(data) < HEADER or not data[2] & _QR:
        return None
    if int.from_bytes(data[:2], "big") != identity:
        return None
    message = _parse(data)
    if message is None:
        return None
    if not message.question and message.rcode() in (
        dns.rcode.FORMERR,
        dns.rcode.NOTIMP,
    ):
        return message  # of a server that did not understand so much
    if len(message.question) != 1:
        return None
    asked, meant = message.question[0], question.section
    same = asked.rdtype == meant.rdtype and asked.rdclass == meant.rdclass
    return message if same and asked.name == meant.name else None


def passed_on(question: Question, theirs: Message, age: int) -> Message:
    """Return another name server's answer as the client is to have it.

    :param age: seconds since it was received
    """
    made = answer(question)
    made.set_rcode(theirs.rcode())
    made.flags |= theirs.flags & dns.flags.AD
    for section in ("answer", "authority", "additional"):
        for rrset in getattr(theirs, section):
            rrset.ttl = max(0, rrset.ttl - age)
            getattr(made, section).append(rrset)
    return made


def refusal(question: Question) -> Message:
    """Return the answer to what a policy does not allow."""
    made = answer(question, dns.rcode.REFUSED)
    if question.has_edns:
        blocked = dns.edns.EDEOption(dns.edns.EDECode.BLOCKED)
        made.use_edns(0, options=[blocked], payload=LARGEST_DATAGRAM)
    return made


def addresses_of(message: Message) -> tuple[IPAddress, ...]:
    """Return all addresses of an answer."""
    found: list[IPAddress] = []
    for rrset in message.answer:
        if rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            found += [ipaddress.ip_address(rdata.address) for rdata in rrset]
    return tuple(found)


def lifetime(message: Message) -> int:
    """Return the seconds for which an answer is valid: 0 if it says nothing of that."""
    if message.answer:
        return min(rrset.ttl for rrset in message.answer)
    for rrset in message.authority:
        if rrset.rdtype == dns.rdatatype.SOA:
            (soa,) = rrset
            return min(rrset.ttl, int(soa.minimum))
    return 0
