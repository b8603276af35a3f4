"""Names: what a sandbox finds in its /etc/resolv.conf and /etc/hosts."""

from .hosts import hosts_file as hosts_file
from .resolvconf import ResolvConf as ResolvConf
from .resolvconf import name_servers as name_servers
