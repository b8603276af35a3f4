"""The bridge ports of endpoints: veth pairs, and the blocking plans that make them."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from cnm.driver import (
    EndpointInfo,
    IPAddress,
    KernelError,
    NetlinkError,
    UnavailableError,
)
from cnm.linux import (
    REAP_GROUP,
    BridgePort,
    Placement,
    Request,
    Sockets,
    add_veth,
    choose_index,
    delete_neighbour,
    get_link,
    parse_link,
    set_bridge_port,
    set_link,
)
from cnm.options import MTU_LOW_IPV6


def host_interface(endpoint: EndpointInfo) -> str:
    """Return the name of the veth end that is the bridge's port."""
    return f"veth{endpoint.id[:11]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """A port of a bridge, and the endpoint behind it.

    :ivar name: the end at the bridge
    :ivar mark: alias by which it is known to be ours
    :ivar bridge: index of the bridge
    :ivar mac: MAC address of the end in the sandbox
    :ivar isolated: whether it reaches no other isolated port
    :ivar addresses: the endpoint's addresses
    """

    name: str
    mark: str
    bridge: int
    mac: str
    mtu: int
    isolated: bool
    addresses: tuple[IPAddress, ...]

    def plug(self, placement: Placement) -> tuple[int, int]:
        """Plan: make the veth pair; return the indexes of the port and the bridge.

        :raises UnavailableError: if the bridge has no room for another port
        """
        index = choose_index()
        requests = [
            add_veth(
                self.name,
                placement.interface,
                index=index,
                peer_index=placement.index,
                peer_netns=placement.netns,
                master=self.bridge,
                mtu=self.mtu,
                peer_mac=self.mac,
                up=False,
            )
        ]
        requests += self.settings(placement.sockets, index)
        try:
            placement.sockets.route.call(*requests)
        except NetlinkError as exc:
            if exc.errno == errno.EXFULL:  # net/bridge/br_private.h: BR_MAX_PORTS
                raise UnavailableError(
                    f"{self.name} cannot become a port: the bridge is full, as Linux "
                    "lets it have 1,023; connect others to another network"
                ) from exc
            if exc.errno != errno.EEXIST or not self._forget(placement.sockets):
                raise
            placement.sockets.route.call(*requests)
        return index, self.bridge

    def settings(
        self, sockets: Sockets, index: int, *, master: int | None = None
    ) -> list[Request]:
        """Return what makes a link the port that it should be.

        :param master: the bridge, if it is no port of it yet
        """
        requests = []
        if master is not None:
            # not up for a moment before it is isolated
            requests += [set_link(index, up=False), set_link(index, master=master)]
        wanted = self.treatment(sockets)
        if wanted != BridgePort():
            isolated, hairpin = wanted.isolated, wanted.hairpin
            requests.append(set_bridge_port(index, isolated=isolated, hairpin=hairpin))
        # A link-local address on the port would be of no use, and cost duplicate
        # address detection and multicast reports to every other port.
        # An MTU that is too small for IPv6 leaves nothing to configure.
        generation = None if 0 < self.mtu < MTU_LOW_IPV6 else "none"
        requests.append(
            set_link(index, alias=self.mark, address_generation=generation, up=True)
        )
        return requests

    def treatment(self, sockets: Sockets) -> BridgePort:
        """Return how the bridge has to treat the port, at least.

        The forward chain does not see what stays on the bridge. What br_netfilter
        translates there may have to go back to where it came from.
        """
        hairpin = _bridges_are_filtered(sockets)
        return BridgePort(isolated=self.isolated, hairpin=hairpin)

    def _forget(self, sockets: Sockets) -> bool:
        """Free the name, if a port that was unplugged is still to be reaped."""
        try:
            old = parse_link(sockets.route.call(get_link(name=self.name))[0])
            if old.group != REAP_GROUP:
                return False
            # without the mark, its end is not taken for that of the new one
            sockets.route.call(set_link(old.index, rename=f"cnm{old.index}", alias=""))
        except NetlinkError as exc:
            if exc.errno != errno.ENODEV:  # the reaper may come first
                raise
        return True

    def unplug(self, sockets: Sockets) -> None:
        """Plan: take the port off the network; the reaper deletes it.

        No error if it is gone. What the host knows of the addresses' owner is
        forgotten, so that the next one is reached at once.
        """
        try:
            sockets.route.call(
                *(delete_neighbour(self.bridge, address) for address in self.addresses),
                set_link(name=self.name, up=False, group=REAP_GROUP),
            )
        except NetlinkError as exc:
            if exc.errno != errno.ENODEV:
                raise


def _bridges_are_filtered(sockets: Sockets) -> bool:
    """Tell whether br_netfilter has the firewall see what stays on a bridge."""
    for name in ("iptables", "ip6tables"):
        try:
            if sockets.setting(f"net.bridge.bridge-nf-call-{name}") == "1":
                return True
        except KernelError as exc:
            if exc.errno != errno.ENOENT:
                raise
    return False
