"""One nftables table per controller: fixed rules, and all state in sets and maps.

Whatever is added to or taken from a controller (a network, a published port) is a few
:class:`Element` objects for :meth:`Firewall.update`.
"""

from __future__ import annotations

from ..linux.nftables import Element
from .foreign import Obstacle, admit, dismiss, obstacles
from .forwarding import adopt_forwarding, close_forwarding, open_forwarding
from .network import Mode, NetworkRules
from .table import Firewall, NftSockets, table_name, tables
from .unseen import forget_unseen

__all__ = [
    "Element",
    "Firewall",
    "Mode",
    "NetworkRules",
    "NftSockets",
    "Obstacle",
    "admit",
    "adopt_forwarding",
    "close_forwarding",
    "dismiss",
    "forget_unseen",
    "obstacles",
    "open_forwarding",
    "table_name",
    "tables",
]
