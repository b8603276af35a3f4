"""A machine outside: a namespace with a line to the host."""

from __future__ import annotations

import os
import threading
from ipaddress import ip_interface, ip_network

from cnm.linux import (
    NetlinkSocket,
    add_address,
    add_route,
    add_veth,
    choose_index,
    namespaces,
    set_link,
)

HOST, OUTSIDE = "203.0.113.1", "203.0.113.2"
_EVERYTHING = ip_network("0.0.0.0/0")


def connect(path: str, host: str = namespaces.OWN) -> None:
    """Make a machine outside, whose namespace is at a path, and connect the host to it.

    :param host: path of the host's namespace
    """
    failures: list[BaseException] = []

    def work() -> None:
        try:
            _connect(path, host)
        except BaseException as exc:
            failures.append(exc)

    # the thread ends in whatever namespace it is
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _connect(path: str, host: str) -> None:
    home = namespaces.open_namespace(host)
    index, peer = choose_index(), choose_index()
    inside = namespaces.create(path, home, NetlinkSocket)
    outside = namespaces.open_namespace(path)
    with inside, NetlinkSocket() as route:
        route.call(
            add_veth("up0", "eth0", index=index, peer_index=peer, peer_netns=outside),
            add_address(index, ip_interface(f"{HOST}/24")),
            set_link(index, up=True),
        )
        inside.call(
            add_address(peer, ip_interface(f"{OUTSIDE}/24")),
            set_link(peer, up=True),
            add_route(_EVERYTHING, via=ip_interface(HOST).ip, index=peer),
        )
    os.close(outside)
    os.close(home)
