"""What all events have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Base class of all events.

    :cvar explicit: whether only those hear it who have asked for this very class
    """

    name: ClassVar[str]
    explicit: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True, slots=True)
class DriverEvent(Event, Generic[R_co]):
    """An event that a driver handles; the parameter is what its handler returns."""
