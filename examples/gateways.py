"""Which of a sandbox's networks provides the default route, and how that changes.

python examples/gateways.py
"""

from __future__ import annotations

import anyio

import cnm
from cnm.testing import private_host


async def default_route(sandbox: cnm.Sandbox) -> str:
    """Return the interface of the IPv4 default route, as the kernel has it."""
    table = (await sandbox.run(["cat", "/proc/net/route"])).stdout.decode()
    rows = [line.split() for line in table.splitlines()[1:]]
    links = [name for name, target, *_ in rows if int(target, 16) == 0]
    return links[0] if links else "none"


async def show(sandbox: cnm.Sandbox, what: str) -> None:
    chosen = {f"IPv{v}": e.network.name for v, e in sandbox.gateways.items()}
    print(f"{what:32} {chosen}, the kernel: {await default_route(sandbox)}")


async def main() -> None:
    async with cnm.Controller() as controller:
        apple = await controller.create_network("apple")
        berry = await controller.create_network("berry", ipv6=True)
        cherry = await controller.create_network("cherry")
        vault = await controller.create_network("vault", internal=True)
        sandbox = await controller.create_sandbox("sandbox")

        await vault.connect(sandbox)
        await show(sandbox, "on an internal network:")
        await apple.connect(sandbox)
        await show(sandbox, "apple joins, a way out:")
        await berry.connect(sandbox)
        await show(sandbox, "berry joins, two gateways:")
        await cherry.connect(sandbox, gateway_priority=10)
        await show(sandbox, "cherry joins, with priority:")
        await cherry.disconnect(sandbox)
        await show(sandbox, "cherry leaves:")
        await berry.disconnect(sandbox)
        await show(sandbox, "berry leaves:")


if __name__ == "__main__":
    private_host()
    anyio.run(main)
