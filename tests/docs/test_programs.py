"""Every Python program of README.md and docs/ runs, as it stands.

Each is a whole program, and runs in a process with a host network of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .pages import PAGES, ROOT, programs

PRELUDE = """
import runpy, sys
from cnm.testing import private_host
private_host()
sys.path.pop(0)
runpy.run_path(sys.argv[1], run_name="__main__")
"""
EXAMPLES = {
    "isolated.py": ["50 networks", "own server: reached", "last server: out of reach"],
    "gateways.py": ["cherry joins", "{'IPv4': 'cherry', 'IPv6': 'berry'}"],
    "adopt.py": ["says: hello ", "it still runs: True"],
    "demo.py": ["left behind: nothing"],
}


def run(directory: Path, *command: str | Path) -> str:
    """Run Python in a directory, warnings being errors; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "program", [pytest.param(text, id=place) for place, text in programs()]
)
def test_program_on_a_page_runs(program: str, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    run(tmp_path, "-c", PRELUDE, path)


def test_the_pages_have_programs() -> None:
    places = {place.partition(":")[0] for place, _ in programs()}
    assert {"README.md", "docs/quickstart.md", "docs/drivers/tutorial.md"} <= places
    assert len(PAGES) > 10


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_first_program_prints_the_answers_and_the_events(
    backend: str, tmp_path: Path
) -> None:
    _, program = next(programs())
    path = tmp_path / "program.py"
    started = program.replace(
        "anyio.run(main)", f"anyio.run(main, backend={backend!r})"
    )
    path.write_text(started, encoding="utf-8")
    lines = run(tmp_path, "-c", PRELUDE, path).splitlines()
    assert sum("says: hello" in line for line in lines) == 3
    assert lines[-2:] == ["endpoint.left client", "endpoint.deleted client"]


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_example_runs(name: str, tmp_path: Path) -> None:
    printed = run(tmp_path, ROOT / "examples" / name)
    for expected in EXAMPLES[name]:
        assert expected in printed


def test_every_example_is_run() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)
