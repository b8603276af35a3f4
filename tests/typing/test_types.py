"""What a type checker knows of the public API: read by mypy, more than run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from subprocess import CompletedProcess
from typing import assert_type

import pytest
from anyio.abc import Process, SocketListener, SocketStream, UDPSocket

import cnm
import cnm_drivers_bridge
from cnm.driver import (
    DriverLoaded,
    EndpointJoined,
    EndpointLeft,
    JoinInfo,
    LeaveInfo,
    NetworkDriver,
    hookimpl,
)

ROOT = Path(__file__).parents[2]
WRONG = """
from cnm.driver import EndpointJoined, JoinInfo, NetworkDriver, hookimpl

class Wrong(NetworkDriver):
    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> int:
        return 1

    @hookimpl
    def cnm_endpoint_left(self, event: EndpointJoined) -> None:
        event.nothing
"""


async def of_the_model(controller: cnm.Controller) -> None:
    network = await controller.create_network("front")
    sandbox = await controller.create_sandbox("api")
    assert_type(network, cnm.Network)
    assert_type(sandbox, cnm.Sandbox)
    endpoint = await network.connect(sandbox, address="10.9.0.5")
    assert_type(endpoint, cnm.Endpoint)
    assert_type(endpoint.address, IPv4Interface | None)
    assert_type(endpoint.address6, IPv6Interface | None)
    assert_type(controller.networks, tuple[cnm.Network, ...])
    assert_type(sandbox.gateways, Mapping[int, cnm.Endpoint])
    assert_type(await sandbox.run(["true"]), CompletedProcess[bytes])
    assert_type(await sandbox.open_process("true"), Process)
    assert_type(await sandbox.connect_tcp("10.9.0.2", 80), SocketStream)
    assert_type(await sandbox.listen_tcp(port=80), SocketListener)
    assert_type(await sandbox.udp(), UDPSocket)


async def of_events(controller: cnm.Controller) -> None:
    async with controller.subscribe() as everything:
        async for event in everything:
            assert_type(event, cnm.Event)
    async with controller.subscribe(cnm.EndpointJoined) as joins:
        async for joined in joins:
            assert_type(joined, cnm.EndpointJoined)
            assert_type(joined.endpoint.network, cnm.NetworkInfo)
            assert_type(joined.sandbox, cnm.SandboxInfo)


class Typed(NetworkDriver):
    @hookimpl
    async def cnm_driver_loaded(self, event: DriverLoaded) -> None:
        assert_type(event.controller, str)

    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> JoinInfo:
        return JoinInfo(interface="veth0")

    @hookimpl
    async def cnm_endpoint_left(self, event: EndpointLeft) -> LeaveInfo:
        return LeaveInfo()


def test_packages_say_that_they_are_typed() -> None:
    for package in (cnm, cnm_drivers_bridge):
        assert package.__file__ is not None
        assert Path(package.__file__).with_name("py.typed").exists()


def test_wrong_hooks_are_found(tmp_path: Path) -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    path = tmp_path / "wrong.py"
    path.write_text(WRONG, encoding="utf-8")
    mypy = ["-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent"]
    done = subprocess.run(
        [sys.executable, *mypy, "--cache-dir", tmp_path / "cache", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert all(line.startswith(str(path)) for line in errors), done.stdout
    found = "\n".join(errors)
    assert 'Return type "Coroutine[Any, Any, int]"' in found
    assert 'of "hookimpl" cannot be "Callable' in found
    assert 'has no attribute "nothing"' in found
