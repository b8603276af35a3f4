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
from collections.abc import Callable

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


def walk(name: str, mode: str, backend: str, share: str) -> dict[str, object]:
    """Return what a walk says at its end."""
    command = [sys.executable, "-m", "tests.integration.faults.walker"]
    done = subprocess.run(
        [*command, name, mode, backend, share], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def shares(mode: str) -> list[tuple[str, str]]:
    if EVERYTHING:
        return [("asyncio", "0/1"), ("trio", "0/1")]
    if mode == "lose":  # half of the steps, which fail in the other mode as well
        return [("asyncio", "0/4"), ("trio", "2/4")]
    return [("asyncio", "0/2"), ("trio", "1/2")]


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("mode", ["fail", "lose", "cancel"])
def test_half_done_is_not_done(
    name: str, mode: str, record_property: Callable[[str, object], None]
) -> None:
    if (name, mode) == ("start", "cancel"):
        pytest.skip("a start that is cancelled is like one that fails")
    for backend, share in shares(mode):
        found = walk(name, mode, backend, share)
        record_property("walked", found["walked"])
        assert isinstance(found["steps"], int)
        assert found["steps"] > 0


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_next_start_undoes_or_completes(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    found = walk(name, "kill", "asyncio", "0/1")
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
