"""Shows what cnm does, in a host network of the program's own.

python examples/demo.py [asyncio | trio]
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Iterator

import anyio
from anyio.abc import SocketStream

import cnm
from cnm.linux import (
    NetlinkSocket,
    add_address,
    add_route,
    add_veth,
    dump_links,
    get_link,
    namespaces,
    parse_link,
    set_link,
)
from cnm.testing import private_host

OUTSIDE = "/run/outside"
PAYLOAD = os.urandom(4 * 1024 * 1024)
PICTURE = """
              outside 203.0.113.2
                 |
   ==============+=============== host 203.0.113.1 (masquerade) ======
        |                                          |
   [ front ]  10.9.0.0/24  fd00:9::/64        [ back ]  10.10.0.0/24
    |            |            |                |           |
    |            |            +---- tools -----+           |
   web         client         two networks: eth0, eth1    vault
   eth0        lan0           default route by front      eth0
   10.9.0.2    10.9.0.50
"""


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Print what is done, and how long it took."""
    started = time.perf_counter()
    yield
    print(f"  {(time.perf_counter() - started) * 1000:8.2f} ms  {what}")


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


async def ping(sandbox: cnm.Sandbox, address: cnm.IPAddress | None) -> bool:
    """Send an echo request from a sandbox; tell whether there was a reply."""
    assert address is not None
    if address.version == 4:
        family, protocol, kind, reply, start = socket.AF_INET, 1, 8, 0, 20
    else:
        family, protocol, kind, reply, start = socket.AF_INET6, 58, 128, 129, 0
    body = os.urandom(8)
    head = struct.pack(">BBHHH", kind, 0, 0, 1, 1)
    # the kernel computes ICMPv6 checksums, and leaves ICMP's to the sender
    request = head[:2] + struct.pack(">H", checksum(head + body)) + head[4:] + body
    with await sandbox.socket(family, socket.SOCK_RAW, protocol) as raw:
        try:
            raw.sendto(request, (str(address), 0))
        except OSError:
            return False
        with anyio.move_on_after(0.5):
            while True:
                await anyio.wait_readable(raw)
                packet = raw.recv(256)[start:]
                if packet[0] == reply and packet[8:] == body:
                    return True
    return False


@contextlib.asynccontextmanager
async def web_server(sandbox: cnm.Sandbox) -> AsyncIterator[list[str]]:
    """Serve PAYLOAD on port 80 of a sandbox; note who asked."""
    visitors: list[str] = []

    async def answer(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            peer = stream.extra(anyio.abc.SocketAttribute.remote_address)
            visitors.append(str(peer[0]).removeprefix("::ffff:"))
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(PAYLOAD)}\r\n\r\n"
            await stream.send(head.encode() + PAYLOAD)

    listener = await sandbox.listen_tcp(port=80)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        yield visitors
        tasks.cancel_scope.cancel()


async def download(sandbox: cnm.Sandbox, address: str, port: int = 80) -> None:
    """Download PAYLOAD by a program that runs inside a sandbox."""
    host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    program = (
        "import sys, urllib.request as r;"
        f"sys.stdout.buffer.write(r.urlopen('http://{host}/', timeout=5).read())"
    )
    result = await sandbox.run([sys.executable, "-I", "-c", program])
    assert result.stdout == PAYLOAD, "the download is damaged"


def build_outside() -> None:
    """Connect the host to a machine outside, which is a namespace of its own."""
    descriptor = os.open(OUTSIDE, os.O_CREAT | os.O_RDONLY, 0o444)
    os.close(descriptor)
    home = os.open(namespaces.OWN, os.O_RDONLY)
    namespaces.unshare(namespaces.CLONE_NEWNET)
    namespaces.mount(namespaces.OWN, OUTSIDE, flags=namespaces.MS_BIND)
    there = NetlinkSocket()
    namespaces.enter(home)
    descriptor = os.open(OUTSIDE, os.O_RDONLY)
    with NetlinkSocket() as here, there:
        here.call(add_veth("uplink", "eth0", peer_netns=descriptor))
        index = parse_link(here.call(get_link(name="uplink"))[0]).index
        for route, link, last in (
            (here, index, 1),
            (there, parse_link(there.call(get_link(name="eth0"))[0]).index, 2),
        ):
            v4 = ipaddress.ip_interface(f"203.0.113.{last}/24")
            v6 = ipaddress.ip_interface(f"2001:db8::{last}/64")
            route.call(
                set_link(link, up=True), add_address(link, v4), add_address(link, v6)
            )
        # outside knows the way to the sandboxes: the firewall has to keep it away
        block = ipaddress.ip_network("10.9.0.0/24")
        there.call(set_link(1, up=True), add_route(block, via=v4.ip - 1))
    os.close(descriptor)
    os.close(home)


