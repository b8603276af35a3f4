"""Removing what carries our mark, and belongs to nothing that we know."""

from __future__ import annotations

import logging
import os

from . import naming, sandbox_plans
from .errors import CNMError
from .findings import Findings
from .linux import (
    REAP_GROUP,
    REAP_SINGLY_GROUP,
    Link,
    Sockets,
    dump_links,
    parse_link,
)
from .linux.links import parse_alias
from .linux.reaper import delete_links
from .services import Services

_logger = logging.getLogger(__name__)


def sweep(sockets: Sockets, services: Services, findings: Findings) -> None:
    """Plan: remove namespaces, files and links of ours that no record has.

    Everything in the controller's own directory is ours, and so is a link whose alias
    is our mark; nothing is known by its name.
    """
    known = {sandbox.key for sandbox in services.sandboxes}
    directory = f"{services.run_dir}/netns"
    for name in os.listdir(directory):
        key = f"{directory}/{name}"
        if key in known:
            continue
        try:
            sockets.remove(key)
        except OSError as exc:  # others have put something there, or use it
            _logger.warning("%s belongs to nothing, and remains: %s", key, exc)
        else:
            findings.add(key, "swept", "no sandbox has the namespace")
    mine = {naming.directory(services, it.info) for it in services.sandboxes}
    for name in os.listdir(f"{services.run_dir}/files"):
        if (files := f"{services.run_dir}/files/{name}") not in mine:
            sandbox_plans.drop_files(sockets, files)
    strays = stray_links(sockets, services)
    for link in strays:
        if link.group not in (REAP_GROUP, REAP_SINGLY_GROUP):  # or it is known of
            findings.add(f"link {link.name}", "swept", "it belongs to nothing")
    try:
        delete_links(sockets, strays)
    except CNMError as exc:
        _logger.warning("links that belong to nothing remain: %s", exc)


def stray_links(sockets: Sockets, services: Services) -> list[Link]:
    """Plan: return the links of ours that belong to nothing."""
    found = []
    for message in sockets.route.dump(dump_links()):
        mark, _, identity = parse_alias(message).rpartition(":")
        if mark == services.mark and not services.has_link(identity):
            found.append(parse_link(message))
    return found
