"""Network namespaces for peers that want to be given one.

They are made as cheaply as can be, in this process; that is counted as theirs.
"""

from __future__ import annotations

import os

from cnm.linux import NetlinkSocket, namespaces, set_link

_DIRECTORY = "/run/netns"


class Namespace:
    """A namespace at a path, with its loopback up.

    :ivar path: the path
    """

    def __init__(self, name: str) -> None:
        os.makedirs(_DIRECTORY, exist_ok=True)
        self.path = f"{_DIRECTORY}/{name}"

    def make(self) -> None:
        home = namespaces.open_namespace(namespaces.OWN)
        try:
            namespaces.unshare(namespaces.CLONE_NEWNET)
            namespaces.pin(namespaces.OWN, self.path)
            with NetlinkSocket() as route:
                route.call(set_link(1, up=True))
            namespaces.enter(home)
        finally:
            os.close(home)

    def remove(self) -> None:
        namespaces.unpin(self.path)
