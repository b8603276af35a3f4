"""Machines of tests: network namespaces that stand for other computers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from ipaddress import ip_interface
from types import TracebackType
from typing import Self, TypeVar

from ..linux import (
    NetlinkSocket,
    add_address,
    add_veth,
    choose_index,
    delete_link,
    namespaces,
    set_link,
)
from ..linux.carrier import wait_for_carrier

T = TypeVar("T")


class Machine:
    """A network namespace that stands for another computer.

    :param addresses: its addresses, with the length of the prefix
    """

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses
        self._links: list[int] = []

    def __enter__(self) -> Self:
        self._netns = _in_thread(_new_namespace)
        self.run(lambda: _configure(1, ()))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        with NetlinkSocket() as route:
            for index in self._links:
                route.call(delete_link(index))
        os.close(self._netns)

    def connect(self, name: str, *addresses: str) -> None:
        """Have a link lead to it from the host network of the caller.

        :param name: name of the link
        :param addresses: the caller's addresses on it
        """
        index, peer = choose_index(), choose_index()
        with NetlinkSocket() as route:
            route.call(
                add_veth(
                    name,
                    "eth0",
                    index=index,
                    peer_index=peer,
                    peer_netns=self._netns,
                ),
                # nothing is forwarded to a link while its own address is on trial
                set_link(index, address_generation="none"),
                set_link(index, up=True),
                *(add_address(index, ip_interface(it)) for it in addresses),
            )
            self._links.append(index)
            self.run(lambda: _configure(peer, self._addresses))
            wait_for_carrier(route, index)

    def run(self, function: Callable[[], T]) -> T:
        """Run a function in a thread that is on the machine."""

        def inside() -> T:
            namespaces.enter(self._netns)
            return function()

        return _in_thread(inside)


def _new_namespace() -> int:
    namespaces.unshare(namespaces.CLONE_NEWNET, "make a network namespace")
    return namespaces.open_namespace(namespaces.OWN)


def _configure(index: int, addresses: tuple[str, ...]) -> None:
    with NetlinkSocket() as route:
        route.call(
            set_link(index, address_generation="none"),
            set_link(index, up=True),
            *(add_address(index, ip_interface(it)) for it in addresses),
        )


def _in_thread(function: Callable[[], T]) -> T:
    """Return what a function returns in a thread that ends with it."""
    results: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
