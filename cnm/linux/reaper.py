"""Deleting links that have been taken off their networks.

Deleting a link waits 20 ms for an RCU grace period, for one link or for a hundred. So
links are put down and into a device group, at once; now and then a group is deleted.
Bridges are the exception, see :data:`REAP_SINGLY_GROUP`.
"""

from __future__ import annotations

import errno
import logging

import anyio

from ..errors import KernelError
from .kernel import Kernel, Sockets
from .links import (
    REAP_GROUP,
    REAP_SINGLY_GROUP,
    delete_link,
    dump_links,
    parse_link,
)
from .netlink import NetlinkSocket

_logger = logging.getLogger(__name__)


class Reaper:
    """Deletes the links of the reap groups.

    :param delay: seconds to wait for further links before deleting
    """

    def __init__(self, kernel: Kernel, *, delay: float = 0.2) -> None:
        self._kernel = kernel
        self._delay = delay
        self._wanted = anyio.Event()
        self._keys: set[str] = set()
        self._singly = False

    def want(self, key: str = "", *, singly: bool = False) -> None:
        """Have links deleted soon.

        :param key: path of a namespace that has some, besides the controller's own
        :param singly: whether there are some to be deleted one by one
        """
        if key:
            self._keys.add(key)
        self._singly |= singly
        self._wanted.set()

    def forget(self, key: str) -> None:
        """Leave a namespace alone, because it is being removed."""
        self._keys.discard(key)

    async def run(self) -> None:
        """Delete when there is something to delete, until cancelled."""
        while True:
            await self._wanted.wait()
            await anyio.sleep(self._delay)
            try:
                await self.reap(pause=self._delay)
            except KernelError:
                _logger.exception("links that have left their networks remain")

    async def reap(self, *, pause: float = 0) -> None:
        """Delete now; return when the links are gone.

        :param pause: seconds for others between two links that are deleted one by one
        """
        self._wanted = anyio.Event()
        keys, self._keys = self._keys, set()
        singly, self._singly = self._singly, False
        await self._kernel.run(_reap, frozenset(keys))
        indexes = await self._kernel.run(_singles) if singly else ()
        for index in indexes:
            await self._kernel.run(_delete, index)
            await anyio.sleep(pause)


def _reap(sockets: Sockets, keys: frozenset[str]) -> None:
    _delete_group(sockets.route)
    for key in keys:
        try:
            with sockets.sandbox(key) as sandbox:
                _delete_group(sandbox.route)
        except KernelError as exc:
            if exc.errno != errno.ENOENT:
                raise


def _delete_group(route: NetlinkSocket) -> None:
    try:
        route.call(delete_link(group=REAP_GROUP))
    except KernelError as exc:
        # no link has the group: ENODEV, or EINVAL from older kernels
        if exc.errno not in (errno.ENODEV, errno.EINVAL):
            raise


def _singles(sockets: Sockets) -> tuple[int, ...]:
    links = map(parse_link, sockets.route.dump(dump_links()))
    return tuple(link.index for link in links if link.group == REAP_SINGLY_GROUP)


def _delete(sockets: Sockets, index: int) -> None:
    try:
        sockets.route.call(delete_link(index))
    except KernelError as exc:
        if exc.errno != errno.ENODEV:
            raise
