"""Gives a network to a process that somebody else has started.

python examples/adopt.py
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import Process

import cnm
from cnm.testing import private_host

# Stands for a container runtime: a server in a network namespace of its own.
SERVER = """
import socket
from cnm.linux import namespaces
namespaces.unshare(namespaces.CLONE_NEWNET)
server = socket.create_server(("::", 7), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    connection, (peer, *_) = server.accept()
    connection.sendall(f"hello {peer.removeprefix('::ffff:')}".encode())
    connection.close()
"""


@asynccontextmanager
async def somebody_elses_process() -> AsyncIterator[Process]:
    command = [sys.executable, "-c", SERVER]
    async with await anyio.open_process(command, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert await process.stdout.receive() == b"ready\n"
        yield process
        process.kill()


async def main() -> None:
    async with somebody_elses_process() as process:
        async with cnm.Controller() as controller:
            network = await controller.create_network("front")
            adopted = await controller.create_sandbox("adopted", netns=process.pid)
            endpoint = await network.connect(adopted)
            client = await controller.create_sandbox("client")
            await network.connect(client)
            assert endpoint.address is not None
            async with await client.connect_tcp(endpoint.address.ip, 7) as stream:
                print(
                    f"process {process.pid} says: {(await stream.receive()).decode()}"
                )
        print(f"without its network, it still runs: {process.returncode is None}")


if __name__ == "__main__":
    private_host()
    anyio.run(main)
