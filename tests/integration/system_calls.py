"""System calls of one thread that are counted, fail, or hang.

A seccomp filter hands chosen system calls of a thread to the test (seccomp_unotify(2)):
each then blocks in the kernel until the test lets it go on, or fails it. The filter
goes when the thread ends. Python has to let go of its lock during the calls: for those
named here it does.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import select
import struct
import threading
from collections import Counter
from typing import Self

from cnm import SQLiteStore

X86, ARM = 0, 1
#: Numbers of system calls.
_CALLS = {
    # with which SQLite writes, and reads
    "pwrite64": (18, 68),
    "fdatasync": (75, 83),
    "fsync": (74, 82),
    "ftruncate": (77, 46),
    "pread64": (17, 67),
    # with which a plan works
    "bind": (49, 200),
    "close": (3, 57),
    "listen": (50, 201),
    "mkdir": (83, 34),
    "mount": (165, 40),
    "openat": (257, 56),
    "read": (0, 63),
    "rmdir": (84, 35),
    "sendto": (44, 206),
    "setns": (308, 268),
    "socket": (41, 198),
    "umount2": (166, 39),
    "unlink": (87, 35),
    "unshare": (272, 97),
    "write": (1, 64),
}
_SECCOMP = (317, 277)
_MACHINE = ARM if platform.machine() == "aarch64" else X86
WRITING = ("pwrite64", "fdatasync", "fsync", "ftruncate")
PLANNING = tuple(name for name in _CALLS if name not in WRITING[1:])

# include/uapi/linux/seccomp.h
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1
SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100
SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101
# include/uapi/linux/bpf_common.h, filter.h
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06


def _filter(numbers: list[int]) -> bytes:
    """Return the program that picks system calls by number."""
    count = len(numbers)
    lines = [(_LOAD, 0, 0, 0)]
    lines += [(_EQUAL, count - i, 0, number) for i, number in enumerate(numbers)]
    lines += [
        (_RETURN, 0, 0, SECCOMP_RET_ALLOW),
        (_RETURN, 0, 0, SECCOMP_RET_USER_NOTIF),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _go_on(identity: int) -> bytes:
    """Return the answer that lets a system call go on."""
    return struct.pack("=QqiI", identity, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE)


class Faults:
    """What becomes of the system calls with which a thread works.

    :ivar counts: whether calls are counted at present
    :ivar fail: the error numbers with which calls fail, by name
    :ivar skip: how many of them succeed before
    :ivar times: how many of them fail then; None for all
    :ivar calls: how many there have been, by name
    """

    def __init__(self, *calls: str) -> None:
        self.fail: dict[str, int] = {}
        self.skip = 0
        self.times: int | None = None
        self.calls: Counter[str] = Counter()
        self.counts = True
        self._hanging = threading.Event()
        self._going_on = threading.Event()
        self._going_on.set()
        self._names = {_CALLS[name][_MACHINE]: name for name in calls or WRITING}
        self._listener = -1
        self._filtered = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise)

    async def install(self, store: SQLiteStore) -> Self:
        """Watch the thread of an open store from now on."""
        assert store._thread is not None
        self.start()
        await store._thread.do(lambda attempt: self.filter_thread())
        return self

    def start(self) -> None:
        """Be ready to let calls go on; in a thread that is not filtered itself."""
        self._supervisor.start()

    def hang(self) -> None:
        """Have the next call, and all after it, block in the kernel."""
        self._hanging.clear()
        self._going_on.clear()

    def wait_until_it_hangs(self) -> None:
        """Return when a call blocks."""
        assert self._hanging.wait(10)

    def go_on(self) -> None:
        """Let what blocks go on."""
        self._going_on.set()

    def close(self) -> None:
        """Wait until the thread has ended."""
        self.go_on()
        if self._listener >= 0:
            self._supervisor.join(10)
            assert not self._supervisor.is_alive(), "the store's thread still runs"
            os.close(self._listener)
            self._listener = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def filter_thread(self) -> None:
        """Filter the calling thread, and those that it starts."""
        program = ctypes.create_string_buffer(_filter(list(self._names)))
        count = (len(program) - 1) // 8
        header = struct.pack("=H6xQ", count, ctypes.addressof(program))
        libc = ctypes.CDLL(None, use_errno=True)
        self._listener = libc.syscall(
            _SECCOMP[_MACHINE],
            SECCOMP_SET_MODE_FILTER,
            SECCOMP_FILTER_FLAG_NEW_LISTENER,
            header,
        )
        assert self._listener >= 0, os.strerror(ctypes.get_errno())
        self._filtered.set()

    def _supervise(self) -> None:
        self._filtered.wait()
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while not poll.poll()[0][1] & select.POLLHUP:
            request = bytearray(80)
            fcntl.ioctl(self._listener, SECCOMP_IOCTL_NOTIF_RECV, request)
            identity, _, _, number = struct.unpack_from("=QIIi", request)
            answer = self._answer(identity, self._names[number])
            fcntl.ioctl(self._listener, SECCOMP_IOCTL_NOTIF_SEND, answer)

    def _answer(self, identity: int, name: str) -> bytes:
        self.calls[name] += self.counts
        if not self._going_on.is_set():
            self._hanging.set()
            self._going_on.wait(30)
        error = self.fail.get(name)
        if error is None or self.times == 0:
            return _go_on(identity)
        if self.skip:
            self.skip -= 1
            return _go_on(identity)
        if self.times is not None:
            self.times -= 1
        return struct.pack("=QqiI", identity, 0, -error, 0)
