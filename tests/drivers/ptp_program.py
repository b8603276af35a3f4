"""What an application does with the installed driver ``ptp``; run by the tests.

python ptp_program.py BACKEND DIRECTORY
"""

from __future__ import annotations

import socket
import sys

import anyio
import anyio.abc

import cnm
from cnm.linux import (
    NetlinkSocket,
    dump_links,
    dump_routes,
    parse_link,
    parse_route,
)
from cnm.testing import private_host

SUBNETS = ["10.20.0.0/24", "fd00:20::/64"]
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as connection:
    sys.stdout.write(connection.recv(100).decode())
"""


def host_links() -> list[str]:
    with NetlinkSocket() as route:
        links = [parse_link(message) for message in route.dump(dump_links())]
    return [f"{link.name} {link.kind}" for link in links if link.name != "lo"]


def host_destinations() -> set[str]:
    with NetlinkSocket() as netlink:
        found = [
            parse_route(message)
            for version in (4, 6)
            for message in netlink.dump(dump_routes(version))
        ]
    return {str(route.destination) for route in found if route.table == 254}


async def visitor_of(connect_to: str, port: int, sandbox: cnm.Sandbox) -> str:
    """Connect from a sandbox by a program; return the address the server has seen."""
    program = [sys.executable, "-I", "-c", ASK, connect_to, str(port)]
    return (await sandbox.run(program)).stdout.decode()


async def answer(stream: anyio.abc.SocketStream) -> None:
    async with stream:
        peer = stream.extra(anyio.abc.SocketAttribute.remote_address)
        await stream.send(str(peer[0]).removeprefix("::ffff:").encode())


async def check_traffic(controller: cnm.Controller) -> None:
    network = controller.network("lines")
    one, two = controller.sandbox("one"), controller.sandbox("two")
    (end1,), (end2,) = one.endpoints, two.endpoints
    pairs = [(end1.address, end2.address), (end1.address6, end2.address6)]
    listener = await two.listen_tcp(port=80)
    on_host = await anyio.create_tcp_listener(local_port=81)
    async with listener, on_host, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        tasks.start_soon(on_host.serve, answer)
        for (source, target), gateway in zip(pairs, network.gateways, strict=True):
            assert source
            assert target
            # sandbox to sandbox, through the host, which translates nothing
            assert await visitor_of(str(target.ip), 80, one) == str(source.ip)
            # sandbox to host
            assert await visitor_of(str(gateway), 81, one) == str(source.ip)
            # host to sandbox
            async with await anyio.connect_tcp(str(target.ip), 80) as stream:
                assert (await stream.receive()).decode() == str(gateway)
        tasks.cancel_scope.cancel()


async def check_refusals(controller: cnm.Controller) -> None:
    problems: tuple[str, ...] = ()
    try:
        await controller.create_network(
            "wrong",
            driver="ptp",
            subnets=["10.21.0.0/31"],
            internal=True,
            options={"mtuu": 1400},
        )
    except cnm.InvalidError as exc:
        problems = exc.problems
    faults = [problem.partition(":")[0] for problem in problems]
    assert faults == ["internal", "subnets", "options"], problems
    assert [network.name for network in controller.networks] == ["lines"]


async def first_run(controller: cnm.Controller) -> None:
    network = await controller.create_network(
        "lines", driver="ptp", subnets=SUBNETS, options={"mtu": 1400}
    )
    for name in ("one", "two"):
        await network.connect(await controller.create_sandbox(name))
    await check_traffic(controller)
    (end,) = controller.sandbox("one").endpoints
    known = await end.inspect()
    assert f"{known['host_interface']} veth" in host_links()
    assert not any(link.endswith(" bridge") for link in host_links())
    assert {"10.20.0.2/32", "fd00:20::2/128"} <= host_destinations()
    await check_refusals(controller)


async def second_run(controller: cnm.Controller) -> None:
    await check_traffic(controller)
    one = controller.sandbox("one")
    (end,) = one.endpoints
    await end.leave()
    assert "10.20.0.2/32" not in host_destinations()
    await end.join(one)
    await check_traffic(controller)
    # without a bridge's help, forwarding between others stays as it was: off
    await controller.create_network("other", subnets=["10.22.0.0/24"])
    await check_traffic(controller)
    await one.delete()
    await controller.sandbox("two").delete()
    for network in controller.networks:
        await network.delete()


async def main(directory: str) -> None:
    store = f"{directory}/cnm.db"
    async with cnm.Controller(store=cnm.SQLiteStore(store)) as controller:
        await first_run(controller)
    assert len(host_links()) == 2, "the lines do not outlive the controller"
    async with cnm.Controller(store=cnm.SQLiteStore(store)) as controller:
        await second_run(controller)
    assert host_links() == []
    assert not {"10.20.0.2/32", "fd00:20::2/128"} & host_destinations()


if __name__ == "__main__":
    private_host()
    socket.setdefaulttimeout(10)
    anyio.run(main, sys.argv[2], backend=sys.argv[1])
