"""Deleting links that have been taken off their networks.

Deleting a link waits 20 ms for an RCU grace period, for one link or for a hundred. So
links are put down and into a device group, at once; now and then a group is deleted.
Bridges are the exception, see :data:`REAP_SINGLY_GROUP`: they come into that group one
by one, or a few at a time.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence

import anyio

from ..errors import KernelError, NetlinkError
from . import namespaces
from .kernel import Kernel, Sockets
from .links import (
    REAP_GROUP,
    REAP_SINGLY_GROUP,
    Link,
    delete_link,
    dump_links,
    parse_link,
    set_link,
)
from .netlink import NetlinkSocket

_logger = logging.getLogger(__name__)

#: How many bridges are deleted at a time when somebody waits for it. Together they
#: take two thirds of the time; but nobody else configures a link meanwhile, for 16 ms
#: each.
_AT_A_TIME = 4
#: Seconds of pauses between bridges, however many there are: so they do not pile up.
_PAUSES = 20.0


class Reaper:
    """Deletes the links of the reap groups.

    :param delay: seconds to wait for further links before deleting
    :ivar delay: the same
    """

    def __init__(self, kernel: Kernel, *, delay: float = 0.2) -> None:
        self.delay: float = delay
        self._kernel = kernel
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
            await anyio.sleep(self.delay)
            try:
                bridges = await self._reap()
                for bridge in bridges:
                    await self._kernel.run(_delete, (bridge,))
                    await anyio.sleep(min(self.delay, _PAUSES / len(bridges)))
            except KernelError:
                _logger.exception("links that have left their networks remain")

    async def reap(self) -> None:
        """Delete now; return when the links are gone."""
        for few in _few(await self._reap()):
            await self._kernel.run(_delete, few)

    async def _reap(self) -> tuple[int, ...]:
        """Delete all but the bridges; return these."""
        self._wanted = anyio.Event()
        keys, self._keys = self._keys, set()
        singly, self._singly = self._singly, False
        try:
            # where it has failed, it is tried again with the next ones
            self._keys |= await self._kernel.run(_reap, frozenset(keys))
            return await self._kernel.run(_singles) if singly else ()
        except BaseException:
            self._keys |= keys
            self._singly |= singly
            raise


def delete_links(sockets: Sockets, links: Sequence[Link]) -> None:
    """Plan: delete links, nearly all at once. No error if one is gone."""
    bridges = tuple(link.index for link in links if link.kind == "bridge")
    # one without a kind cannot be deleted, and would keep all of its group
    others = tuple(link.index for link in links if link.kind not in ("bridge", ""))
    for few in (others, *_few(bridges)):
        _delete(sockets, few)


def _few(bridges: tuple[int, ...]) -> list[tuple[int, ...]]:
    starts = range(0, len(bridges), _AT_A_TIME)
    return [bridges[start : start + _AT_A_TIME] for start in starts]


def _reap(sockets: Sockets, keys: frozenset[str]) -> set[str]:
    """Plan: delete what is in the group; return the namespaces where that fails."""
    _delete_group(sockets.route)
    failed = set()
    for key in keys:
        try:
            with sockets.sandbox(key) as sandbox:
                _delete_group(sandbox.route)
        except KernelError as exc:
            if exc.errno not in namespaces.GONE:
                _logger.warning("links in %s remain: %s", key, exc)
                failed.add(key)
    return failed


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


def _delete(sockets: Sockets, indexes: tuple[int, ...]) -> None:
    requests = [set_link(index, group=REAP_GROUP) for index in indexes]
    try:
        sockets.route.call(*requests)
    except NetlinkError as exc:
        if any(each.errno != errno.ENODEV for each in (exc, *exc.others)):
            raise
    _delete_group(sockets.route)
