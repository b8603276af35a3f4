"""pyroute2, an implementation of its own, reads what cnm writes, and writes for it."""

from __future__ import annotations

from typing import Any

from cnm.linux import Message, Request
from cnm.linux.wire import HEADER


def decode(message_class: Any, request: Request) -> Any:
    """Return a request as pyroute2 reads it."""
    size = HEADER.size + len(request.body)
    header = HEADER.pack(size, request.kind, request.flags, 1, 0)
    message = message_class(header + request.body)
    message.decode()
    return message


def encode(
    message_class: Any, kind: int, fields: dict[str, Any], *attrs: Any
) -> Message:
    """Return a message as pyroute2 writes it."""
    message = message_class()
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = [list(attr) for attr in attrs]
    message.encode()
    return Message(kind, bytes(message.data[HEADER.size :]))


def pairs(message: Any) -> list[tuple[str, Any]]:
    """Return the names and values of all attributes."""
    return [(attr[0], attr[1]) for attr in message["attrs"]]


def nested_attribute(message: Any, *path: str) -> Any:
    """Return an attribute of an attribute, None if it is absent."""
    for name in path:
        if message is None:
            return None
        message = message.get_attr(name)
    return message
