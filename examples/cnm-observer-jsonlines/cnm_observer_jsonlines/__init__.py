"""Events of cnm as lines of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import anyio.to_thread

from cnm.driver import Event, Observer, hookimpl

__all__ = ["JSONLines", "encode"]

STDERR = 2


class JSONLines(Observer):
    """Appends a line to the file CNM_EVENTS_FILE for each event."""

    @hookimpl
    async def cnm_event(self, event: Event) -> None:
        """Write an event."""
        line = json.dumps(
            {
                "event": event.name,
                "time": datetime.now(UTC).isoformat(),
                **{it.name: encode(getattr(event, it.name)) for it in fields(event)},
            }
        )
        await anyio.to_thread.run_sync(_append, f"{line}\n".encode())


def encode(value: object) -> Any:
    """Return a value of an event as JSON has it: addresses and times are strings."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.value if isinstance(value, Enum) else value
    if is_dataclass(value):
        return {it.name: encode(getattr(value, it.name)) for it in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [encode(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def _append(line: bytes) -> None:
    path = os.environ.get("CNM_EVENTS_FILE")
    if not path:
        os.write(STDERR, line)
        return
    with open(path, "ab", buffering=0) as file:
        file.write(line)
