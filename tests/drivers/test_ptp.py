"""The driver ``ptp``, in a process and a host of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("ptp_program.py")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_carries_traffic_and_survives_a_restart(
    tmp_path: Path, backend: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, backend, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
