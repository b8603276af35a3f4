"""Names: the resolvers of sandboxes, and their /etc/resolv.conf and /etc/hosts."""

from .files import FILES, Files
from .names import Names, open_names
from .policy import Answered, NamePolicy
from .preparation import Preparation
from .resolvconf import Overrides, ResolvConf, name_servers
from .situation import Situation
from .sockets import undo_redirection
from .statistics import NameStatistics

__all__ = [
    "Answered",
    "FILES",
    "Files",
    "NamePolicy",
    "NameStatistics",
    "Names",
    "Overrides",
    "Preparation",
    "ResolvConf",
    "Situation",
    "name_servers",
    "open_names",
    "undo_redirection",
]
