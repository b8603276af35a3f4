"""Kernel settings of the calling thread's network namespace.

Writing costs 30 us, and more in namespaces of sandboxes, unless it is done by way of a
:class:`cnm.linux.ProcFS`; prefer a netlink attribute where there is one.
"""

from __future__ import annotations

import errno
import os

from ..errors import KernelError

#: Bytes of the longest value: reserved ports are a list of ranges.
_LONGEST = 1 << 16


def _path(name: str, proc: str) -> str:
    """Return the file of a setting; ``net.ipv4.conf.eth0/1.forwarding`` has no dots."""
    return f"{proc}/sys/" + name.replace(".", "\0").replace("/", ".").replace("\0", "/")


def write(name: str, value: str, proc: str = "/proc") -> None:
    """Set a value, e.g. ``write("net.ipv4.ip_forward", "1")``.

    A dot inside an interface's name is written as a slash, as sysctl(8) has it.

    :param proc: path of the procfs
    :raises KernelError: if there is no such setting, or the value is refused
    """
    try:
        descriptor = os.open(_path(name, proc), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise KernelError(exc.errno or errno.EIO, f"set {name} to {value}") from exc


def ignore_router_advertisements(link: str, proc: str = "/proc") -> None:
    """Have nobody who is on a link give the host routes or addresses (CVE-2020-13401).

    A kernel without IPv6 does not anyway.

    :param link: its name
    :param proc: path of the procfs
    :raises KernelError: if the value is refused
    """
    _write_ipv6(link, "accept_ra", "0", proc)


def disable_ipv6(link: str, proc: str = "/proc") -> None:
    """Have a link do without IPv6, as it does anyway if the kernel does.

    :param link: its name
    :param proc: path of the procfs
    :raises KernelError: if the value is refused
    """
    _write_ipv6(link, "disable_ipv6", "1", proc)


def _write_ipv6(link: str, setting: str, value: str, proc: str) -> None:
    own = link.replace(".", "/")
    try:
        write(f"net.ipv6.conf.{own}.{setting}", value, proc)
    except KernelError as exc:
        if exc.errno != errno.ENOENT:
            raise


def read(name: str, proc: str = "/proc") -> str:
    """Return a value, without the newline at its end.

    :param proc: path of the procfs
    :raises KernelError: if there is no such setting
    """
    descriptor = open_setting(name, proc)
    try:
        return read_again(descriptor, name)
    finally:
        os.close(descriptor)


def open_setting(name: str, proc: str = "/proc") -> int:
    """Return a file descriptor by which a value is read again and again.

    :param proc: path of the procfs
    :raises KernelError: if there is no such setting
    """
    try:
        return os.open(_path(name, proc), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise KernelError(exc.errno or errno.EIO, f"read {name}") from exc


def read_again(descriptor: int, name: str) -> str:
    """Return the present value of a setting that is open.

    :raises KernelError: if it cannot be read any more
    """
    try:
        return os.pread(descriptor, _LONGEST, 0).decode("ascii").strip()
    except OSError as exc:
        raise KernelError(exc.errno or errno.EIO, f"read {name}") from exc
