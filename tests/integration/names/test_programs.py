"""Names as programs ask for them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

import cnm

from .ask import NameServer


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{program} is not installed"
    )


@pytest.fixture
async def box(upstream: NameServer, controller: cnm.Controller) -> cnm.Sandbox:
    front = await controller.create_network(
        "front", subnets=["10.9.0.0/24", "fd00:9::/64"]
    )
    box = await controller.create_sandbox("box", hostname="box")
    db = await controller.create_sandbox("db")
    await front.connect(box)
    await front.connect(db, aliases=["postgres"])
    return box


async def output(box: cnm.Sandbox, command: str) -> str:
    result = await box.run(command, check=False, stderr=subprocess.STDOUT)
    return result.stdout.decode()


@needs("getent")
async def test_getent(box: cnm.Sandbox) -> None:
    assert (await output(box, "getent ahostsv4 postgres")).split()[0] == "10.9.0.3"
    assert (await output(box, "getent ahostsv6 DB.Front")).split()[0] == "fd00:9::3"
    assert "known.example" in await output(box, "getent hosts known.example")
    assert (await box.run("getent hosts nobody.example", check=False)).returncode == 2


@needs("dig")
async def test_dig(box: cnm.Sandbox) -> None:
    assert await output(box, "dig +short postgres") == "10.9.0.3\n"
    assert await output(box, "dig +short +tcp postgres AAAA") == "fd00:9::3\n"
    assert await output(box, "dig +short -x 10.9.0.3") == "db.front.\n"
    assert await output(box, "dig +short known.example") == "192.0.2.80\n"
    whole = await output(box, "dig +bufsize=4096 +dnssec +cookie nobody.example")
    assert "status: NXDOMAIN" in whole
    assert "SOA" in whole
    assert "status: NOTIMP" in await output(box, "dig +opcode=notify postgres")
    assert "status: BADVERS" in await output(box, "dig +edns=1 +noednsneg postgres")


@needs("busybox")
async def test_nslookup_of_busybox(box: cnm.Sandbox) -> None:
    answer = await output(box, "busybox nslookup postgres")
    assert "Address: 10.9.0.3" in answer
    assert "Address: fd00:9::3" in answer
    assert "NXDOMAIN" in await output(box, "busybox nslookup nobody.example")


async def test_python(box: cnm.Sandbox) -> None:
    script = (
        "import json, socket; print(json.dumps([socket.getaddrinfo(name, 80, "
        "type=socket.SOCK_STREAM)[-1][4][0] for name in ('postgres', 'known.example')]"
        " + [socket.gethostbyaddr('10.9.0.3')[0]]))"
    )
    result = await box.run([sys.executable, "-c", script])
    assert json.loads(result.stdout) == ["10.9.0.3", "192.0.2.80", "db.front"]


async def test_both_families_at_once_by_one_socket(box: cnm.Sandbox) -> None:
    """As musl does: two questions, and answers in any order."""
    script = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)\n"
        "q = b'\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x02db\\x00\\x00'\n"
        "for i, t in ((1, 1), (2, 28)):\n"
        "    s.sendto(bytes((0, i)) + q + bytes((t, 0, 1)), ('127.0.0.11', 53))\n"
        "got = {d[1]: d for d in (s.recv(512), s.recv(512))}\n"
        "assert got[1].endswith(bytes((10, 9, 0, 3))), got\n"
        "assert got[2].endswith(bytes((0, 3))), got\n"
    )
    result = await box.run([sys.executable, "-c", script], check=False)
    assert result.returncode == 0, result.stderr.decode()
