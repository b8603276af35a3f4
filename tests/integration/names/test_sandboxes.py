"""Where a sandbox's resolver is, and the files that name it."""

# ruff: noqa: ASYNC220, ASYNC230, ASYNC240 - tests may block

from __future__ import annotations

import os
import resource
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

import cnm
from cnm import SQLiteStore
from cnm.linux import set_link
from cnm.linux.nftables import list_tables

from ..api.test_restore import remove_all
from ..lab import Namespace
from .ask import NameServer, ask, resolve

PROTOCOLS = [socket.SOCK_DGRAM, socket.SOCK_STREAM]


def bind_53(where: Namespace, kind: int, family: int = socket.AF_INET) -> socket.socket:
    """Have a program of a sandbox take port 53 of all addresses."""
    made = where.socket(family, kind)
    try:
        made.bind(("", 53))
        if kind == socket.SOCK_STREAM:
            made.listen()
    except OSError:
        made.close()
        raise
    return made


@contextmanager
def port_53(where: Namespace) -> Iterator[None]:
    with bind_53(where, PROTOCOLS[0]), bind_53(where, PROTOCOLS[1]):
        yield


async def test_files_can_be_mounted(controller: cnm.Controller) -> None:
    box = await controller.create_sandbox("box", hostname="box")
    paths = box.hosts_path, box.resolv_conf_path
    inodes = [os.stat(path).st_ino for path in paths]
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    back = await controller.create_network("back", subnets=["10.8.0.0/24"])
    await front.connect(box)
    async with await box.open_process(["cat"]) as process:
        # it has mounted them, and sees what changes
        root = f"/proc/{process.pid}/root"
        await back.connect(box)
        with open(f"{root}/etc/hosts", encoding="utf-8") as file:
            # that of the default route first
            assert file.read().endswith("10.8.0.2\tbox\n10.9.0.2\tbox\n")
        await front.disconnect(box)
        with open(f"{root}/etc/hosts", encoding="utf-8") as file:
            assert file.read().endswith("ip6-allrouters\n10.8.0.2\tbox\n")
        process.terminate()
    assert [os.stat(path).st_ino for path in paths] == inodes
    await box.delete()
    assert not any(map(os.path.exists, paths))


async def test_what_the_user_writes_stays(controller: cnm.Controller) -> None:
    box = await controller.create_sandbox("box", hostname="box")
    front = await controller.create_network(
        "front", subnets=["fd00:9::/64"], ipv4=False
    )
    back = await controller.create_network("back", subnets=["10.8.0.0/24"])
    await front.connect(box)
    await box.run("echo '192.0.2.1 mine' >>/etc/hosts; echo mine >/etc/resolv.conf")
    await back.connect(box)
    hosts = (await box.run(["cat", "/etc/hosts"])).stdout.decode().splitlines()
    assert hosts[-3:] == ["192.0.2.1 mine", "10.8.0.2\tbox", "fd00:9::2\tbox"]
    assert (await box.run(["cat", "/etc/resolv.conf"])).stdout == b"mine\n"


async def test_ipv6_only(controller: cnm.Controller) -> None:
    six = await controller.create_network("six", subnets=["fd00:9::/64"], ipv4=False)
    four = await controller.create_network("four", subnets=["10.9.0.0/24"])
    box = await controller.create_sandbox("box")
    await six.connect(box)
    conf = Path(box.resolv_conf_path)
    assert "\nnameserver ::1\n" in conf.read_text()
    for tcp in (False, True):
        answer = await ask(box, "box", "AAAA", server="::1", tcp=tcp)
        assert str(answer.answer[0][0]) == "fd00:9::2"
    assert await resolve(box, "box", "AAAA") == ["fd00:9::2"]
    await four.connect(box)
    assert "\nnameserver 127.0.0.11\n" in conf.read_text()
    assert await resolve(box, "box") == ["10.9.0.2"]


async def test_a_program_that_serves_names_itself(controller: cnm.Controller) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    plain = await controller.create_sandbox("plain")
    await front.connect(plain)
    server = await controller.create_sandbox("server")
    await front.connect(server, exposed=["53/udp"])
    with Namespace("plain", plain.key) as there:
        for kind in PROTOCOLS:
            with pytest.raises(OSError, match="in use"):
                bind_53(there, kind)
    with Namespace("server", server.key) as there:
        with port_53(there):
            for tcp in (False, True):
                answer = await ask(server, "plain", tcp=tcp)
                assert str(answer.answer[0][0]) == "10.9.0.2"
        with NameServer(there, "0.0.0.0") as inside:
            answer = await ask(plain, "known.example", server="10.9.0.3")
            assert str(answer.answer[0][0]) == "192.0.2.80"
            assert await resolve(server, "plain") == ["10.9.0.2"]
            assert inside.asked == ["known.example."]
    # a second endpoint may be the one that says so
    back = await controller.create_network("back", subnets=["10.8.0.0/24"])
    await back.connect(plain, ports=["5353:53/udp"])
    with Namespace("plain", plain.key) as there, port_53(there):
        assert await resolve(plain, "server") == ["10.9.0.3"]


@pytest.fixture
def adopted() -> Iterator[Namespace]:
    with Namespace("adopted") as adopted:
        yield adopted


def tables(there: Namespace) -> list[str]:
    return list_tables(there.nft)


