"""What stands for a driver that is not there."""

from __future__ import annotations

from .errors import DriverError
from .events import Event
from .plugins import Driver


class AbsentDriver(Driver):
    """The driver of networks that cannot be restored; it fails whatever it is told.

    :param reason: why there is no driver
    """

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.origin = ""
        self._reason = reason

    def handles(self, event: type[Event]) -> bool:
        """Tell that it has no handler."""
        return False

    async def call(self, hook: str, event: Event) -> object:
        """Fail.

        :raises DriverError: with the reason
        """
        raise DriverError(self.name, event.name, self._reason)
