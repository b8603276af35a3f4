"""Questions and answers in wire format.

dnspython does the format; it takes 50 ms to import, which is why only a controller that
runs imports this module.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
from .parsing import Message, parse
from .records import Found

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
#: Bytes and records of the largest query: EDNS options, and a signature.
LARGEST_QUERY = 1232
MOST_RECORDS = 2
#: In how many orders the addresses of a name are handed out.
ROTATIONS = 8

#: A record without its data, if its name is the question's.
_RECORD = 12
_SMALLEST_ADDRESS = _RECORD + 4
_IN = dns.rdataclass.IN
_ANY = dns.rdatatype.ANY
_QR = 0x80
_TC = 0x02
_OPCODE = 0x78
_OPT = 41
_EXTENDED = 16
_KEPT_FLAGS = dns.flags.AD | dns.flags.CD


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
        wants = self.message.flags & _KEPT_FLAGS
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
    # a record takes 30 us to parse, and a client may send as many as it likes
    questions, *records = struct.unpack_from(">4H", data, 4)
    if questions != 1 or sum(records) > MOST_RECORDS or len(data) > LARGEST_QUERY:
        raise Malformed(dns.rcode.FORMERR)
    message = parse(data)
    if message is None or len(message.question) != 1:
        raise Malformed(dns.rcode.FORMERR)
    if message.edns > 0:
        raise Malformed(dns.rcode.BADVERS)
    asked = message.question[0]
    if asked.rdclass != _IN:
        raise Malformed(dns.rcode.REFUSED)
    if asked.rdtype != _ANY and dns.rdatatype.is_metatype(asked.rdtype):
        raise Malformed(dns.rcode.NOTIMP)  # zone transfers
    limit = LARGEST_MESSAGE
    if not tcp:
        limit = max(PLAIN_SIZE, min(message.payload, LARGEST_DATAGRAM))
    return Question(
        message,
        asked.name.canonicalize().to_text(omit_final_dot=True),
        dns.rdatatype.to_text(asked.rdtype),
        limit,
    )


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
        question.message,
        recursion_available=True,
        our_payload=LARGEST_DATAGRAM,
        pad=0,
    )
    if question.has_edns:
        made.ednsflags |= question.message.ednsflags & dns.flags.DO  # RFC 3225
    made.flags |= question.message.flags & dns.flags.CD  # RFC 4035 section 3.2.2
    made.set_rcode(code)
    return made


def own_answer(question: Question, found: Found, turn: int = 0) -> Message:
    """Return the answer that our own names give.

    :param turn: how many of the addresses move from the beginning to the end
    """
    made = answer(question)
    made.flags |= dns.flags.AA
    # one more than there is room for, if there are as many
    most = question.limit // _SMALLEST_ADDRESS + 1
    addresses = (found.addresses[turn:] + found.addresses[:turn])[:most]
    rdatas = [*map(_address, addresses), *_rdatas(found)]
    _add(made.answer, question.section.name, rdatas)
    for target in found.services:
        if name := _name(target.host):
            _add(made.additional, name, list(map(_address, target.addresses)))
    return made


def turns(found: Found) -> int:
    """Return in how many orders the records of an answer are handed out."""
    return max(1, min(len(found.addresses), ROTATIONS))


def rotations(question: Question, found: Found, wire: bytes) -> Iterator[bytes]:
    """Yield an answer that our own names have given, with its addresses in all orders.

    :param wire: the answer in wire format
    """
    if not found.addresses:
        yield wire
        return
    size = _RECORD + len(found.addresses[0].packed)
    start = HEADER + len(question.section.name.to_wire() or b"") + 4
    end = start + int.from_bytes(wire[6:8], "big") * size
    for turn in range(turns(found)):
        middle = min(start + turn * size, end)
        yield wire[:start] + wire[middle:end] + wire[start:middle] + wire[end:]


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
    for host in found.names:
        if name := _name(host):
            yield _rdata(dns.rdatatype.PTR, name.to_text())
    for it in found.services:
        if name := _name(it.host):
            fields = it.priority, it.weight, it.port, name
            yield _rdata(dns.rdatatype.SRV, " ".join(map(str, fields)))
    for text in found.texts:
        escaped = "".join(f"\\{byte:03}" for byte in text.encode())
        yield _rdata(dns.rdatatype.TXT, f'"{escaped}"')


def _rdata(kind: dns.rdatatype.RdataType, text: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(_IN, kind, text)


def _address(address: IPAddress) -> dns.rdata.Rdata:
    kind = dns.rdatatype.A if address.version == 4 else dns.rdatatype.AAAA
    packed = address.packed
    return dns.rdata.from_wire(_IN, kind, packed, 0, len(packed))


def _name(text: str) -> dns.name.Name | None:
    """Return a name; None for one that DNS cannot have, such as ``a..b``."""
    try:
        return dns.name.from_text(text)
    except dns.exception.DNSException:
        return None


def render(message: Message, limit: int) -> bytes:
    """Return a message in wire format; with fewer records if it is too long.

    Some clients use what a truncated answer has (musl before 1.2.4).

    :raises dns.exception.DNSException: if it cannot be put into wire format
    """
    try:
        return message.to_wire(max_size=limit, want_shuffle=False)
    except dns.exception.TooBig:
        records = [(rrset, rdata) for rrset in message.answer for rdata in rrset]
    # dnspython leaves out whole sets of records
    message.answer = [
        dns.rrset.from_rdata(rrset.name, rrset.ttl, rdata)
        for rrset, rdata in records[: limit // _RECORD]
    ]
    return message.to_wire(max_size=limit, prefer_truncation=True)


def is_truncated(wire: bytes) -> bool:
    """Tell whether a message in wire format is marked as truncated."""
    return bool(wire[2] & _TC)


# --- what is asked of other name servers ----------------------------------------------


def query(question: Question, identity: int, *, edns: bool) -> bytes:
    """Return a question to another name server, with nothing else of the client's."""
    made = dns.message.QueryMessage(id=identity)
    # without RD, the answers would be others, which are not to be kept
    made.flags = question.message.flags & _KEPT_FLAGS | dns.flags.RD
    made.question = [question.section]
    if edns:
        flags = question.message.ednsflags & dns.flags.DO
        made.use_edns(0, flags, payload=LARGEST_DATAGRAM)
    return made.to_wire()