async def show(controller: cnm.Controller) -> None:
    print("\nNetworks and sandboxes")
    with step("network front: a dual-stack bridge"):
        front = await controller.create_network(
            "front", subnets=["10.9.0.0/24", "fd00:9::/64"]
        )
    with step("network back"):
        back = await controller.create_network("back", subnets=["10.10.0.0/24"])
    with step("sandbox web"):
        web = await controller.create_sandbox("web", hostname="web")
    with step("web joins front, and publishes its port 80 as 8080 of the host"):
        at_web = await front.connect(web, ports=["8080:80"])
    with step("sandbox client, with an address, a MAC and an interface of its choice"):
        client = await controller.create_sandbox("client")
        await front.connect(
            client,
            address="10.9.0.50",
            mac="02:00:00:00:00:50",
            interface_name="lan0",
        )
    with step("sandbox tools, on both networks"):
        tools = await controller.create_sandbox("tools")
        await front.connect(tools, gateway_priority=1)
        await back.connect(tools)
    with step("sandbox vault, on back only"):
        vault = await controller.create_sandbox("vault")
        at_vault = await back.connect(vault)
    print(PICTURE)
    assert at_web.address
    assert at_web.address6
    assert at_vault.address
    web4, web6, vault4 = at_web.address.ip, at_web.address6.ip, at_vault.address.ip

    print("Traffic")
    for name, sandbox in (("client", client), ("tools", tools)):
        for address in (web4, web6):
            with step(f"{name} pings web at {address}"):
                assert await ping(sandbox, address)
    with step(f"tools pings vault at {vault4}"):
        assert await ping(tools, vault4)
    async with web_server(web) as visitors:
        for target in ("web", web4, web6):
            with step(f"client downloads {len(PAYLOAD)} bytes from http://{target}/"):
                await download(client, str(target))
        print(f"              web was visited by {', '.join(visitors)}")
    outside = await controller.create_sandbox("outside", netns=OUTSIDE)
    async with web_server(outside) as visitors:
        for server in ("203.0.113.2", "2001:db8::2"):
            with step(f"client downloads from outside, http://{server}/"):
                await download(client, server)
        print(f"              outside was visited by {', '.join(visitors)}")
        assert visitors == ["203.0.113.1", "2001:db8::1"], "no masquerade"

    async with web_server(web) as visitors:
        for host in ("203.0.113.1", "2001:db8::1"):
            with step(
                f"outside downloads from the published port, http://{host}:8080/"
            ):
                await download(outside, host, 8080)
        with step("client does so, too, from the same network"):
            await download(client, "203.0.113.1", 8080)
        print(f"              web was visited by {', '.join(visitors)}")

    print("\nIsolation")
    with step(f"client does not reach vault at {vault4}, on the other network"):
        assert not await ping(client, vault4)
    with step(f"outside does not reach web at {web4}, though it knows the way"):
        assert not await ping(outside, web4)


def remains() -> list[str]:
    """Return the links that are there, and the files of namespaces."""
    with NetlinkSocket() as route:
        links = [parse_link(link).name for link in route.dump(dump_links())]
    files = [name for _, _, names in os.walk("/run/cnm") for name in names]
    return sorted(links) + files


async def main() -> None:
    before = remains()
    started = time.perf_counter()
    with step("controller started"):
        controller = cnm.Controller()
        await controller.__aenter__()
    try:
        await show(controller)
    finally:
        print("\nRemoval")
        with step("everything removed"):
            await controller.__aexit__(*sys.exc_info())
    assert remains() == before, f"left behind: {remains()}"
    print(f"              left behind: nothing (links: {', '.join(before)})")
    print(f"\nAll of it took {time.perf_counter() - started:.2f} s.")


if __name__ == "__main__":
    private_host()
    build_outside()
    anyio.run(main, backend=sys.argv[1] if len(sys.argv) > 1 else "asyncio")
