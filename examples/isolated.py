"""Fifty isolated networks at once: one for each job, and nothing left behind.

python examples/isolated.py [NUMBER]
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import anyio

import cnm
from cnm.testing import private_host

CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 80), 0.5).close()
    print("reached", end="")
except OSError:
    print("out of reach", end="")
"""


@dataclass
class Job:
    """Two sandboxes on a network of their own, which has no way out."""

    worker: cnm.Sandbox
    server: cnm.Sandbox
    endpoint: cnm.Endpoint


async def create(controller: cnm.Controller, number: int, jobs: dict[int, Job]) -> None:
    network = await controller.create_network(f"job-{number}", internal=True)
    worker = await controller.create_sandbox(f"worker-{number}")
    await network.connect(worker)
    server = await controller.create_sandbox(f"server-{number}")
    jobs[number] = Job(worker, server, await network.connect(server))


async def attempt(job: Job, other: Job) -> str:
    """Have a job's worker connect to a job's server; tell what came of it."""
    assert other.endpoint.address is not None
    program = [sys.executable, "-I", "-c", CONNECT, str(other.endpoint.address.ip)]
    return (await job.worker.run(program)).stdout.decode()


async def main(count: int) -> None:
    jobs: dict[int, Job] = {}
    async with cnm.Controller() as controller:
        started = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(create, controller, number, jobs)
        took = time.perf_counter() - started
        print(f"{count} networks and {2 * count} sandboxes in {took:.2f} s")
        first, last = jobs[0], jobs[count - 1]
        async with (
            await first.server.listen_tcp(port=80),
            await last.server.listen_tcp(port=80),
        ):
            print(f"first worker, own server: {await attempt(first, first)}")
            print(f"first worker, last server: {await attempt(first, last)}")
            print(f"last worker, own server: {await attempt(last, last)}")


if __name__ == "__main__":
    private_host()
    anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 50)
