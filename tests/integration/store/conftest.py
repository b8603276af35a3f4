"""Stores on disks that fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cnm import Controller
from cnm.lifecycle import remove_table
from tests.integration.system_calls import Faults

from .disk import Disk, mounted


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "s.db"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of half a megabyte."""
    with mounted(tmp_path / "disk") as made:
        yield made


@pytest.fixture
def faults() -> Iterator[Faults]:
    """Faults of writing."""
    with Faults() as made:
        yield made


async def forget_table(controller: Controller) -> None:
    """Remove what stays with a persistent controller even if it has no networks."""
    services = controller._services
    await services.kernel.run(remove_table, services)