def read_answer(data: bytes, question: Question, identity: int) -> Message | None:
    """Understand the answer to a question; None for what is no answer to it."""
    if len(data) < HEADER or data[2] & (_QR | _OPCODE) != _QR:
        return None
    if int.from_bytes(data[:2], "big") != identity:
        return None
    message = parse(data)
    if message is None:
        return None
    if not message.question and not is_good(message):
        return message  # of a server that did not understand so much
    if len(message.question) != 1:
        return None
    asked, meant = message.question[0], question.section
    same = asked.rdtype == meant.rdtype and asked.rdclass == meant.rdclass
    return message if same and asked.name == meant.name else None


def is_good(message: Message) -> bool:
    """Tell whether an answer says what there is, or that there is nothing."""
    return message.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)


def passed_on(question: Question, theirs: Message, age: int) -> Message:
    """Return another name server's answer as the client is to have it.

    :param age: seconds since it was received
    """
    made = answer(question)
    made.set_rcode(theirs.rcode())
    client = question.message
    if client.flags & dns.flags.AD or client.ednsflags & dns.flags.DO:
        made.flags |= theirs.flags & dns.flags.AD  # RFC 6840 section 5.8
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
        kind = rrset.rdclass, rrset.rdtype  # what is of another class is no address
        if kind in ((_IN, dns.rdatatype.A), (_IN, dns.rdatatype.AAAA)):
            found += [ipaddress.ip_address(rdata.address) for rdata in rrset]
    return tuple(found)


def is_negative(message: Message) -> bool:
    """Tell whether an answer says that there is nothing, also at the end of aliases."""
    (asked,) = message.question
    found = any(asked.rdtype in (rrset.rdtype, _ANY) for rrset in message.answer)
    return message.rcode() == dns.rcode.NXDOMAIN or not found


def lifetime(message: Message) -> int:
    """Return the seconds for which an answer is valid: 0 if it says nothing of that."""
    ttls = [rrset.ttl for rrset in message.answer]
    if is_negative(message):
        # RFC 2308 section 5
        soas = [it for it in message.authority if it.rdtype == dns.rdatatype.SOA]
        ttls += [min(it.ttl, soa.minimum) for it in soas for soa in it] or [0]
    return min(ttls)
