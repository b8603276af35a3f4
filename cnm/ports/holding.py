"""The sockets that hold an endpoint's ports, with few file descriptors.

A file descriptor that has been sent through a Unix socket, and has not been received
yet, is not open in any process; its socket lives on in the queue (unix(7)).
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
from array import array
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING

from ..errors import UnavailableError
from .sockets import narrow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .places import HostPort, Places

_logger = logging.getLogger(__name__)

#: Sockets of a holding that are left open as they are.
LOOSE = 8
#: File descriptors in a message; the kernel takes 253 (include/net/scm.h, SCM_MAX_FD).
PER_MESSAGE = 200
#: Messages in a queue. To take one out, those before it are taken out and put back.
PER_LOT = 10


class Holding:
    """Bound sockets, by the ports that they hold.

    The methods are for plans, one at a time.

    :param parks: whether the sockets need not be open, because nobody uses them
    :ivar parks: the same
    """

    def __init__(self, *, parks: bool = True) -> None:
        self.parks = parks
        self._loose: dict[Places, socket.socket] = {}
        self._lots: list[_Lot] = []

    def __len__(self) -> int:
        return len(self._loose) + sum(map(len, self._lots))

    def add(self, places: Places, held: socket.socket) -> None:
        """Take over a socket.

        :raises UnavailableError: if the system does not have room for so many
        """
        self._loose[places] = held
        if len(self._loose) >= PER_MESSAGE:
            self.park()

    def park(self) -> None:
        """Have the sockets need next to no file descriptors, unless they are few.

        :raises UnavailableError: if the system does not have room for so many
        """
        if not self.parks or len(self._loose) <= LOOSE:
            return
        if not self._lots or not self._lots[-1].put(self._loose):
            lot = _Lot()
            self._lots.append(lot)
            if not lot.put(self._loose):
                raise too_many(len(self), os.strerror(errno.EAGAIN))
        for parked in self._loose.values():
            parked.close()
        self._loose = {}

    def absorb(self, other: Holding) -> None:
        """Take over what another holding holds, which is left with nothing."""
        self._loose |= other._loose
        self._lots += other._lots
        other._loose, other._lots = {}, []

    def hand_over(self) -> dict[HostPort, socket.socket]:
        """Return the open sockets, and hold them no more."""
        sockets, self._loose = self._loose, {}
        return {place: held for places, held in sockets.items() for place in places}

    def release(self, places: Iterable[HostPort]) -> None:
        """Close the sockets that hold some ports; no error if there is none.

        :raises UnavailableError: if there are too few file descriptors to do so; what
            has not been closed is held as before
        """
        goes = frozenset(places)
        _strike_out(self._loose, goes)
        for lot in self._lots:
            self._loose |= lot.release(goes)
        for lot in [each for each in self._lots if not len(each)]:
            lot.close()
            self._lots.remove(lot)

    def close(self) -> None:
        """Close all sockets."""
        for held in self._loose.values():
            held.close()
        for lot in self._lots:
            lot.close()
        self._loose, self._lots = {}, []


class _Lot:
    """Sockets in the queue of a Unix socket, and which ports each message holds."""

    def __init__(self) -> None:
        try:
            self._tail, self._head = socket.socketpair(
                socket.AF_UNIX, socket.SOCK_SEQPACKET
            )
        except OSError as exc:
            raise too_many(PER_MESSAGE, str(exc.strerror)) from exc
        self._tail.setblocking(False)
        self._messages: deque[tuple[Places, ...]] = deque()

    def __len__(self) -> int:
        return sum(map(len, self._messages))

    def put(self, sockets: Mapping[Places, socket.socket]) -> bool:
        """Send sockets to the end of the queue, and return False if it is full."""
        return len(self._messages) < PER_LOT and self._send(sockets)

    def release(self, goes: frozenset[HostPort]) -> dict[Places, socket.socket]:
        """Close some sockets.

        :return: others that could not be put back
        """
        if all(goes.issuperset(chain(*message)) for message in self._messages):
            self.close()
            self._messages.clear()
            return {}
        stray: dict[Places, socket.socket] = {}
        concerned = [not goes.isdisjoint(chain(*it)) for it in self._messages]
        while any(concerned):
            concerned.pop(0)
            stray |= self._sift(goes)
        return stray

    def _sift(self, goes: frozenset[HostPort]) -> dict[Places, socket.socket]:
        """Take the first message out, and put back what does not go."""
        message = self._messages[0]
        descriptors = self._peek(len(message))
        self._head.recv(1)  # without room for descriptors, the kernel drops them
        self._messages.popleft()
        held = {
            places: socket.socket(fileno=descriptor)
            for places, descriptor in zip(message, descriptors, strict=True)
        }
        _strike_out(held, goes)
        if held and not self._put_back(held):
            return held
        for parked in held.values():
            parked.close()
        return {}

    def _put_back(self, held: Mapping[Places, socket.socket]) -> bool:
        try:
            return self._send(held)
        except UnavailableError:
            return False

    def _peek(self, count: int) -> list[int]:
        """Receive the first message, and leave it in the queue.

        The kernel drops those descriptors for which the process has no room: they are
        lost unless the message is there still.
        """
        descriptors = array("i")
        # socket.recv_fds() takes flags, and forgets them
        _, ancillary, _, _ = self._head.recvmsg(
            1,
            socket.CMSG_LEN(count * descriptors.itemsize),
            socket.MSG_PEEK | socket.MSG_CMSG_CLOEXEC,
        )
        for _, _, data in ancillary:
            descriptors.frombytes(data)
        if len(descriptors) < count:
            for descriptor in descriptors:
                os.close(descriptor)
            raise too_many(count, os.strerror(errno.EMFILE))
        return descriptors.tolist()

    def _send(self, sockets: Mapping[Places, socket.socket]) -> bool:
        descriptors = [held.fileno() for held in sockets.values()]
        try:
            socket.send_fds(self._tail, [b"\0"], descriptors)
        except BlockingIOError:
            return False
        except OSError as exc:
            raise too_many(len(sockets), str(exc.strerror)) from exc
        self._messages.append(tuple(sockets))
        return True

    def close(self) -> None:
        """Close the queue, and with it all sockets in it."""
        self._tail.close()
        self._head.close()


def _strike_out(
    sockets: dict[Places, socket.socket], goes: frozenset[HostPort]
) -> None:
    """Close the sockets that hold nothing but ports that go, and narrow others."""
    for places in [it for it in sockets if not goes.isdisjoint(it)]:
        held = sockets.pop(places)
        rest = tuple(it for it in places if it not in goes)
        if not rest:
            held.close()
            continue
        try:
            sockets[rest] = narrow(held, *rest)
        except OSError:
            sockets[places] = held
            _logger.exception("%s is held in both families", rest[0].described)


def too_many(count: int, reason: str) -> UnavailableError:
    """Return the error for sockets that there is no room for."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UnavailableError(
        f"{count} ports of the host cannot be held: {reason} (ulimit -n is {limit})"
    )
