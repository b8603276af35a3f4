"""A pytest plugin: ``pytest_plugins = ["cnm.testing.plugin"]`` in a conftest.py.

The tests have a host network of their own, made before the first of them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import cnm
from cnm.linux import namespaces

from . import private_host
from .machines import Machine


def pytest_configure(config: pytest.Config) -> None:
    """Leave the machine's network alone."""
    if uid := os.getuid():
        # root in its user namespace, and yet not the owner of root's directory
        root = os.path.join(tempfile.gettempdir(), f"cnm-tests-{uid}")
        os.makedirs(root, mode=0o700, exist_ok=True)
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", root)
    private_host()


@pytest.fixture
def cnm_store() -> cnm.MemoryStore:
    """A store that is gone with the test."""
    return cnm.MemoryStore()


@pytest.fixture
async def cnm_controller(cnm_store: cnm.MemoryStore) -> AsyncIterator[cnm.Controller]:
    """A running controller, which removes all that it has made."""
    async with cnm.Controller("test", store=cnm_store) as controller:
        yield controller


@pytest.fixture
async def cnm_sandbox(cnm_controller: cnm.Controller) -> cnm.Sandbox:
    """A sandbox of ``cnm_controller``, in no network yet."""
    return await cnm_controller.create_sandbox("box")


@pytest.fixture
def cnm_host(tmp_path: Path) -> Iterator[str]:
    """Another host, for ``Controller(netns=)``: the path of its network namespace."""
    path = str(tmp_path / "host")
    with Machine() as machine:
        machine.run(lambda: namespaces.pin(namespaces.OWN, path))
        yield path
        namespaces.unpin(path)


@pytest.fixture
def cnm_outside() -> Iterator[Machine]:
    """A machine that the host reaches by a link, and that knows nobody but the host."""
    with Machine("203.0.113.2/24", "2001:db8::2/64") as machine:
        machine.connect("uplink", "203.0.113.1/24", "2001:db8::1/64")
        yield machine
