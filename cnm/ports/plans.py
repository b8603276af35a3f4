"""Plans that publish ports and take them back, and see to the connections to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import NoAvailablePort
from ..linux.forgetter import forget_now

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..linux import Sockets
    from ..linux.forgetter import Forgetter
    from ..types import PortBinding
    from .publication import Host, Publication
    from .translation import Translation


def publish(
    translation: Translation,
    publication: Publication,
    host: Host,
    forgetter: Forgetter | None,
    sockets: Sockets,
) -> tuple[PortBinding, ...]:
    """Plan: publish exactly what a publication says, or change nothing.

    :param forgetter: knows ports of which connections are still to be forgotten: others
        are preferred where they will do
    :return: all bindings of the endpoint
    """
    busy = forgetter.busy if forgetter is not None else frozenset()
    try:
        bindings, outdated = translation.publish(sockets, publication, host, busy)
    except NoAvailablePort:
        if forgetter is None or not busy:
            raise
        forgetter.flush_now(sockets)
        bindings, outdated = translation.publish(sockets, publication, host)
    # before new clients come, whose connections would be forgotten, too
    if outdated and forgetter is not None:
        forgetter.flush_now(sockets)
    elif outdated:
        forget_now(sockets, (), outdated)
    return bindings


class Withdrawing:
    """Takes bindings of an endpoint back.

    :param bindings: which ones, or None for all
    :param forgetter: has connections to them be forgotten in the background; without
        one, they are at once
    """

    def __init__(
        self,
        translation: Translation,
        endpoint_id: str,
        bindings: Iterable[PortBinding] | None,
        forgetter: Forgetter | None,
    ) -> None:
        self._translation = translation
        self._endpoint_id = endpoint_id
        self._bindings = bindings
        self._forgetter = forgetter

    def run(self, sockets: Sockets) -> tuple[PortBinding, ...]:
        """Plan: take them back, or change nothing; return what is left."""
        identity = self._endpoint_id
        outdated = self._translation.withdraw(sockets, identity, self._bindings)
        if outdated and self._forgetter is None:
            forget_now(sockets, (), outdated)
        return self._translation.bindings(identity)

    def done(self) -> None:
        """Have connections be forgotten."""
        if self._forgetter is not None:
            self._forgetter.soon()
