"""Networks without links: the host's own network, and none at all."""

from .host import HostDriver
from .null import NullDriver

__all__ = ["HostDriver", "NullDriver"]
