"""Drivers from other packages: written by the scaffold, installed by pip, and used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cnm import ConflictError, InvalidError
from cnm.scaffold import new_driver

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "cnm-driver-example"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory into which pip has installed the example."""
    target = tmp_path_factory.mktemp("site-packages")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*pip, *install, "--target", target, EXAMPLE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def run(installed: Path, *command: str | Path, folder: Path = ROOT) -> str:
    """Run a program that finds the installed package, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        env={**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{ROOT}"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return done.stdout


def content(folder: Path) -> dict[str, str]:
    """Return all files of a folder that are no output of a tool."""
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", "build"} & set(path.parts)
    }


def test_the_example_is_what_the_scaffold_writes(tmp_path: Path) -> None:
    assert content(new_driver("example", tmp_path)) == content(EXAMPLE)


def test_its_own_tests_pass(installed: Path) -> None:
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    said = run(installed, "-m", "pytest", *options, folder=EXAMPLE)
    assert "4 passed" in said


def test_it_is_listed_and_described(installed: Path) -> None:
    table = run(installed, "-m", "cnm", "drivers").splitlines()
    rows = [line.split() for line in table]
    origin = "cnm_driver_example:ExampleDriver"
    mine = ["network", "example", "cnm-driver-example", "0.1.0", origin, "available"]
    assert mine in rows
    assert any(row[:2] == ["network", "bridge"] for row in rows)
    said = run(installed, "-m", "cnm", "driver", "example")
    assert "mtu: int = 0\n    MTU in bytes of both ends" in said


def test_it_imports_the_public_modules_only(installed: Path) -> None:
    public = {"cnm.driver", "cnm.linux", "cnm.options"}
    imported = {
        line.split()[1]
        for source in (installed / "cnm_driver_example").glob("*.py")
        for line in source.read_text(encoding="utf-8").splitlines()
        if line.startswith(("import cnm", "from cnm"))
    }
    assert imported
    assert imported <= public


def test_what_is_no_name(tmp_path: Path) -> None:
    for name in ("", "A", "../x", "a_b", "-a", "x" * 31):
        with pytest.raises(InvalidError, match="is no name of a driver"):
            new_driver(name, tmp_path)
    new_driver("a-b", tmp_path)
    with pytest.raises(ConflictError, match="is there already"):
        new_driver("a-b", tmp_path)
    with pytest.raises(ConflictError, match="'bridge' is installed already: cnm_dri"):
        new_driver("bridge", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cnm-driver-a-b"]


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_what_cannot_be_written_is_said_in_a_line(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    command = ["-m", "cnm", "new-driver", "a", "--directory", str(tmp_path / folder)]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("cnm: ")
    assert done.stderr.count("\n") == 1


def test_bundled_drivers_are_described() -> None:
    for name in ("bridge", "macvlan", "ipvlan", "ptp", "host", "null"):
        assert run(ROOT, "-m", "cnm", "driver", name).startswith(
            f"{name}: cnm_drivers_"
        )


@pytest.mark.parametrize("command", [["driver", "bridge"], ["drivers"], ["--help"]])
def test_who_reads_may_have_enough(command: list[str]) -> None:
    receive, send = os.pipe()
    os.close(receive)
    with open(send, "wb") as nobody_reads:
        done = subprocess.run(
            [sys.executable, "-m", "cnm", *command],
            stdout=nobody_reads,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")
