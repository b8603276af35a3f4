"""The pytest plugin for other packages' tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CONFTEST = """
import pytest
pytest_plugins = ["cnm.testing.plugin"]

@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param
"""
TESTS = """
import socket
import anyio, cnm, pytest

pytestmark = pytest.mark.anyio

async def test_outside(cnm_controller, cnm_sandbox, cnm_outside):
    network = await cnm_controller.create_network("front")
    await network.connect(cnm_sandbox)
    server = cnm_outside.run(lambda: socket.create_server(("", 80)))
    with server:
        async with await cnm_sandbox.connect_tcp("203.0.113.2", 80):
            pass

async def test_two_hosts(cnm_controller, cnm_host, cnm_store):
    async with cnm.Controller("test", netns=cnm_host) as other:
        for controller in (cnm_controller, other):
            await controller.create_network("front", subnets=["10.9.0.0/24"])

async def test_a_fake(cnm_controller, cnm_sandbox, cnm_fake_driver):
    cnm_fake_driver.fail["endpoint.joined"] = OSError("no cable")
    network = await cnm_controller.create_network("n", "fake")
    with pytest.raises(cnm.DriverError, match="no cable"):
        await network.connect(cnm_sandbox)
    await network.delete()
    assert cnm_fake_driver.calls[-1] == "network.deleted"
"""


ENTRY_POINTS = """
[cnm.network_drivers]
halved = tests.drivers.broken:LeavesTheBridge
[cnm.ipam_drivers]
twice = tests.drivers.broken:GivesTwice
"""


def run(folder: Path, *options: str) -> tuple[int, str]:
    """Run pytest in a folder, whose packages are found; return what it says."""
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, *options],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parents[2]}",
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_its_fixtures(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    code, said = run(tmp_path)
    assert code == 0, said
    assert "6 passed" in said


def test_drivers_that_are_installed(tmp_path: Path) -> None:
    package = tmp_path / "broken-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: broken\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(ENTRY_POINTS)
    plugin = ["-p", "cnm.testing.plugin"]
    code, said = run(tmp_path, *plugin, "--cnm-ipam-driver=default")
    assert (code, "2 passed" in said) == (0, True), said
    code, said = run(
        tmp_path,
        *plugin,
        "--cnm-network-driver=halved",
        "--cnm-ipam-driver=twice",
    )
    assert (code, "4 failed" in said) == (1, True), said
    assert "left behind" in said
    assert "-> have each undo handler remove what its counterpart has made" in said
    assert "-> an address has one owner; raise AddressInUse for another" in said
    code, said = run(tmp_path, *plugin, "--cnm-network-driver=nix")
    assert code == 4
    assert "--cnm-network-driver: no driver 'nix' is installed" in said
