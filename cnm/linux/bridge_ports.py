"""How bridges treat their ports.

Constants: include/uapi/linux/if_link.h, IFLA_BRPORT_...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .links import IFLA_LINKINFO, RTM_NEWLINK
from .netlink import Request
from .wire import LINK, attributes, nested, number, string, u8

if TYPE_CHECKING:
    from .netlink import Message

_IFLA_INFO_SLAVE_KIND = 4
_IFLA_INFO_SLAVE_DATA = 5
_IFLA_BRPORT_MODE = 4
_IFLA_BRPORT_ISOLATED = 33


@dataclass(frozen=True, kw_only=True, slots=True)
class BridgePort:
    """How a bridge treats a port.

    :ivar isolated: whether it exchanges nothing with other isolated ports
    :ivar hairpin: whether frames may leave by the port they came in by
    """

    isolated: bool = False
    hairpin: bool = False


def parse_bridge_port(message: Message) -> BridgePort:
    """Return how the bridge treats the link that a message of RTM_NEWLINK describes."""
    info = attributes(attributes(message.body, LINK.size).get(IFLA_LINKINFO, b""))
    found = attributes(info.get(_IFLA_INFO_SLAVE_DATA, b""))
    return BridgePort(
        isolated=bool(number(found.get(_IFLA_BRPORT_ISOLATED))),
        hairpin=bool(number(found.get(_IFLA_BRPORT_MODE))),
    )


def set_bridge_port(
    index: int, *, isolated: bool | None = None, hairpin: bool | None = None
) -> Request:
    """Change a port of a bridge.

    :param isolated: whether it exchanges nothing with other isolated ports
    :param hairpin: whether frames may leave by the port they came in by
    """
    data = b""
    if hairpin is not None:
        data += u8(_IFLA_BRPORT_MODE, hairpin)
    if isolated is not None:
        data += u8(_IFLA_BRPORT_ISOLATED, isolated)
    body = LINK.pack(0, 0, index, 0, 0) + nested(
        IFLA_LINKINFO,
        string(_IFLA_INFO_SLAVE_KIND, "bridge"),
        nested(_IFLA_INFO_SLAVE_DATA, data),
    )
    return Request(RTM_NEWLINK, 0, body, f"set bridge port {index}")
