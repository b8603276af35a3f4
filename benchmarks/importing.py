"""Starting Python with cnm, in a process of its own each time."""

from __future__ import annotations

import subprocess
import sys

from .figures import Figures
from .ways import Benchmark, Size, Way

COUNT = 20
#: Says how long an import takes, without starting Python.
_TIMED = """
import time
started = time.perf_counter()
import {}
print(time.perf_counter() - started)
"""
_COMMANDS = {
    "python, doing nothing": ["-c", ""],
    "python -c 'import cnm'": ["-c", "import cnm"],
    "python -m cnm --help": ["-m", "cnm", "--help"],
}
_IMPORTS = ("cnm", "anyio")


def _measure(figures: Figures, size: Size) -> None:
    for arguments in _COMMANDS.values():
        subprocess.run([sys.executable, *arguments], check=True)
    for _ in range(size.of(COUNT)):
        for what, arguments in _COMMANDS.items():
            with figures.timing(what):
                subprocess.run([sys.executable, *arguments], check=True)
        for name in _IMPORTS:
            command = [sys.executable, "-c", _TIMED.format(name)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            figures.add(f"import {name}", float(done.stdout) * 1000, "ms")


BENCHMARK = Benchmark(
    name="import",
    title="Importing cnm in a new process",
    rounds=2,
    ways=[Way(name="a new process", measure=_measure)],
    told=list(_COMMANDS)[1:],
    notes=["compiled modules are there; files have been read before"],
)
