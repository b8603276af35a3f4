"""Names: what a sandbox finds in its /etc/resolv.conf and /etc/hosts."""

from .hosts import hosts_file
from .resolvconf import ResolvConf, name_servers

__all__ = [
    "ResolvConf",
    "hosts_file",
    "name_servers",
]
