"""What is found, while a controller starts."""

from __future__ import annotations

import logging

from .reports import Outcome, Restored, Subject
from .types import SandboxInfo

_logger = logging.getLogger(__name__)


class Findings:
    """Collects, and logs, what becomes of things. The last word on each counts.

    :ivar lost: sandboxes whose namespace is gone, by id
    """

    def __init__(self) -> None:
        self._entries: dict[str, Restored] = {}
        self.lost: dict[str, SandboxInfo] = {}

    @property
    def entries(self) -> tuple[Restored, ...]:
        """What has been found, in the order of finding."""
        return tuple(self._entries.values())

    def add(self, subject: Subject, outcome: Outcome, detail: str = "") -> None:
        """Note what has become of something."""
        entry = Restored(subject=subject, outcome=outcome, detail=detail)
        if outcome != "kept":
            _logger.warning("%s", entry)
        key = subject if isinstance(subject, str) else subject.id
        self._entries.pop(key, None)
        self._entries[key] = entry
