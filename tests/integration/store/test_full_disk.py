"""Disks that are full or read-only, and limits on the size of files."""

# ruff: noqa: ASYNC221 - tests may block

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cnm import SQLiteStore, StoreError
from cnm.store import Delete, Put
from tests.integration.system_calls import Faults

from .disk import Disk, mounted

FULL = "the disk is full, or a quota is used up: make room in"
NOBODY = 65534
BIG = {"x": "x" * 20_000}


async def fill_up(store: SQLiteStore, disk: Disk, *, durable: bool) -> int:
    """Put records until one fails; return how many there are."""
    count = 0
    while True:
        try:
            await store.transaction(
                Put(f"a/{count}", BIG), Put(f"b/{count}", BIG, durable=durable)
            )
        except StoreError as exc:
            error = str(exc)
            break
        count += 1
        disk.fill(leave=100_000)
    assert f"{FULL} {disk.path}" in error
    return count


@pytest.mark.parametrize("durable", [False, True])
async def test_a_full_disk(disk: Disk, durable: bool) -> None:
    store = SQLiteStore(disk.path / "s.db")
    await store.open()
    await store.put("first", {"v": 1})
    count = await fill_up(store, disk, durable=durable)
    for _ in range(3):
        with pytest.raises(StoreError, match=FULL):
            await store.transaction(Delete("first"), Put("c", BIG), Put("d", BIG))
    assert [r.key for r in await store.scan("")] == [
        *sorted(f"{kind}/{n}" for n in range(count) for kind in "ab"),
        "first",
    ]
    disk.make_room()
    await store.transaction(Delete("first"), Put("c", BIG), Put("d", BIG))
    await store.close()
    await store.open()
    assert len(await store.scan("")) == 2 * count + 2
    assert await store.get("first") is None
    await store.close()


async def test_a_store_opens_on_a_full_disk(disk: Disk) -> None:
    store = SQLiteStore(disk.path / "s.db")
    await store.open()
    await store.put("a", {})
    await store.close()
    disk.fill()
    await store.open()
    assert await store.get("a")
    with pytest.raises(StoreError, match=FULL):
        await store.put("b", {})
    await store.close()
    await store.open()
    assert [r.key for r in await store.scan("")] == ["a"]
    await store.close()


async def test_a_store_is_not_half_made_on_a_full_disk(disk: Disk) -> None:
    disk.fill()
    store = SQLiteStore(disk.path / "s.db")
    for _ in range(2):
        with pytest.raises(StoreError, match=FULL):
            await store.open()
        assert os.listdir(disk.path) == ["filler"]
    disk.make_room()
    await store.open()
    await store.put("a", {})
    await store.close()


async def test_no_room_for_the_mark_of_a_new_store(disk: Disk) -> None:
    """The last of what is written when a store is made."""
    store = SQLiteStore(disk.path / "s.db")
    errors = []
    for leave in range(0, 60_000, 4096):
        disk.fill(leave)
        try:
            await store.open()
            break
        except StoreError as exc:
            errors.append(str(exc))
            disk.make_room()
    assert len(errors) > 2
    assert all(FULL in error for error in errors)
    disk.make_room()
    await store.put("a", {})
    await store.close()


