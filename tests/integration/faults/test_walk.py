"""Every step of every operation: it fails, the process dies, it is cancelled there.

The steps are counted, and not listed: what is done in future is walked through, too.
By default a fault on every step is tried on one of the backends, and a lost answer at
every other one; ``CNM_TEST_WALK=all`` tries all of them on both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from .operations import OPERATIONS

EVERYTHING = os.environ.get("CNM_TEST_WALK") == "all"
#: Operations that only write a record.
RECORDS_ONLY = ("create configuration", "add service")
#: Operations that no driver hears of.
WITHOUT_DRIVER = (
    *("create sandbox", "create bound sandbox", "adopt namespace"),
    *RECORDS_ONLY,
)
#: Operations that write files of sandboxes.
WITH_FILES = ("create sandbox", "create bound sandbox", "adopt namespace", "start")


class Walker:
    """The program that walks, as long as the tests need it."""

    def __init__(self) -> None:
        self._program = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.faults.walker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def walk(self, *what: str) -> dict[str, object]:
        """Return what a walk says at its end.

        :param what: name of the operation, mode, backend, share of the steps
        """
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(json.dumps(what) + "\n")
        self._program.stdin.flush()
        said = []
        for line in self._program.stdout:
            said.append(line)
            if line.startswith("{"):
                break
        found: dict[str, object] = json.loads(said.pop())
        assert found["failed"] == 0, "".join(said)
        return found

    def close(self) -> None:
        self._program.communicate()
        assert self._program.returncode == 0


@pytest.fixture(scope="module")
def walker() -> Iterator[Walker]:
    program = Walker()
    yield program
    program.close()


def shares(mode: str) -> list[tuple[str, str]]:
    if EVERYTHING:
        return [("asyncio", "0/1"), ("trio", "0/1")]
    if mode == "lose":  # half of the steps, which fail in the other mode as well
        return [("asyncio", "0/4"), ("trio", "2/4")]
    return [("asyncio", "0/2"), ("trio", "1/2")]


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("mode", ["fail", "lose", "cancel"])
def test_half_done_is_not_done(
    walker: Walker,
    name: str,
    mode: str,
    record_property: Callable[[str, object], None],
) -> None:
    if (name, mode) == ("start", "cancel"):
        pytest.skip("a start that is cancelled is like one that fails")
    for backend, share in shares(mode):
        found = walker.walk(name, mode, backend, share)
        record_property("walked", found["walked"])
        assert isinstance(found["steps"], int)
        assert found["steps"] > 0


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_next_start_undoes_or_completes(
    walker: Walker, name: str, record_property: Callable[[str, object], None]
) -> None:
    found = walker.walk(name, "kill", "asyncio", "0/1")
    record_property("walked", found["walked"])
    kinds = {"store"}
    if name not in WITHOUT_DRIVER:
        kinds.add("driver")
    if name not in RECORDS_ONLY:
        kinds.add("kernel")
    if name in WITH_FILES:
        kinds.add("file")
    if name in ("create endpoint", "delete endpoint"):  # it has no interface
        kinds.remove("kernel")
    assert kinds == set(found["kinds"])  # type: ignore[call-overload]
    # an intent and an outcome, and what is between them
    assert found["steps"] >= (3 if len(kinds) > 1 else 1)  # type: ignore[operator]
