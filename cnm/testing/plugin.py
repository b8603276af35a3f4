"""A pytest plugin: ``pytest_plugins = ["cnm.testing.plugin"]`` in a conftest.py.

The tests have a host network of their own, made before the first of them. With
``--cnm-network-driver NAME`` or ``--cnm-ipam-driver NAME`` there are further tests:
whether a driver that is installed keeps to the contract.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import pytest

import cnm
from cnm.driver import IPAMDriver, NetworkDriver
from cnm.linux import namespaces
from cnm.plugins import GROUPS

from . import private_host
from .conformance import ConformanceError, check_ipam_driver, check_network_driver
from .fakes import FakeDriver
from .machines import Machine

#: Options, and what they have checked.
_CHECKS: dict[str, tuple[type, Callable[[Callable[[], object]], Awaitable[None]]]] = {
    "--cnm-network-driver": (NetworkDriver, check_network_driver),
    "--cnm-ipam-driver": (IPAMDriver, check_ipam_driver),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that name drivers."""
    group = parser.getgroup("cnm")
    for option in _CHECKS:
        text = "check that a driver that is installed keeps to the contract"
        group.addoption(option, action="append", default=[], metavar="NAME", help=text)


def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add a test of each driver that is named, for each backend there is."""
    for option, (kind, check) in _CHECKS.items():
        for name in config.getoption(option) or ():
            entries = entry_points(group=GROUPS[kind], name=name)
            if not entries:
                raise pytest.UsageError(f"{option}: no driver {name!r} is installed")
            (entry, *_) = entries
            for backend in ("asyncio", "trio"):
                if find_spec(backend):
                    work = partial(_check, check, entry, backend)
                    title = f"{option}={name}[{backend}]"
                    items.append(_Check.from_parent(session, name=title, work=work))


def _check(
    check: Callable[[Callable[[], object]], Awaitable[None]], entry: Any, backend: str
) -> None:
    anyio.run(check, entry.load(), backend=backend)


class _Check(pytest.Item):
    """A test of a driver."""

    def __init__(self, *, work: Callable[[], None], **more: Any) -> None:
        super().__init__(**more)
        self._work = work

    def runtest(self) -> None:
        """Check the driver."""
        self._work()

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None
    ) -> Any:
        """Say what the driver's author is to do, and nothing else."""
        if isinstance(excinfo.value, ConformanceError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Tell the name under which it is reported."""
        return self.path, None, self.name


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
def cnm_fake_driver() -> FakeDriver:
    """The driver ``"fake"`` of ``cnm_controller``: it notes what it is told."""
    return FakeDriver()


@pytest.fixture
async def cnm_controller(
    cnm_store: cnm.MemoryStore, cnm_fake_driver: FakeDriver
) -> AsyncIterator[cnm.Controller]:
    """A running controller, which removes all that it has made."""
    async with cnm.Controller(
        "test", store=cnm_store, drivers={"fake": cnm_fake_driver}
    ) as controller:
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
