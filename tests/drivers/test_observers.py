"""Observers from other packages: installed by pip, and used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, urllib.request
import anyio, cnm
from cnm.testing import private_host

async def main():
    async with cnm.Controller() as controller:
        network = await controller.create_network("front")
        box = await controller.create_sandbox("box")
        endpoint = await network.connect(box)
        if len(sys.argv) > 2:
            print(await metrics(f"http://{sys.argv[2]}/metrics"))

async def metrics(url):
    while True:
        try:
            answer = await anyio.to_thread.run_sync(urllib.request.urlopen, url)
            said = answer.read().decode()
            if 'event="endpoint.joined"' in said:
                return said
        except OSError:
            pass
        await anyio.sleep(0.05)

private_host()
anyio.run(main, backend=sys.argv[1])
"""


def run(name: str, target: Path, *arguments: str, **environment: str) -> str:
    """Install an example, and run a program that uses cnm; return what it says."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    example = ROOT / "examples" / name
    subprocess.run([*pip, *install, "--target", target, example], check=True)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, *arguments],
        env={
            **os.environ,
            "PYTHONPATH": f"{target}{os.pathsep}{ROOT}",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_lines_of_json(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "events.jsonl"
    package = tmp_path / "packages"
    said = run("cnm-observer-jsonlines", package, backend, CNM_EVENTS_FILE=str(path))
    assert said == ""
    events = [json.loads(line) for line in path.read_text().splitlines()]
    names = [event["event"] for event in events]
    assert names[0] == "controller.started"
    wanted = ["network.created", "sandbox.created", "endpoint.created"]
    assert [name for name in names if name in wanted] == wanted
    (joined,) = [event for event in events if event["event"] == "endpoint.joined"]
    assert joined["endpoint"]["network"]["name"] == "front"
    assert joined["endpoint"]["address"].endswith("/16")
    assert joined["interface"] == "eth0"


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "events.jsonl"
    package = tmp_path / "packages"
    said = run("cnm-observer-jsonlines", package, "trio", CNM_EVENTS_FILE=str(path))
    assert "observer 'jsonlines' failed on network.created" in said
    assert "No such file or directory" in said


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_metrics(tmp_path: Path, backend: str) -> None:
    address = "127.0.0.1:9797"  # in a host network of the program's own
    said = run(
        "cnm-observer-prometheus",
        tmp_path,
        *(backend, address),
        CNM_METRICS_ADDRESS=address,
    )
    for kind in ("network", "sandbox", "endpoint", "joined"):
        assert f'cnm_objects{{kind="{kind}"}} 1.0' in said
    assert 'cnm_events_total{driver="bridge",event="endpoint.joined"} 1.0' in said
