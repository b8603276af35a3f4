"""Network namespaces without fork: threads, setns(2) and bind mounts.

All of these functions block, and act on the calling thread. They belong into worker
threads: a main thread that is interrupted between entering a namespace and coming back
would go on in the wrong one.
"""

from __future__ import annotations

import ctypes
import errno
import os

from ..errors import KernelError, MissingCapability, MissingFeature

# include/uapi/linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
# include/uapi/linux/mount.h, include/linux/fs.h
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

#: What says that there is no namespace at a path; after other errors nobody can tell.
GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL})

#: The namespace of the calling thread (not of the process: /proc/self is the main
#: thread's).
OWN = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result == 0:
        return
    code = ctypes.get_errno()
    if code in (errno.EPERM, errno.EACCES):
        raise MissingCapability(code, what, "CAP_SYS_ADMIN")
    if code == errno.EINVAL and what == "make a network namespace":
        raise MissingFeature(code, what, "CONFIG_NET_NS")
    raise KernelError(code, what)


def unshare(flags: int, what: str = "make a network namespace") -> None:
    """Give the calling thread namespaces of its own."""
    _check(_libc.unshare(flags), what)


def enter(netns: int) -> None:
    """Move the calling thread into the network namespace of a file descriptor."""
    _check(_libc.setns(netns, CLONE_NEWNET), "enter a network namespace")


def mount(source: str, target: str, kind: str = "", flags: int = 0) -> None:
    """Mount a file system, or one path over another."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, flags, None
    )
    _check(result, f"mount {kind or source} on {target}")


def pin(source: str, path: str) -> None:
    """Make a namespace live on at a path, for as long as it is mounted there.

    :raises FileExistsError: if there is something at the path
    :raises KernelError: if it cannot be made or mounted
    """
    flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        os.close(os.open(path, flags, 0o444))
    except FileExistsError:
        raise
    except OSError as exc:
        raise KernelError(exc.errno or errno.EIO, f"make {path}") from exc
    try:
        mount(source, path, flags=MS_BIND)
    except BaseException:
        os.unlink(path)
        raise


def unpin(path: str) -> None:
    """Undo :func:`pin`. It is no error if there is nothing at the path."""
    if _libc.umount2(path.encode(), MNT_DETACH):
        code = ctypes.get_errno()
        # EINVAL: the file is there and nothing is mounted on it
        if code not in (errno.ENOENT, errno.EINVAL):
            _check(-1, f"unmount {path}")
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def open_namespace(path: str) -> int:
    """Return a file descriptor of the network namespace at a path.

    :raises KernelError: if there is none, or if it is something else
    """
    what = f"open the network namespace {path}"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise KernelError(exc.errno or errno.EIO, what) from exc
    # ioctl_ns(2): NS_GET_NSTYPE; anything but a namespace does not know it
    kind = _libc.ioctl(descriptor, 0xB703)
    if kind != CLONE_NEWNET:
        os.close(descriptor)
        raise KernelError(errno.EINVAL, what, "not a network namespace")
    return descriptor


def identity(path: str) -> tuple[int, int]:
    """Return what tells the namespace at a path from all others (device, inode)."""
    status = os.stat(path)
    return status.st_dev, status.st_ino
