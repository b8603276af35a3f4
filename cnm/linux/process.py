"""Processes inside a network namespace.

A process gets the sandbox's network, a mount namespace of its own in which some files
are replaced (/etc/resolv.conf, /etc/hosts) and /sys shows the sandbox's devices. A
thread enters the namespaces, starts the process, which inherits them, and dies.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, cast

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

from ..errors import KernelError
from . import namespaces

#: Bytes that are read from a pipe at a time: what a pipe holds, pipe(7).
_PIPE_SIZE = 65536


class _Pipe:
    """One of our ends of a process's pipes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        os.set_blocking(file.fileno(), False)

    def _fileno(self) -> int:
        if self._file.closed:
            raise anyio.ClosedResourceError
        return self._file.fileno()

    async def aclose(self) -> None:
        if not self._file.closed:
            anyio.notify_closing(self._file.fileno())
            self._file.close()
        await anyio.lowlevel.checkpoint()


class _PipeReader(_Pipe, ByteReceiveStream):
    async def receive(self, max_bytes: int = _PIPE_SIZE) -> bytes:
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                data = os.read(self._fileno(), max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._fileno())
                continue
            if not data:
                raise anyio.EndOfStream
            return data


class _PipeWriter(_Pipe, ByteSendStream):
    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        view = memoryview(item)
        while view:
            try:
                view = view[os.write(self._fileno(), view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._fileno())
            except BrokenPipeError as exc:
                raise anyio.BrokenResourceError from exc


class SandboxProcess(Process):
    """A process inside a network namespace (anyio's Process)."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self._pidfd = os.pidfd_open(popen.pid)
        self._reaped = anyio.Event()
        self._waiting = False
        self._stdin = _PipeWriter(popen.stdin) if popen.stdin else None
        self._stdout = _PipeReader(popen.stdout) if popen.stdout else None
        self._stderr = _PipeReader(popen.stderr) if popen.stderr else None

    async def aclose(self) -> None:
        """Close the pipes and wait for the process; kill it if that is cancelled."""
        try:
            for stream in (self._stdin, self._stdout, self._stderr):
                if stream is not None:
                    await stream.aclose()
            await self.wait()
        except BaseException:
            self.kill()
            with anyio.CancelScope(shield=True):
                for stream in (self._stdin, self._stdout, self._stderr):
                    if stream is not None:
                        await stream.aclose()
                await self.wait()
            raise
        finally:
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1

    async def wait(self) -> int:
        """Wait for the end of the process, and return its exit status."""
        await anyio.lowlevel.checkpoint()
        while self._popen.returncode is None:
            if self._waiting:
                await self._reaped.wait()
                continue
            self._waiting = True
            try:
                await anyio.wait_readable(self._pidfd)
                self._popen.wait()  # it has ended: this does not wait
            finally:
                self._waiting = False
                self._reaped.set()
                self._reaped = anyio.Event()
        return self._popen.returncode

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, signal: int) -> None:
        """Send a signal. No error if the process has ended."""
        self._popen.send_signal(signal)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or None while the process runs."""
        return self._popen.returncode

    @property
    def stdin(self) -> ByteSendStream | None:
        """The stream to its standard input, if that is a pipe."""
        return self._stdin

    @property
    def stdout(self) -> ByteReceiveStream | None:
        """The stream from its standard output, if that is a pipe."""
        return self._stdout

    @property
    def stderr(self) -> ByteReceiveStream | None:
        """The stream from its standard error, if that is a pipe."""
        return self._stderr


def start(
    netns: int,
    command: str | Sequence[str],
    files: Mapping[str, str],
    options: Mapping[str, Any],
) -> subprocess.Popen[bytes]:
    """Start a process in a network namespace. Blocks; any thread may call it.

    :param netns: file descriptor of the namespace
    :param command: a program and its arguments, or a line for the shell
    :param files: paths that the process sees, to the files that stand in for them
    :param options: further arguments of :class:`subprocess.Popen`
    :raises OSError: if the program cannot be started
    :raises KernelError: if the namespaces cannot be entered or made
    """

    def body() -> subprocess.Popen[bytes]:
        namespaces.enter(netns)
        namespaces.unshare(namespaces.CLONE_NEWNS, "make a mount namespace")
        namespaces.mount("none", "/", flags=namespaces.MS_REC | namespaces.MS_PRIVATE)
        _show_devices()
        for path, source in files.items():
            # a link such as /etc/resolv.conf -> /run/...: what it points to
            if os.path.exists(path):
                namespaces.mount(
                    source, os.path.realpath(path), flags=namespaces.MS_BIND
                )
        popen = subprocess.Popen(command, shell=isinstance(command, str), **options)
        return cast("subprocess.Popen[bytes]", popen)

    return _in_thread(body)


def _show_devices() -> None:
    """Have /sys show the devices of the thread's network namespace."""
    try:
        namespaces.mount("sysfs", "/sys", "sysfs")
    except KernelError as exc:
        if exc.errno != errno.EBUSY:  # it shows those of this namespace already
            raise


def _in_thread(
    body: Callable[[], subprocess.Popen[bytes]],
) -> subprocess.Popen[bytes]:
    """Run a function in a thread that ends with it, and so need not come home."""
    outcome: list[subprocess.Popen[bytes] | BaseException] = []

    def run() -> None:
        try:
            outcome.append(body())
        except BaseException as exc:
            outcome.append(exc)

    thread = threading.Thread(target=run, name="cnm-process")
    thread.start()
    thread.join()
    result = outcome.pop()
    if isinstance(result, BaseException):
        raise result
    return result
