"""What a network is to say of a service: checked."""

from __future__ import annotations

from .. import validation as check
from ..types import ServiceRecord
from ..validation import Faults

#: Highest number that has a field of 16 bits.
_HIGHEST = 0xFFFF
#: Bytes of a character string, RFC 1035 section 3.3.
_TEXT_LENGTH = 255


def service_record(
    name: object,
    *,
    target: object,
    port: object,
    priority: object,
    weight: object,
    texts: object,
) -> ServiceRecord:
    """Check what a network is to say of a service.

    :raises InvalidError: with everything that is wrong with it
    """
    faults = Faults()
    record = ServiceRecord(
        name=faults.parse("name", check.dns_name, name) or "",
        target=faults.parse("target", check.hostname, target) or "",
        port=faults.parse("port", _number, port) or 0,
        priority=faults.parse("priority", _number, priority) or 0,
        weight=faults.parse("weight", _number, weight) or 0,
        texts=faults.each("texts", _text, texts),
    )
    if not faults.problems:
        if record.target and not record.port:
            faults.add(f"port: expected 1 to {_HIGHEST} with a target, not 0")
        if not record.target and not record.texts:
            faults.add("target, texts: expected one of them at least")
    faults.check()
    return record


def service_name(name: object) -> str:
    """Check the name of a service; return it as all of its spellings are compared.

    :raises InvalidError: if it is no name
    """
    faults = Faults()
    checked = faults.parse("name", check.dns_name, name)
    faults.check()
    return (checked or "").lower()


def _number(value: object) -> int:
    number = check.integer(value)
    if not 0 <= number <= _HIGHEST:
        raise ValueError(f"expected 0 to {_HIGHEST}, not {check.shown(value)}")
    return number


def _text(value: object) -> str:
    string = check.text(value)
    if len(string.encode()) > _TEXT_LENGTH:
        raise ValueError(
            f"expected at most {_TEXT_LENGTH} bytes, not {check.shown(value)}"
        )
    return string
