"""A netlink socket: batches of requests out, answers in, errors as exceptions.

A netlink request runs inside send(2), on the calling thread: when send() returns, the
kernel has done the work and the answers lie in the receive buffer. So a call is two
system calls and never waits, and there is nothing to gain from an event loop. The one
thing worth waiting for is a multicast group: see :mod:`cnm.linux.monitor`.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple, Self

from ..errors import KernelError, MissingCapability, MissingFeature, NetlinkError
from .wire import (
    HEADER,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    attributes,
    messages,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

# include/uapi/linux/netlink.h
NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_MIN_TYPE = 16

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_NLMSGERR_ATTR_MSG = 1
# include/uapi/asm-generic/socket.h; with CAP_NET_ADMIN they go past net.core.*mem_max
_SO_SNDBUFFORCE = 32
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33

# The kernel makes dumps in pieces of at most 32 KiB (af_netlink.c), other answers are
# one message each.
_RECEIVE = 1 << 17
# Receive buffers in bytes: of a socket that makes calls, and of one that listens to a
# multicast group.
_CALL_BUFFER = 1 << 20
_MULTICAST_BUFFER = 4 << 20
_DUMP_ATTEMPTS = 10
_LAST_SEQUENCE = 1 << 31
_MSG_TRUNC = int(socket.MSG_TRUNC)


class _Scratch(threading.local):
    """Where a thread receives: to allocate that much costs more than to receive."""

    def __init__(self) -> None:
        self.buffer: bytearray = bytearray(_RECEIVE)


_scratch = _Scratch()


class Request(NamedTuple):
    """One netlink message that is to be sent.

    :ivar kind: message type
    :ivar flags: message flags; the socket adds REQUEST, ACK and DUMP
    :ivar body: what follows the message header
    :ivar words: what it does, or the words of that
    :ivar feature: kernel option that is missing if the kernel does not know what is
        asked for, e.g. ``"CONFIG_BRIDGE"``
    :ivar ignores: errors that are none, because all is as it should be then. To make
        an exception of one takes 30 us
    """

    kind: int
    flags: int
    body: bytes
    words: str | tuple[object, ...]
    feature: str = ""
    ignores: tuple[int, ...] = ()

    @property
    def what(self) -> str:
        """What it does, for error messages: ``"add bridge br-1234"``.

        Addresses as text would take a third of the time that it takes to make requests.
        """
        words = self.words
        return words if isinstance(words, str) else " ".join(map(str, words))


class Message(NamedTuple):
    """One netlink message that has been received.

    :ivar port: the port of whoever caused a multicast message, 0 for the kernel
    """

    kind: int
    body: bytes
    flags: int = 0
    port: int = 0


class NetlinkSocket:
    """A netlink socket in the network namespace of the calling thread.

    It stays in that namespace, whatever thread uses it, and keeps the namespace alive
    until it is closed. One thread may use it at a time.

    :param protocol: ``NETLINK_ROUTE`` or ``NETLINK_NETFILTER``
    :raises MissingFeature: if the kernel does not have the protocol
    """

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol
            )
        except OSError as exc:
            what, code = "open a netlink socket", exc.errno or errno.EIO
            if code == errno.EPROTONOSUPPORT and protocol == NETLINK_NETFILTER:
                raise MissingFeature(code, what, "CONFIG_NETFILTER_NETLINK") from exc
            raise KernelError(code, what) from exc
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        if protocol == NETLINK_ROUTE:
            # without it the kernel ignores what a dump is restricted to
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._resize(_SO_RCVBUFFORCE, socket.SO_RCVBUF, _CALL_BUFFER)
        self._socket.bind((0, 0))
        self._port: int = self._socket.getsockname()[0]
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket. Closing it twice is no error."""
        self._socket.close()

    @property
    def port(self) -> int:
        """The socket's own port, by which others are told who causes a change."""
        return self._port

    def fileno(self) -> int:
        """Return the file descriptor, -1 once the socket is closed."""
        return self._socket.fileno()

    def call(self, *requests: Request, acknowledged: int = -1) -> list[Message]:
        """Send requests in one system call, and return what they answer.

        rtnetlink's batches are not atomic: the kernel goes on after an error, so all
        errors are collected, and the first is raised.

        :param acknowledged: position of the request whose acknowledgement ends the
            call, if it is not the last
        :raises NetlinkError: the first error; ``others`` has those that followed
        :raises MissingCapability: if the process may not do that
        :raises MissingFeature: if the kernel does not know what is asked for
        """
        if not requests:
            return []
        final = acknowledged % len(requests)
        first = self._send(requests, final, 0)
        answers, _ = self._collect(requests, first, first + final)
        return answers

    def dump(self, request: Request) -> list[Message]:
        """Return all the objects that a request asks for, as of one moment.

        :raises NetlinkError: if they kept changing while they were read
        """
        for _ in range(_DUMP_ATTEMPTS):
            first = self._send((request,), -1, NLM_F_DUMP)
            try:
                answers, interrupted = self._collect((request,), first, first)
            except NetlinkError as exc:
                if exc.errno != errno.EBUSY:
                    raise
                self.receive()  # the rest of a dump that nobody has read to its end
            else:
                if not interrupted:
                    return answers
        raise NetlinkError(errno.EINTR, request.what, "kept changing while being read")

    def subscribe(self, group: int) -> None:
        """Have the messages of a multicast group sent to this socket.

        :param group: number of the group (``RTNLGRP_...``, ``NFNLGRP_...``)
        :raises MissingCapability: if the process may not listen to it
        """
        self._resize(_SO_RCVBUFFORCE, socket.SO_RCVBUF, _MULTICAST_BUFFER)
        try:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        except OSError as exc:
            request = Request(0, 0, b"", f"listen to netlink group {group}")
            raise _error(exc.errno or errno.EIO, request) from exc

    def keep(self, program: bytes) -> None:
        """Have the kernel keep back the multicast messages that a filter leaves.

        :param program: as :mod:`!cnm.linux.filters` makes them
        """
        code = ctypes.create_string_buffer(program)
        # struct sock_fprog: how many instructions of 8 bytes, and where they are
        filter_ = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)

    def receive(self) -> list[Message]:
        """Return the multicast messages that have arrived, without waiting.

        :raises OSError: ENOBUFS if messages have been lost, because the buffer was
            full; what they told has to be read anew. From then on none are lost again:
            the buffer has been emptied
        """
        received: list[Message] = []
        overrun: OSError | None = None
        while True:
            try:
                buffer = self._receive()
            except BlockingIOError:
                if overrun is not None:
                    raise overrun from None
                return received
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise
                # until the buffer is empty, the kernel goes on losing, and says nothing
                overrun = exc
                continue
            received += [
                Message(kind, buffer[start:end], flags, _sender(buffer, start))
                for kind, flags, _, start, end in messages(buffer)
                if kind >= NLMSG_MIN_TYPE
            ]

    def _send(self, requests: Sequence[Request], final: int, extra: int) -> int:
        """Send requests; return the sequence number of the first."""
        if self._sequence + len(requests) >= _LAST_SEQUENCE:
            self._sequence = 0
        first = sequence = self._sequence + 1
        parts = []
        for position, request in enumerate(requests):
            body = request.body
            flags = request.flags | NLM_F_REQUEST | extra
            if position == final:
                # errors are sent unasked: one ACK, for the final request, is enough
                flags |= NLM_F_ACK
            parts.append(HEADER.pack(16 + len(body), request.kind, flags, sequence, 0))
            parts.append(body)
            if len(body) & 3:
                parts.append(b"\0" * (-len(body) & 3))
            sequence += 1
        self._sequence = sequence - 1
        data = b"".join(parts)
        try:
            self._socket.send(data)
        except OSError as exc:
            if exc.errno != errno.EMSGSIZE:
                raise KernelError(exc.errno or errno.EIO, requests[0].what) from exc
            self._send_large(data, requests[0].what)
        return first

    def _send_large(self, data: bytes, what: str) -> None:
        """Send what does not fit into the send buffer, after enlarging it."""
        self._resize(_SO_SNDBUFFORCE, socket.SO_SNDBUF, len(data))
        try:
            self._socket.send(data)
        except OSError as exc:
            raise KernelError(exc.errno or errno.EIO, what) from exc

    def _resize(self, forced: int, plain: int, size: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, forced, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, plain, size)

    def _receive(self) -> bytes:
        size, _, flags, _ = self._socket.recvmsg_into([_scratch.buffer])
        if flags & _MSG_TRUNC:
            what = "receive netlink messages"
            raise NetlinkError(
                errno.EMSGSIZE, what, f"a message of more than {_RECEIVE} bytes"
            )
        return bytes(memoryview(_scratch.buffer)[:size])

    def _collect(
        self, requests: Sequence[Request], first: int, final: int
    ) -> tuple[list[Message], bool]:
        """Read the answers up to the one to request ``final``.

        Answers with other sequence numbers belong to calls that were interrupted.
        """
        answers: list[Message] = []
        errors: list[KernelError] = []
        interrupted = finished = False
        while not finished:
            try:
                buffer = self._receive()
            except BlockingIOError:
                break  # the kernel has said all that it has to say
            except OSError as exc:
                raise NetlinkError(exc.errno or errno.EIO, requests[0].what) from exc
            for kind, flags, sequence, start, end in messages(buffer):
                position = sequence - first
                if not 0 <= position < len(requests):
                    continue
                interrupted |= bool(flags & NLM_F_DUMP_INTR)
                if kind not in (NLMSG_ERROR, NLMSG_DONE):
                    answers.append(Message(kind, buffer[start:end], flags))
                    continue
                code = -int.from_bytes(
                    buffer[start : start + 4], sys.byteorder, signed=True
                )
                request = requests[position]
                if code and code not in request.ignores:
                    explanation = _explanation(buffer, start, end, kind, flags)
                    errors.append(_error(code, request, explanation, position))
                finished |= sequence == final
        if errors:
            if isinstance(errors[0], NetlinkError):
                errors[0].others = tuple(
                    exc for exc in errors[1:] if isinstance(exc, NetlinkError)
                )
            raise errors[0]
        if not finished:
            raise NetlinkError(errno.EIO, requests[0].what, "no answer came")
        return answers, interrupted


def _sender(buffer: bytes, start: int) -> int:
    """Return the port in the header of the message whose body starts here."""
    return int.from_bytes(buffer[start - 4 : start], sys.byteorder)


def _explanation(buffer: bytes, start: int, end: int, kind: int, flags: int) -> str:
    """Return the kernel's own text (extended acknowledgement), or ``""``."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    # struct nlmsgerr repeats the request's header (and no more: NETLINK_CAP_ACK)
    skipped = 4 + (HEADER.size if kind == NLMSG_ERROR else 0)
    return text(attributes(buffer, start + skipped, end).get(_NLMSGERR_ATTR_MSG))


def _error(
    code: int, request: Request, explanation: str = "", position: int = 0
) -> KernelError:
    # with an explanation, it is another reason: IPv6 is disabled on the device
    if code == errno.EPERM or (code == errno.EACCES and not explanation):
        return MissingCapability(code, request.what, "CAP_NET_ADMIN")
    if (
        code == errno.EOPNOTSUPP
        and request.feature
        and explanation in ("", "Unknown device type")
    ):
        return MissingFeature(code, request.what, request.feature)
    return NetlinkError(code, request.what, explanation, position)
