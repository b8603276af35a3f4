"""Ways of doing the same thing, which take turns, each in a process of its own.

They take turns because the machine is not always equally quick; a process of its own
has a host network of its own, and starts with nothing in its caches.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import anyio

from cnm.testing import private_host

from .figures import Figures, Series, Summary, summary


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured.

    :ivar quick: as little as shows that it works, and no peers
    """

    quick: bool = False

    def of(self, count: int) -> int:
        """Return how many of something to do, where ``count`` are good."""
        return max(count // 25, 2) if self.quick else count


Measure: TypeAlias = Callable[[Figures, Size], None]
AsyncMeasure: TypeAlias = Callable[[Figures, Size], Coroutine[object, object, None]]


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of doing it.

    :ivar measure: does it, and takes down what it took
    :ivar peer: whether it is somebody else's
    :ivar programs: what has to be installed
    :ivar install: how that is done on Debian
    :ivar rounds: rounds that it takes part in at most, because it takes long
    """

    name: str
    measure: Measure
    peer: bool = False
    programs: Sequence[str] = ()
    install: str = ""
    rounds: int = 1000

    @property
    def missing(self) -> str:
        """What is not installed, and how to install it; ``""`` if nothing is."""
        absent = [it for it in self.programs if not shutil.which(it, path=PATH)]
        if not absent:
            return ""
        names = " and ".join(os.path.basename(it) for it in absent)
        return f"{self.name}: {names} not found (Debian: apt install {self.install})"


#: A user's may lack the directories of system programs.
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
BACKENDS = ("asyncio", "trio")


def backends(
    measure: AsyncMeasure, programs: Sequence[str] = (), install: str = ""
) -> list[Way]:
    """Return cnm's ways: one for each backend.

    :param programs: what has to be installed
    :param install: how that is done on Debian
    """
    return [
        Way(
            name=name,
            measure=awaited(measure, name),
            programs=programs,
            install=install,
        )
        for name in BACKENDS
    ]


def awaited(measure: AsyncMeasure, backend: str = "asyncio") -> Measure:
    """Return what has an event loop measure."""
    return partial(_in_loop, measure, backend)


def _in_loop(measure: AsyncMeasure, backend: str, figures: Figures, size: Size) -> None:
    anyio.run(measure, figures, size, backend=backend)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Something to measure, and the ways of doing it.

    :ivar title: what it is about, in a line
    :ivar ways: the first is what others are compared with
    :ivar rounds: rounds that are enough
    :ivar against: which of the first way's measures another one is compared with, where
        that is not the one of the same name
    :ivar notes: what has to be known to understand the figures
    :ivar shown: what is drawn, and told in short
    :ivar told: what else is told in short
    """

    name: str
    title: str
    ways: Sequence[Way]
    rounds: int = 5
    against: dict[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    shown: Sequence[str] = ()
    told: Sequence[str] = ()

    def way(self, name: str) -> Way:
        """Return a way by its name."""
        return next(way for way in self.ways if way.name == name)


@dataclass(kw_only=True)
class Outcome:
    """What a benchmark found.

    :ivar measures: by what was measured and by way
    :ivar units: by what was measured
    :ivar absent: ways that were left out, and why
    """

    measures: dict[str, dict[str, Summary]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)


def run(benchmark: Benchmark, backend: str, rounds: int, size: Size) -> Outcome:
    """Have the ways of a benchmark take turns."""
    outcome = Outcome()
    left_out = {name for name in BACKENDS if backend not in (name, "both")}
    left_out |= {way.name for way in benchmark.ways if way.peer and size.quick}
    ways = [way for way in benchmark.ways if way.name not in left_out]
    outcome.absent = [way.missing for way in ways if way.missing]
    ways = [way for way in ways if not way.missing]
    found: dict[str, dict[str, list[list[float]]]] = {}
    for turn in range(rounds):
        for way in [way for way in ways if turn < way.rounds]:
            _say(f"{benchmark.name}: round {turn + 1} of {rounds}: {way.name}")
            try:
                figures = _in_child(benchmark, way, size)
            except subprocess.CalledProcessError as exc:
                outcome.absent.append(f"{way.name}: failed: {_last_line(exc.stderr)}")
                ways.remove(way)
                continue
            for what, series in figures.items():
                outcome.units[what] = series.unit
                by_way = found.setdefault(what, {})
                by_way.setdefault(way.name, []).append(series.values)
    for what, by_way in found.items():
        outcome.measures[what] = {
            name: summary(values) for name, values in by_way.items()
        }
    return outcome


def _in_child(benchmark: Benchmark, way: Way, size: Size) -> Figures:
    command = [sys.executable, "-m", __package__, benchmark.name, "--way", way.name]
    command += ["--quick"] if size.quick else []
    done = subprocess.run(command, capture_output=True, check=True, env=_environment())
    found = json.loads(done.stdout)
    return Figures({what: Series(**series) for what, series in found.items()})


@functools.cache
def _compiled() -> tempfile.TemporaryDirectory[str]:
    """Return a directory for compiled modules, which is there as long as we are."""
    return tempfile.TemporaryDirectory(prefix="cnm-benchmarks-")


def _environment() -> dict[str, str]:
    """Return the environment of a child: modules are compiled once only."""
    mine = {**os.environ, "PATH": PATH, "PYTHONPYCACHEPREFIX": _compiled().name}
    mine.pop("PYTHONDONTWRITEBYTECODE", None)
    return mine


def be_child(benchmark: Benchmark, name: str, size: Size) -> None:
    """Do it one way, and print what it took."""
    way, figures = benchmark.way(name), Figures()
    # what programs print that are run here is not what the parent waits for
    output = os.dup(1)
    os.dup2(2, 1)
    private_host()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    way.measure(figures, size)
    with open(output, "w", encoding="ascii") as file:
        json.dump(figures, file, default=vars)


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it did not say why"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
