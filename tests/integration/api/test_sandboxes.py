"""Sandboxes: processes, sockets, files, adopted namespaces, removal."""

# ruff: noqa: ASYNC230, ASYNC240 - tests may block

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import pytest

import cnm
from cnm import Controller
from cnm.linux import (
    dump_addresses,
    dump_links,
    dump_routes,
    get_link,
    parse_link,
    set_link,
    sysctl,
)

from ..lab import Namespace

SHOW_FAMILY = "import os; print(os.stat('/proc/self/ns/net').st_ino)"


@pytest.fixture
def container() -> Iterator[Namespace]:
    """Somebody's network namespace."""
    with Namespace("container") as mine, Namespace("router") as router:
        router.connect(mine, "port", "192.0.2.2/24", interface="eth0")
        index = parse_link(mine.route.call(get_link(name="eth0"))[0]).index
        # a link-local address of the kernel's own would be on trial, and then not
        mine.route.call(
            set_link(index, up=False),
            set_link(index, address_generation="none", up=True),
        )
        yield mine


def dump(namespace: Namespace) -> list[bytes]:
    """Return all that the kernel says of links, addresses and routes."""
    found = []
    for request in (dump_addresses(), dump_routes(4), dump_routes(6)):
        found += [message.body for message in namespace.route.dump(request)]
    links = namespace.route.dump(dump_links())
    names = sorted(str(message.body[4:8]) for message in links)
    return sorted(found) + [name.encode() for name in names]


def children() -> list[str]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return file.read().split()


async def test_a_process_is_inside(controller: Controller) -> None:
    sandbox = await controller.create_sandbox("box")
    result = await sandbox.run([sys.executable, "-c", SHOW_FAMILY])
    assert int(result.stdout) == os.stat(sandbox.key).st_ino
    assert int(result.stdout) != os.stat("/proc/self/ns/net").st_ino
    links = await sandbox.run("ls /sys/class/net")
    assert links.stdout == b"lo\n"


async def test_run(controller: Controller) -> None:
    sandbox = await controller.create_sandbox("box")
    result = await sandbox.run(["cat"], input=b"x" * 300_000)
    assert (result.stdout, result.stderr, result.returncode) == (
        b"x" * 300_000,
        b"",
        0,
    )
    with pytest.raises(subprocess.CalledProcessError) as caught:
        await sandbox.run("echo oh no >&2; exit 3")
    assert (caught.value.returncode, caught.value.stderr) == (3, b"oh no\n")
    result = await sandbox.run("exit 3", check=False)
    assert result.returncode == 3
    result = await sandbox.run(["true"], input=b"y" * 300_000)
    assert result.returncode == 0
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        await sandbox.run(["no-such-program"])
    with pytest.raises(ValueError, match="only one of"):
        await sandbox.run(["true"], input=b"", stdin=subprocess.DEVNULL)
    result = await sandbox.run(["pwd"], cwd="/tmp", env={"PATH": os.environ["PATH"]})
    assert result.stdout == b"/tmp\n"


async def test_streams_of_a_process(controller: Controller) -> None:
    sandbox = await controller.create_sandbox("box")
    async with await sandbox.open_process("read line; echo got $line") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send(b"hello\n")
        assert await process.stdout.receive() == b"got hello\n"
        assert await process.wait() == 0
        with pytest.raises(anyio.EndOfStream):
            await process.stdout.receive()


async def test_cancelled_processes_are_killed(controller: Controller) -> None:
    sandbox = await controller.create_sandbox("box")
    before = children()
    with anyio.move_on_after(0.1) as scope:
        await sandbox.run(["sleep", "60"])
    assert scope.cancelled_caught
    assert children() == before
    process = await sandbox.open_process(["sleep", "60"])
    process.terminate()
    assert await process.wait() == -15
    await process.aclose()
    assert children() == before


async def test_sockets(controller: Controller) -> None:
    sandbox = await controller.create_sandbox("box")
    async with await sandbox.udp("127.0.0.1") as one, await sandbox.udp() as two:
        port = one.extra(anyio.abc.SocketAttribute.local_port)
        await two.sendto(b"hi", "::ffff:127.0.0.1", port)
        assert (await one.receive())[0] == b"hi"
    with await sandbox.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        assert not plain.getblocking()
    with pytest.raises(ConnectionRefusedError, match=r"127\.0\.0\.1 port 9"):
        await sandbox.connect_tcp("127.0.0.1", 9)
    wrong: list[tuple[Any, Any, str]] = [
        ("localhost", 80, "host: invalid address 'localhost'"),
        ("127.0.0.1", 70_000, "port: expected 0 to 65535, not 70000"),
        ("127.0.0.1", "80", "port: expected"),
        (None, 80, "host: expected a string"),
    ]
    for host, port, what in wrong:
        with pytest.raises(cnm.InvalidError, match=what):
            await sandbox.connect_tcp(host, port)


