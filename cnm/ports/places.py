"""Where ports of the host are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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


def host_port(binding: PortBinding) -> HostPort:
    """Return the port of the host that a binding takes."""
    return HostPort(binding.host_address, binding.proto, binding.host_port)


def overlap(one: IPAddress, other: IPAddress) -> bool:
    """Tell whether a port cannot be taken at both of two addresses of the host."""
    if one.version != other.version:
        return False
    return one == other or one.is_unspecified or other.is_unspecified
