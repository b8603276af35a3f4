"""Which bridge names and subnets are taken by bridge networks."""

from __future__ import annotations

from bisect import bisect_left, insort

from cnm.driver import ForbiddenError, IPNetwork, NetworkInfo


class Taken:
    """The names and subnets of a driver's networks. A look-up does not walk them all.

    Subnets never overlap here, so that at most the neighbours of one can conflict
    with it.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._blocks: dict[int, list[tuple[int, int, str]]] = {4: [], 6: []}

    def add(self, network: NetworkInfo, bridge: str) -> None:
        """Take the name and the subnets of a network; it may have them already.

        :raises ForbiddenError: if another network has one of them
        """
        other = self._names.get(bridge)
        if other == network.name:
            return
        if other:
            raise _conflict(network, bridge, other, "networks have same bridge name")
        for subnet in network.subnets:
            if other := self._overlapping(subnet):
                reason = f"networks have overlapping IPv{subnet.version}"
                raise _conflict(network, bridge, other, reason)
        self._names[bridge] = network.name
        for subnet in network.subnets:
            insort(self._blocks[subnet.version], _block(subnet, network.name))

    def remove(self, network: NetworkInfo, bridge: str) -> None:
        """Let go of what a network has taken. No error if it has not."""
        if self._names.get(bridge) != network.name:
            return
        del self._names[bridge]
        for subnet in network.subnets:
            blocks = self._blocks[subnet.version]
            del blocks[bisect_left(blocks, _block(subnet, network.name))]

    def _overlapping(self, subnet: IPNetwork) -> str:
        first, last, _ = _block(subnet, "")
        blocks = self._blocks[subnet.version]
        after = bisect_left(blocks, (first,))
        if after < len(blocks) and blocks[after][0] <= last:
            return blocks[after][2]
        if after and blocks[after - 1][1] >= first:
            return blocks[after - 1][2]
        return ""


def _block(subnet: IPNetwork, name: str) -> tuple[int, int, str]:
    return int(subnet.network_address), int(subnet.broadcast_address), name


def _conflict(
    network: NetworkInfo, bridge: str, other: str, reason: str
) -> ForbiddenError:
    return ForbiddenError(
        f"cannot create network {network.id[:12]} ({bridge}): conflicts with network "
        f"{other!r}: {reason}"
    )
