"""Ports of the host that lead to sandboxes.

A driver says what it wants with a :class:`Publication`, and :class:`PortMapper` makes
it so: it takes ports of the host, has the firewall translate what arrives there, and
the :class:`Proxy` serve what the kernel cannot translate.
"""

from __future__ import annotations

from ..answers import PublishInfo
from ..requests.specs import conflicts, parse_exposed, parse_ports
from .mapper import PortMapper
from .proxy import Proxy
from .publication import Publication

__all__ = [
    "PortMapper",
    "Proxy",
    "Publication",
    "PublishInfo",
    "conflicts",
    "parse_exposed",
    "parse_ports",
]
