"""Network namespaces that are made in advance."""

from __future__ import annotations

import logging
import os
import threading

from ..errors import KernelError
from . import namespaces
from .procfs import ProcFS
from .sandboxes import SandboxSockets, make_sandbox

_NICE = 10
#: Seconds from when one is taken until the next is made: whoever has taken it goes on
#: first, and needs the same locks.
_REST = 0.01
_logger = logging.getLogger(__name__)


class Ready:
    """Keeps network namespaces ready, which a thread of its own makes.

    The kernel takes 0.6 ms to make one, more than for anything else in a join. None is
    made before the first is asked for. From then on one is kept ready, and twice as
    many whenever that has not been enough. Those that have been taken are replaced a
    little later, when whoever has taken one is through with the kernel.

    Nothing is left of them when the process ends: nobody but its file descriptors keeps
    them alive.

    :param home: file descriptor of the namespace in which the thread lives
    :param limit: how many may be ready; 0 for none, and no thread
    """

    def __init__(self, home: int, limit: int) -> None:
        self._home = home
        self._limit = limit
        self._wanted = 0
        self._spare: list[SandboxSockets] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def take(self) -> SandboxSockets | None:
        """Return one, for the caller to close; None if there is none at the moment."""
        if not self._limit:
            return None
        with self._changed:
            spare = self._spare.pop() if self._spare else None
            if spare is None:
                self._wanted = min(self._wanted * 2 or 1, self._limit)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._fill, name="cnm-ready", daemon=True
                )
                self._thread.start()
            self._changed.notify()
        return spare

    def close(self) -> None:
        """Let go of all that are ready; there are no further ones. Blocks."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify()
        if thread is not None:
            thread.join()
        while self._spare:
            self._spare.pop().close()

    def _fill(self) -> None:
        procfs = ProcFS()
        try:
            namespaces.enter(self._home)
            # whoever needs one now goes first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
            while self._is_needed():
                while self._are_too_few:
                    made = make_sandbox(self._home, procfs)
                    with self._changed:
                        self._spare.append(made)
        except KernelError as exc:
            # whoever needs one makes it, and is told why that is not possible
            _logger.warning("no network namespaces are kept ready: %s", exc)
        finally:
            procfs.close()
            with self._changed:
                self._thread, self._wanted = None, 0

    @property
    def _are_too_few(self) -> bool:
        return len(self._spare) < self._wanted and not self._closed

    def _is_needed(self) -> bool:
        """Wait until there are too few; return False when no more are to be made."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._are_too_few)
            self._changed.wait_for(lambda: self._closed, _REST)
            return not self._closed
