"""Tools for tests and demonstrations."""

from __future__ import annotations

import os

from ..linux import NetlinkSocket, namespaces, set_link


def private_host() -> None:
    """Give the process a host network of its own; the machine's is out of reach then.

    The process gets new network and mount namespaces, and a new user namespace if it is
    not root's; /run is empty and /sys shows the new network. The process must have one
    thread only.

    :raises KernelError: if the system does not allow it
    """
    uid, gid = os.getuid(), os.getgid()
    flags = namespaces.CLONE_NEWNET | namespaces.CLONE_NEWNS
    if uid:
        namespaces.unshare(flags | namespaces.CLONE_NEWUSER, "make a user namespace")
        # user_namespaces(7): setgroups has to be denied before gid_map may be written
        for name, content in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {uid} 1"),
            ("gid_map", f"0 {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(content)
    else:
        namespaces.unshare(flags, "make network and mount namespaces")
    namespaces.mount("none", "/", flags=namespaces.MS_REC | namespaces.MS_PRIVATE)
    namespaces.mount("tmpfs", "/run", "tmpfs")
    namespaces.mount("sysfs", "/sys", "sysfs")
    with NetlinkSocket() as route:
        route.call(set_link(1, up=True))
