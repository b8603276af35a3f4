"""Making a sandbox's namespace, and removing it: blocking plans."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from .dns import FILES
from .errors import InvalidError, KernelError
from .events import LeaveInfo
from .interfaces import Visit, visit
from .linux import Sockets, namespaces


def make_sandbox(
    sockets: Sockets, key: str, netns: str | int | None, finish: Visit
) -> None:
    """Plan: make a sandbox's namespace, or pin one that is there; or change nothing.

    :param finish: what is done in it last
    """
    # there can be no other one yet at the path of a namespace that is made
    shared = netns is not None and os.path.exists(key)
    make_namespace(sockets, key, netns)
    try:
        visit(sockets, key, finish)
    except BaseException:
        if not shared:
            sockets.remove(key)
        raise


def make_namespace(sockets: Sockets, key: str, netns: str | int | None) -> None:
    """Plan: make a network namespace at a path, or pin one that is there.

    :param netns: None to make one, ``"host"`` for the controller's own, a pid, a path
    :raises InvalidError: if there is no such process or no such namespace
    """
    if netns is None:
        sockets.create(key)
        return
    if netns == "host":
        _share_home(sockets, key)
        return
    path = f"/proc/{netns}/ns/net" if isinstance(netns, int) else netns
    try:
        descriptor = namespaces.open_namespace(path)
    except KernelError as exc:
        what = f"process {netns}" if isinstance(netns, int) else f"path {netns!r}"
        raise InvalidError(
            f"netns: {what} has no network namespace: {exc.strerror}"
        ) from exc
    try:
        # by way of the descriptor: the process may end, its id be used again
        namespaces.pin(f"/proc/self/fd/{descriptor}", key)
    finally:
        os.close(descriptor)


def _share_home(sockets: Sockets, key: str) -> None:
    try:
        namespaces.pin(f"/proc/self/fd/{sockets.home}", key)
    except FileExistsError:
        return  # all sandboxes on the host share one key


def destroy(
    sockets: Sockets,
    key: str,
    first: Sequence[Callable[[Sockets], None]],
    left: Sequence[LeaveInfo | None],
    directory: str,
) -> None:
    """Plan: take all endpoints off their networks, and remove the sandbox.

    Their interfaces go with its namespace. Every step is tried.

    :param key: path of the namespace, or ``""`` if others still use it
    :param first: what is done before
    :param directory: directory of the sandbox's files
    """
    plans = [*first, *(info.plan for info in left if info and info.plan)]
    steps: list[Callable[[], object]] = [partial(plan, sockets) for plan in plans]
    if key:
        steps.append(partial(sockets.remove, key))
    steps.append(partial(drop_files, sockets, directory))
    failures: list[Exception] = []
    for step in steps:
        try:
            step()
        except Exception as exc:
            failures.append(exc)
    if failures:
        raise ExceptionGroup(f"removing the sandbox at {key}", failures)


def drop_files(sockets: Sockets, directory: str) -> None:
    """Plan: remove a sandbox's files."""
    try:
        for name in FILES:  # a third of the time that it takes to look for them
            with suppress(FileNotFoundError):
                os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
    except OSError:
        shutil.rmtree(directory, ignore_errors=True)


def drop_namespace(sockets: Sockets, key: str) -> None:
    """Plan: let go of the namespace at a path."""
    sockets.remove(key)
