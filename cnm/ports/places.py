"""Where ports of the host are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from ..types import IPAddress, PortBinding, Proto


class HostPort(NamedTuple):
    """A port of the host at one of its addresses, or at all of a family.

    :ivar address: the address; ``0.0.0.0`` and ``::`` stand for all of the family
    """

    address: IPAddress
    proto: Proto
    port: int

    def __str__(self) -> str:
        address = f"[{self.address}]" if self.address.version == 6 else self.address
        return f"{address}:{self.port}/{self.proto}"

    @property
    def described(self) -> str:
        """The port in a sentence."""
        return f"port {self.port}/{self.proto} of {self.address}"


#: The ports that one socket holds: one, or the same one in both families.
Places: TypeAlias = tuple[HostPort, ...]


def host_port(binding: PortBinding) -> HostPort:
    """Return the port of the host that a binding takes."""
    return HostPort(binding.host_address, binding.proto, binding.host_port)


def are_both_families(places: Places) -> bool:
    """Tell whether these are all addresses of IPv4, and then all of IPv6.

    Sockets of TCP and UDP can hold such a port in both families at once.
    """
    return (
        len(places) == 2
        and places[0].proto in ("tcp", "udp")
        and [(it.address.version, it.address.is_unspecified) for it in places]
        == [(4, True), (6, True)]
    )
