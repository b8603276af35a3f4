"""Having connections be forgotten, in the background.

Going through the table of connections takes the kernel some milliseconds, however few
there are: nobody waits for that, what comes together is done together, and it takes no
more than a small part of a processor's time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

import anyio

from ..errors import KernelError
from .conntrack import forget
from .kernel import Kernel, Sockets

if TYPE_CHECKING:
    from ..types import IPAddress, PortBinding, PortRequest, Proto

#: protocol, address of the host, port
Port: TypeAlias = "tuple[Proto, IPAddress | None, int]"

#: How many times as long as it takes is waited before the next time, and how many
#: seconds at most.
_PAUSE = 20
_LONGEST_PAUSE = 1.0

_logger = logging.getLogger(__name__)


def forget_now(
    sockets: Sockets, addresses: Iterable[IPAddress], ports: Iterable[Port]
) -> None:
    """Plan: forget what comes from addresses or goes to them, and to ports.

    A failure is logged: what is left ends by itself.
    """
    try:
        forget(sockets, addresses, ports)
    except KernelError:
        _logger.warning("connections could not be forgotten", exc_info=True)


class Forgetter:
    """Has the connections of addresses and ports be forgotten soon.

    Who uses one of them anew waits until that has been done, with :meth:`settle` and
    :meth:`settle_ports`: the next owner's connections would be forgotten, too.

    :param delay: seconds to wait for further ones, at least
    """

    def __init__(self, kernel: Kernel, *, delay: float = 0.1) -> None:
        self._kernel = kernel
        self._delay = delay
        self._wanted = anyio.Event()
        self._flushing = threading.Lock()
        # what waits, and what is under way; guarded by a lock that is never held long
        self._guard = threading.Lock()
        self._addresses: set[IPAddress] = set()
        self._ports: dict[tuple[Proto, int], set[IPAddress | None]] = {}

    def addresses(self, addresses: Iterable[IPAddress]) -> None:
        """Forget what comes from addresses, and what goes to them."""
        with self._guard:
            self._addresses.update(addresses)
        self._wanted.set()

    def ports(self, ports: Iterable[Port]) -> None:
        """Note that what was sent to ports is to be forgotten.

        It may be called in any thread; :meth:`soon` has it be done.
        """
        with self._guard:
            for proto, address, port in ports:
                self._ports.setdefault((proto, port), set()).add(address)

    def soon(self) -> None:
        """Forget soon what has been noted."""
        if self._ports:
            self._wanted.set()

    async def settle(self, addresses: Iterable[IPAddress]) -> None:
        """Return when nothing of some addresses is to be forgotten any more."""
        if not self._addresses.isdisjoint(addresses):
            await self.flush()

    async def settle_ports(
        self, requests: Iterable[PortRequest], former: Iterable[PortBinding] = ()
    ) -> None:
        """Return when nothing of ports that are asked for is to be forgotten any more.

        Whoever asks for one of several is to be given none of :attr:`busy`.

        :param former: bindings whose ports are preferred
        """
        if not self._ports:
            return
        wanted = {(it.proto, it.host_port) for it in requests if not it.host_port_end}
        wanted |= {(it.proto, it.host_port) for it in former}
        if not wanted.isdisjoint(self._ports):
            await self.flush()

    @property
    def busy(self) -> frozenset[tuple[Proto, int]]:
        """Ports of which something is still to be forgotten."""
        with self._guard:
            return frozenset(self._ports)

    async def run(self) -> None:
        """Forget when there is something to forget, until cancelled."""
        pause = self._delay
        while True:
            await self._wanted.wait()
            await anyio.sleep(pause)
            self._wanted = anyio.Event()
            began = time.monotonic()
            await self.flush()
            took = time.monotonic() - began
            pause = min(max(self._delay, took * _PAUSE), _LONGEST_PAUSE)

    async def flush(self) -> None:
        """Forget now."""
        if self._addresses or self._ports:
            await self._kernel.run(self.flush_now)

    def flush_now(self, sockets: Sockets) -> None:
        """Plan: forget now."""
        with self._flushing:
            with self._guard:
                addresses = frozenset(self._addresses)
                ports: list[Port] = [
                    (proto, address, port)
                    for (proto, port), found in self._ports.items()
                    for address in found
                ]
            if addresses or ports:
                forget_now(sockets, addresses, ports)
            with self._guard:
                self._addresses -= addresses
                for proto, address, port in ports:
                    found = self._ports[proto, port]
                    found.remove(address)
                    if not found:
                        del self._ports[proto, port]