LIMITED = """
import resource, signal, sys
import anyio
from cnm import SQLiteStore, StoreError

async def main() -> None:
    store = SQLiteStore(sys.argv[1])
    await store.open()
    await store.put("a", {"v": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    for number in range(100):
        try:
            await store.put("big", {"n": number, "x": "x" * 30_000})
        except StoreError as exc:
            print(exc)
            break
    record = await store.get("big")
    assert record and record.version == record.value["n"] + 1 == number
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    await store.put("big", {"n": number, "x": "x" * 300_000})
    await store.close()

anyio.run(main, backend=sys.argv[2])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_limit_on_the_size_of_files(path: Path, backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIMITED, path, backend],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"store {path}: disk I/O error: the disk fails")
    assert "(ulimit -f)" in done.stdout


async def test_a_disk_that_is_read_only(disk: Disk) -> None:
    store = SQLiteStore(disk.path / "s.db")
    await store.open()
    await store.put("a", {})
    await store.close()
    before = {path: path.read_bytes() for path in disk.path.iterdir()}
    disk.read_only(True)
    with pytest.raises(StoreError, match=r"s\.db: .*: it is read-only"):
        await store.open()
    with pytest.raises(StoreError, match=r"sub/s\.db: .*: it is read-only"):
        await SQLiteStore(disk.path / "sub" / "s.db").open()
    disk.read_only(False)
    assert {path: path.read_bytes() for path in disk.path.iterdir()} == before
    await store.open()
    assert await store.get("a")
    await store.close()


WITHOUT_RIGHTS = """
import asyncio, os, sys  # while it may read where asyncio is
import anyio
from cnm import SQLiteStore, StoreError

async def main() -> None:
    for path in sys.argv[1:]:
        try:
            await SQLiteStore(path).open()
        except StoreError as exc:
            print(exc)
        else:
            print("opened", path)

os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
anyio.run(main)
"""


def has_users() -> bool:
    """Tell whether there is anybody but root in the tests' user namespace."""
    _, _, count = Path("/proc/self/uid_map").read_text(encoding="ascii").split()[:3]
    return int(count) > NOBODY


@pytest.mark.skipif("not has_users()", reason="there is nobody but root")
async def test_no_rights() -> None:
    # pytest's directories are root's alone
    with mounted(Path("/run/disk")) as disk:
        os.chmod(disk.path, 0o755)
        names = ["file", "directory", "nothing", "new"]
        for name in names:
            (disk.path / name).mkdir()
            os.chown(disk.path / name, NOBODY, NOBODY)
            if name != "new":
                store = SQLiteStore(disk.path / name / "s.db")
                await store.open()
                await store.put("a", {})
                await store.close()
                for path in (disk.path / name).iterdir():
                    os.chown(path, NOBODY, NOBODY)
        os.chown(disk.path / "file" / "s.db", 0, 0)
        os.chmod(disk.path / "directory", 0o555)
        os.chmod(disk.path / "new", 0o555)
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_RIGHTS]
            + [f"{disk.path}/{name}/s.db" for name in names],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=60,
            check=False,
        )
    lines = dict(zip(names, done.stdout.splitlines(), strict=True))
    for name in ("file", "directory", "new"):
        assert lines[name].startswith(f"store {disk.path}/{name}/s.db: "), lines
        assert re.search("no access to it|have to be writable$", lines[name])
    assert lines["nothing"] == f"opened {disk.path}/nothing/s.db"


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
async def test_every_write_fails_once(
    path: Path, faults: Faults, code: int, durable: bool
) -> None:
    """Whichever write it is, the old state remains, and the next attempt is good."""
    store = SQLiteStore(path)
    await store.open()
    changes = Put("a", BIG), Put("b", {}, durable=durable)
    await store.transaction(*changes)
    await faults.install(store)
    version, walked = 1, Counter[str]()
    for name in ("pwrite64", "fdatasync"):
        while True:
            faults.fail, faults.skip, faults.times = {name: code}, walked[name], 1
            error = ""
            try:
                await store.transaction(*changes)
            except StoreError as exc:
                error = str(exc)
            if not error:
                assert faults.times == 1
                version += 1
                break
            assert error.startswith(f"store {path}: ")
            faults.fail = {}
            assert [r.version for r in await store.scan("")] == [version] * 2
            await store.transaction(*changes)
            version += 1
            walked[name] += 1
    assert walked["pwrite64"] >= 12
    assert walked["fdatasync"] == int(durable)
    await store.close()
    await store.open()
    assert [r.version for r in await store.scan("")] == [version] * 2
    await store.close()
