"""A driver from somebody else's package, installed by pip and used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "examples" / "cnm-drivers-ptp"
PROGRAM = Path(__file__).with_name("ptp_program.py")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory into which pip has installed the driver's package."""
    target = tmp_path_factory.mktemp("site-packages")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*pip, *install, "--target", target, PACKAGE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def run(installed: Path, *command: str | Path) -> str:
    """Run a program that finds the installed package, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        env={**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_installed_driver_carries_traffic_and_survives_a_restart(
    installed: Path, tmp_path: Path, backend: str
) -> None:
    run(installed, PROGRAM, backend, tmp_path)


def test_installed_driver_is_listed(installed: Path) -> None:
    table = run(installed, "-m", "cnm", "drivers").splitlines()
    rows = [line.split() for line in table]
    ptp = ["network", "ptp", "cnm-drivers-ptp", "0.1.0", "cnm_drivers_ptp:PTPDriver"]
    assert [*ptp, "available"] in rows
    assert any(row[:2] == ["network", "bridge"] for row in rows)


def test_package_imports_the_public_modules_only(installed: Path) -> None:
    public = {"cnm.driver", "cnm.firewall", "cnm.linux", "cnm.options"}
    imported = {
        line.split()[1]
        for source in (installed / "cnm_drivers_ptp").glob("*.py")
        for line in source.read_text(encoding="utf-8").splitlines()
        if line.startswith(("import cnm", "from cnm"))
    }
    assert imported
    assert imported <= public