@pytest.mark.parametrize("how", ["path", "pid"])
async def test_adopted_namespaces_are_left_as_found(
    controller: Controller, container: Namespace, how: str
) -> None:
    network = await controller.create_network("front", ipv6=True)
    before = dump(container)
    settings = ("net.ipv4.conf.all.forwarding", "net.ipv6.conf.default.accept_ra")
    values = [container.run(partial(sysctl.read, name)) for name in settings]
    netns: str | int = f"/proc/self/fd/{container.netns}"
    process = None
    if how == "pid":
        process = container.run(lambda: subprocess.Popen(["sleep", "60"]))
        netns = process.pid
    try:
        sandbox = await controller.create_sandbox("box", netns=netns)
        assert sandbox.adopted
        endpoint = await network.connect(sandbox)
        assert endpoint.interface == "eth1"  # eth0 was there
        with pytest.raises(cnm.ConflictError, match="'eth0' is taken"):
            await network.connect(sandbox, name="two", interface_name="eth0")
        assert dump(container) != before
        await sandbox.delete()
        assert dump(container) == before
        assert [
            container.run(partial(sysctl.read, name)) for name in settings
        ] == values
        assert not os.path.exists(sandbox.key)
    finally:
        if process is not None:
            process.kill()
            process.wait()


async def test_what_is_no_namespace(controller: Controller) -> None:
    for netns, what in (
        ("/no/such/file", "'/no/such/file' has no network namespace"),
        ("/etc/hostname", "not a network namespace"),
        ("/proc/self/ns/mnt", "not a network namespace"),
        (2**22 + 1, "process 4194305 has no network namespace"),
    ):
        with pytest.raises(cnm.InvalidError, match=what):
            await controller.create_sandbox("box", netns=netns)
    assert controller.sandboxes == ()
    assert os.listdir(os.path.dirname(namespace_of(controller))) == []


def namespace_of(controller: Controller) -> str:
    found = [
        os.path.join(directory, "netns", "x")
        for directory in map("/run/cnm/{}".format, os.listdir("/run/cnm"))
    ]
    assert len(found) == 1, controller
    return found[0]


async def test_deletion_takes_endpoints_along(controller: Controller) -> None:
    networks = [await controller.create_network(f"net{n}") for n in range(3)]
    sandbox = await controller.create_sandbox("box")
    endpoints = [await network.connect(sandbox) for network in networks]
    key = sandbox.key
    assert os.path.exists(key)
    await sandbox.delete()
    assert not os.path.exists(key)
    assert not any(endpoint.joined for endpoint in endpoints)
    assert [network.endpoints for network in networks] == [(), (), ()]
    await sandbox.delete()
    with pytest.raises(cnm.SandboxNotFound):
        await sandbox.socket()


async def test_two_deletions_at_once(controller: Controller) -> None:
    network = await controller.create_network("front")
    sandbox = await controller.create_sandbox("box")
    await network.connect(sandbox)

    async def delete() -> None:
        await sandbox.delete()
        # not before it is gone
        assert controller.sandboxes == ()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(delete)
        tasks.start_soon(delete)


async def test_files(controller: Controller) -> None:
    network = await controller.create_network(
        "front", subnets=["10.9.0.0/24", "fd00:9::/64"]
    )
    sandbox = await controller.create_sandbox(
        "box",
        hostname="web",
        domainname="example.org",
        dns=["192.0.2.53", "2001:db8::53"],
        dns_search=["example.org", "lab"],
        dns_options=["ndots:2", "rotate"],
        extra_hosts={"db": "10.9.0.99"},
    )
    await network.connect(sandbox)
    resolv = (await sandbox.run(["cat", "/etc/resolv.conf"])).stdout.decode()
    assert [line for line in resolv.splitlines() if line and line[0] != "#"][:3] == [
        "nameserver 127.0.0.11",
        "search example.org lab",
        "options ndots:2 rotate",
    ]
    assert "# ExtServers: [192.0.2.53 2001:db8::53]\n" in resolv
    hosts = (await sandbox.run(["cat", "/etc/hosts"])).stdout.decode().splitlines()
    assert "127.0.0.1\tlocalhost" in hosts
    assert hosts[-3:] == [
        "10.9.0.99\tdb",
        "10.9.0.2\tweb.example.org web",
        "fd00:9::2\tweb.example.org web",
    ]
    await network.disconnect(sandbox)
    hosts = (await sandbox.run(["cat", "/etc/hosts"])).stdout.decode().splitlines()
    assert hosts[-1] == "10.9.0.99\tdb"


async def test_no_search_domain(controller: Controller) -> None:
    sandbox = await controller.create_sandbox("box", dns_search=["."])
    resolv = (await sandbox.run(["cat", "/etc/resolv.conf"])).stdout
    assert b"\nsearch" not in resolv
    with open("/etc/resolv.conf", encoding="utf-8") as file:
        assert "box" not in file.read()  # the host's own file is untouched
