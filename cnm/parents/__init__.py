"""What drivers share whose endpoints are links on top of a parent link.

Such a driver subclasses :class:`ParentDriver`, and says what its options are and how
its links are made.
"""

from .driver import NewLink, ParentDriver
from .options import ParentOptions
from .sharing import Sharing, Use

__all__ = [
    "NewLink",
    "ParentDriver",
    "ParentOptions",
    "Sharing",
    "Use",
]