async def test_a_program_that_was_there_first(
    controller: cnm.Controller, adopted: Namespace
) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    path = f"/proc/self/fd/{adopted.netns}"
    with port_53(adopted):
        box = await controller.create_sandbox("box", netns=path)
        await front.connect(box)
        assert await resolve(box, "box") == ["10.9.0.2"]
        assert tables(adopted) == ["cnm-dns"]
        await box.delete()
    assert tables(adopted) == []


async def test_an_adopted_namespace_whose_loopback_is_down(
    controller: cnm.Controller, adopted: Namespace
) -> None:
    adopted.route.call(set_link(1, up=False))
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    box = await controller.create_sandbox("box", netns=f"/proc/self/fd/{adopted.netns}")
    await front.connect(box)
    assert await resolve(box, "box") == ["10.9.0.2"]


async def test_no_socket_is_left() -> None:
    async with cnm.Controller(ready_namespaces=0) as controller:
        before = len(os.listdir("/proc/self/fd"))
        front = await controller.create_network("front", subnets=["10.9.0.0/24"])
        boxes = [await controller.create_sandbox(f"box{n}") for n in range(10)]
        for box in boxes:
            await front.connect(box)
        # a socket for UDP and one for TCP; the kernel's sockets and the namespace
        assert len(os.listdir("/proc/self/fd")) - before <= 4 * len(boxes) + 10
        for box in boxes:
            await box.delete()
        assert len(os.listdir("/proc/self/fd")) - before <= 10


async def test_the_hosts_own_network(
    upstream: NameServer, controller: cnm.Controller
) -> None:
    box = await controller.create_sandbox(
        "box", netns="host", extra_hosts={"db": "192.0.2.7"}
    )
    assert Path(box.resolv_conf_path).read_text() == "nameserver 127.0.0.53\n"
    hosts = Path(box.hosts_path).read_text()
    assert hosts == Path("/etc/hosts").read_text().rstrip("\n") + "\n192.0.2.7\tdb\n"
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    other = await controller.create_sandbox("other")
    await front.connect(other)
    assert box.name_statistics == cnm.NameStatistics()


async def test_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with cnm.Controller(store=SQLiteStore(path)) as controller:
        front = await controller.create_network("front", subnets=["10.9.0.0/24"])
        await front.services.add("_http._tcp", target="api", port=80)
        api = await controller.create_sandbox("api", hostname="api")
        dns_server = await controller.create_sandbox("names")
        await front.connect(api, aliases=["www"], links={"ns": "names"})
        await front.connect(dns_server, exposed=[53])
        hosts = Path(api.hosts_path).read_text()
        conf = Path(api.resolv_conf_path).read_text()
    async with cnm.Controller(store=SQLiteStore(path)) as controller:
        api, dns_server = controller.sandbox("api"), controller.sandbox("names")
        assert await resolve(api, "ns") == ["10.9.0.3"]
        assert await resolve(dns_server, "www") == ["10.9.0.2"]
        assert await resolve(api, "_http._tcp", "SRV") == ["0 0 80 api.front."]
        assert Path(api.hosts_path).read_text() == hosts
        assert Path(api.resolv_conf_path).read_text() == conf
        with Namespace("names", dns_server.key) as there, port_53(there):
            assert await resolve(dns_server, "api") == ["10.9.0.2"]
    await remove_all(path)


async def test_every_name_resolves_when_connect_returns(
    controller: cnm.Controller,
) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/22"])
    watcher = await controller.create_sandbox("watcher")
    await front.connect(watcher)
    failed: dict[str, object] = {}

    async def one(number: int) -> None:
        box = await controller.create_sandbox(f"box{number}")
        endpoint = await front.connect(box)
        assert endpoint.address is not None
        for where in (watcher, box):
            found = await resolve(where, box.name)
            if found != [str(endpoint.address.ip)]:
                failed[box.name] = found
        await box.delete()

    for start in range(0, 100, 20):
        async with anyio.create_task_group() as tasks:
            for number in range(start, start + 20):
                tasks.start_soon(one, number)
    assert failed == {}


async def test_no_ipv6_in_the_sandbox(controller: cnm.Controller) -> None:
    command = ["unshare", "-n", "sh", "-c", "echo ready; exec sleep 1000"]
    namespace = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert namespace.stdout is not None
        await anyio.to_thread.run_sync(namespace.stdout.readline)
        with Namespace("there", f"/proc/{namespace.pid}/ns/net") as there:
            there.sysctl("net.ipv6.conf.all.disable_ipv6", "1")
            box = await controller.create_sandbox("box", netns=namespace.pid)
            assert "::1" not in Path(box.hosts_path).read_text()
            await box.delete()
    finally:
        namespace.kill()
        namespace.communicate()
        namespace.wait()


async def connect_many(controller: cnm.Controller, network: cnm.Network) -> None:
    for number in range(10):
        await network.connect(await controller.create_sandbox(f"other{number}"))


async def test_too_few_file_descriptors(controller: cnm.Controller) -> None:
    front = await controller.create_network("front", subnets=["10.9.0.0/24"])
    box = await controller.create_sandbox("box")
    await front.connect(box)
    before = len(os.listdir("/proc/self/fd"))
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = before + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, old[1]))
    try:
        with pytest.raises(cnm.KernelError, match=rf"ulimit -n is {limit}"):
            await connect_many(controller, front)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)
    joined = [sandbox for sandbox in controller.sandboxes if sandbox.endpoints]
    assert len(front.endpoints) == len(joined)
    assert await resolve(box, "box") == ["10.9.0.2"]
    await front.connect(await controller.create_sandbox("last"))
    assert await resolve(box, "last") != "SERVFAIL"
