"""Two networks, and the host's name server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cnm.dns import resolvconf

from .ask import NameServer

HOST_SERVER = "127.0.0.53"


@pytest.fixture
def host_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file that stands in for the host's /etc/resolv.conf."""
    path = tmp_path / "host-resolv.conf"
    path.write_text(f"nameserver {HOST_SERVER}\n", encoding="utf-8")
    monkeypatch.setattr(resolvconf, "HOST_FILE", str(path))
    return path


@pytest.fixture
def upstream(host_file: Path) -> Iterator[NameServer]:
    """The name server that the host's file names."""
    with NameServer(None, HOST_SERVER) as server:
        yield server
