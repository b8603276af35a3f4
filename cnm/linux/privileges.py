"""What the process is allowed to do."""

from __future__ import annotations

import errno

from ..errors import MissingCapability

# include/uapi/linux/capability.h
_NEEDED = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}


def effective_capabilities() -> int:
    """Return the effective capabilities of the process, as a bit mask."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def require_capabilities(what: str) -> None:
    """Refuse to go on without the capabilities that networking needs.

    :param what: what they are needed for
    :raises MissingCapability: naming those that are missing
    """
    have = effective_capabilities()
    missing = [name for name, bit in _NEEDED.items() if not have >> bit & 1]
    if missing:
        raise MissingCapability(errno.EPERM, what, " and ".join(missing))
