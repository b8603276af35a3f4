"""The sockets that hold an endpoint's ports, with few file descriptors.

A file descriptor that has been sent through a Unix socket, and has not been received
yet, is not open in any process; its socket lives on in the queue (unix(7)).
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from array import array
from collections import deque
from typing import TYPE_CHECKING

from ..errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .places import HostPort

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
        self._loose: dict[HostPort, socket.socket] = {}
        self._lots: list[_Lot] = []

    def __len__(self) -> int:
        return len(self._loose) + sum(map(len, self._lots))

    @property
    def descriptors(self) -> int:
        """How many file descriptors are open."""
        return len(self._loose) + 2 * len(self._lots)

    def add(self, place: HostPort, held: socket.socket) -> None:
        """Take over a socket.

        :raises UnavailableError: if the system does not have room for so many
        """
        self._loose[place] = held
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
        return sockets

    def release(self, places: Iterable[HostPort]) -> None:
        """Close the sockets that hold some ports; no error if there is none.

        :raises UnavailableError: if there are too few file descriptors to do so; what
            has not been closed is held as before
        """
        goes = set(places)
        for place in goes & self._loose.keys():
            self._loose.pop(place).close()
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
        self._messages: deque[tuple[HostPort, ...]] = deque()

    def __len__(self) -> int:
        return sum(map(len, self._messages))

    def put(self, sockets: Mapping[HostPort, socket.socket]) -> bool:
        """Send sockets to the end of the queue, and return False if it is full."""
        if len(self._messages) >= PER_LOT:
            return False
        descriptors = [held.fileno() for held in sockets.values()]
        return self._send(tuple(sockets), descriptors)

    def release(self, goes: set[HostPort]) -> dict[HostPort, socket.socket]:
        """Close some sockets, and strike them out of the set.

        :return: others that could not be put back
        """
        if all(goes.issuperset(message) for message in self._messages):
            self.close()
            self._messages.clear()
            return {}
        pending = sum(not goes.isdisjoint(message) for message in self._messages)
        stray: dict[HostPort, socket.socket] = {}
        while pending:
            message = self._messages[0]
            pending -= not goes.isdisjoint(message)
            stray |= self._sift(message, goes)
            goes.difference_update(message)
        return stray

    def _sift(
        self, message: tuple[HostPort, ...], goes: set[HostPort]
    ) -> dict[HostPort, socket.socket]:
        """Take the first message out, and put back what does not go."""
        held = dict(zip(message, self._peek(len(message)), strict=True))
        self._head.recv(1)  # without room for descriptors, the kernel drops them
        self._messages.popleft()
        for place in goes & held.keys():
            os.close(held.pop(place))
        if held and not self._put_back(held):
            return {it: socket.socket(fileno=fd) for it, fd in held.items()}
        for descriptor in held.values():
            os.close(descriptor)
        return {}

    def _put_back(self, held: dict[HostPort, int]) -> bool:
        try:
            return self._send(tuple(held), list(held.values()))
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

    def _send(self, places: tuple[HostPort, ...], descriptors: list[int]) -> bool:
        try:
            socket.send_fds(self._tail, [b"\0"], descriptors)
        except BlockingIOError:
            return False
        except OSError as exc:
            raise too_many(len(places), str(exc.strerror)) from exc
        self._messages.append(places)
        return True

    def close(self) -> None:
        """Close the queue, and with it all sockets in it."""
        self._tail.close()
        self._head.close()


def too_many(count: int, reason: str) -> UnavailableError:
    """Return the error for sockets that there is no room for."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UnavailableError(
        f"{count} ports of the host cannot be held: {reason} (ulimit -n is {limit})"
    )
