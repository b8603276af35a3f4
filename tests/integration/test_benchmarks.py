"""The program that measures: that it runs, and that its floor is one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def test_join_is_measured_against_all_floors(tmp_path: Path) -> None:
    file, page = tmp_path / "figures.json", tmp_path / "page.md"
    options = ("--quick", "--backend", "asyncio", "--json", str(file))
    shown = run("benchmarks", "join", *options)

    report = json.loads(file.read_text())
    assert {"kernel", "cores", "CPU", "Python", "date"} <= report["machine"].keys()
    found = report["benchmarks"]["join"]
    assert found["absent"] == []
    by_way = found["measures"]["sandbox + join + port"]
    floors = ["floor", "floor with names", "floor awaited"]
    assert list(by_way) == [*floors, "asyncio"]
    for summary in by_way.values():
        assert 0 < summary["p10"] <= summary["median"] <= summary["p90"]
    assert "sandbox + join + port [ms]" in shown

    page.write_text(
        "Before.\n<!-- benchmarks: join -->\nold\n<!-- end -->\n"
        "<!-- benchmarks: leave -->\nkept\n<!-- end -->\n"
    )
    run("benchmarks", "--figures", str(file), "--page", str(page))
    written = page.read_text()
    assert "old" not in written
    assert "| sandbox + join + port \\[ms\\] | floor |" in written
    assert "<!-- benchmarks: leave -->\nkept\n<!-- end -->" in written


def test_the_floor_leaves_what_cnm_leaves() -> None:
    made = json.loads(run("tests.integration.floor_program"))
    assert made["floor"] == made["cnm"]
