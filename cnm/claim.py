"""A controller's claim to its name on a host network, and to what it has made there."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import tempfile
from contextlib import suppress

from .errors import ConflictError, KernelError, StoreError
from .linux import (
    Kernel,
    Sockets,
    choose_id,
    dump_links,
    namespaces,
    parse_link,
)
from .records import CONTROLLER
from .settings import Settings
from .store import Put, Store

#: The record that tells a store from others.
_IDENTITY = f"{CONTROLLER}identity"
_logger = logging.getLogger(__name__)


def _default_run_dir() -> str:
    if os.access("/run", os.W_OK):
        return "/run/cnm"
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return f"{base}/cnm"
    base = f"{tempfile.gettempdir()}/cnm-{os.getuid()}"
    os.makedirs(base, mode=0o700, exist_ok=True)
    status = os.lstat(base)
    # anybody may have made it, in a directory that all can write to
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise KernelError(errno.EPERM, f"use {base}", "it belongs to somebody else")
    return base


def claim(settings: Settings) -> tuple[str, int]:
    """Make the controller's directory and lock it. Blocks.

    :return: the directory, and the file descriptor that holds the lock
    """
    home = settings.netns or "/proc/self/ns/net"
    try:
        device, inode = namespaces.identity(home)
    except OSError as exc:
        raise KernelError(
            exc.errno or errno.EIO, f"open the network namespace {home}"
        ) from exc
    base = settings.run_dir or _default_run_dir()
    # one directory for each name on each host network
    directory = f"{base}/{settings.name}-{device:x}.{inode:x}"
    while True:
        lock = _lock(directory, settings.name)
        # whoever stopped meanwhile has removed the file that is locked here
        if _is_same_file(lock, f"{directory}/lock"):
            return directory, lock
        os.close(lock)


def _is_same_file(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(directory: str, name: str) -> int:
    try:
        for part in ("netns", "files"):
            os.makedirs(f"{directory}/{part}", mode=0o755, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        lock = os.open(f"{directory}/lock", flags, 0o600)
    except OSError as exc:
        raise KernelError(exc.errno or errno.EIO, f"make {directory}") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ConflictError(
            f"a controller named {name!r} runs on this host network already"
        ) from None
    return lock


def unclaim(directory: str, lock: int) -> None:
    """Unlock the controller's directory, and remove it if there is nothing in it."""
    try:
        os.rmdir(f"{directory}/netns")
        os.rmdir(f"{directory}/files")
        os.unlink(f"{directory}/lock")
        os.rmdir(directory)
    except OSError as exc:
        _logger.debug("%s stays: %s", directory, exc)
    finally:
        os.close(lock)


async def recognise(settings: Settings, directory: str, kernel: Kernel) -> None:
    """Make sure that a store knows of what the controller has made on the host.

    A store that is empty because another one got lost, or is elsewhere, would have all
    of it swept away.

    :raises StoreError: if something lives that is recorded in another store
    """
    identity = await _identity(settings.store)
    known = await kernel.run(lambda sockets: _read(directory))
    if known not in ("", identity) and await kernel.run(_lives, settings, directory):
        raise StoreError(
            f"controller {settings.name!r} has left networks or sandboxes on this host,"
            " and another store has the records of them: start it with that store, or"
            f" delete {directory}/store to have them removed"
        )
    if known != identity:  # nothing is to be written where there may be no room
        await kernel.run(lambda sockets: _write(directory, identity))


def disown(directory: str) -> None:
    """Note that nothing is left of what a store has the records of. Blocks."""
    with suppress(FileNotFoundError):
        os.unlink(f"{directory}/store")


async def _identity(store: Store) -> str:
    """Return what tells a store from others; nothing if it does not persist."""
    if not store.persistent:
        return ""
    if record := await store.get(_IDENTITY):
        return str(record.value["id"])
    identity = choose_id()
    await store.transaction(Put(_IDENTITY, {"id": identity}, durable=True))
    return identity


def _read(directory: str) -> str:
    try:
        with open(f"{directory}/store", encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write(directory: str, identity: str) -> None:
    if not identity:
        disown(directory)
    else:
        try:
            # whole, or not at all
            with open(f"{directory}/store.new", "w", encoding="ascii") as file:
                file.write(identity)
            os.rename(f"{directory}/store.new", f"{directory}/store")
        except OSError as exc:
            what = f"write {directory}/store"
            raise KernelError(exc.errno or errno.EIO, what) from exc


def _lives(sockets: Sockets, settings: Settings, directory: str) -> bool:
    """Plan: tell whether there is anything that carries the controller's mark."""
    mark = f"cnm:{settings.name}:"
    links = map(parse_link, sockets.route.dump(dump_links()))
    return bool(os.listdir(f"{directory}/netns")) or any(
        link.alias.startswith(mark) for link in links
    )
