"""What is not lost because the process lacks something for a while."""

# ruff: noqa: ASYNC240 - tests may block

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import anyio.to_thread
import pytest

import cnm
from cnm import Controller, SQLiteStore
from cnm.dns import files
from cnm.lifecycle import remove_table
from cnm.linux import namespaces

from .test_restore import remove_all
from .traffic import serving, tcp

PAGE = os.sysconf("SC_PAGE_SIZE")
OUT_OF_FILES = OSError(errno.EMFILE, "Too many open files")


async def test_a_process_that_cannot_be_looked_for(
    process: subprocess.Popen[bytes],
) -> None:
    async with Controller() as controller:
        with (
            patch("os.pidfd_open", side_effect=OUT_OF_FILES),
            pytest.raises(cnm.KernelError, match="Too many open files"),
        ):
            await controller.create_sandbox("box", bound_to=process.pid)
        assert controller.sandboxes == ()
        await controller.create_sandbox("box", bound_to=process.pid)


@contextmanager
def no_more_files() -> Iterator[None]:
    """Have the process have as many open files as it may have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_sandboxes_are_not_taken_for_gone() -> None:
    async with Controller(on_damage="report") as controller:
        network = await controller.create_network("front", subnets=["10.9.0.0/24"])
        boxes = [await controller.create_sandbox(name) for name in ("one", "two")]
        for box in boxes:
            await network.connect(box)
        with no_more_files():
            found = await controller.check()
            mended = await controller.repair()
        for differences in (found, mended):
            blind = [
                it for it in differences if isinstance(it.subject, cnm.SandboxInfo)
            ]
            assert [it.subject for it in blind] == [box.info for box in boxes]
            assert not any(it.mended for it in blind)
            for it in blind:
                assert it.problem.startswith("it cannot be looked into: ")
        assert controller.sandboxes == tuple(boxes)
        assert await controller.check() == ()
        async with serving(*boxes):
            assert await tcp(boxes[0], "10.9.0.3") == "10.9.0.2"


async def test_a_start_fails_rather_than_lose_a_sandbox(tmp_path: Path) -> None:
    path = tmp_path / "cnm.db"
    async with Controller(store=SQLiteStore(path)) as controller:
        key = (await controller.create_sandbox("box")).key
    real = os.open

    def scarce(path: str, flags: int, mode: int = 0o777) -> int:
        if path == key:
            raise OUT_OF_FILES
        return real(path, flags, mode)

    with patch("os.open", scarce), pytest.raises(cnm.KernelError):
        async with Controller(store=SQLiteStore(path)):
            pass
    async with Controller(store=SQLiteStore(path)) as controller:
        assert [it.outcome for it in controller.restored.entries] == ["kept"]
    await remove_all(path)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


async def test_a_start_fails_rather_than_think_a_process_dead(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    path = tmp_path / "cnm.db"
    async with Controller(store=SQLiteStore(path)) as controller:
        await controller.create_sandbox("box", bound_to=process.pid)
    with (
        patch("os.pidfd_open", side_effect=OUT_OF_FILES),
        pytest.raises(cnm.KernelError),
    ):
        async with Controller(store=SQLiteStore(path)):
            pass
    async with Controller(store=SQLiteStore(path)) as controller:
        assert [it.outcome for it in controller.restored.entries] == ["kept"]
        (box,) = controller.sandboxes
        assert box.id in controller._services.lifelines
    await remove_all(path)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system for a controller's directory, which is full while a file is there.

    :return: the path of that file
    """
    place = tmp_path / "run"
    place.mkdir()
    namespaces.mount("none", str(place), "tmpfs")
    yield place / "filling"
    subprocess.run(["umount", place], check=True)


def fill(file: Path) -> None:
    with suppress(OSError), file.open("wb", buffering=0) as stream:
        subprocess.run(["mount", "-o", "remount,size=20k", file.parent], check=True)
        while stream.write(bytes(4096)):
            pass


async def test_a_start_needs_no_room(tmp_path: Path, full: Path) -> None:
    store, run_dir = tmp_path / "cnm.db", full.parent

    def controller() -> Controller:
        return Controller(store=SQLiteStore(store), run_dir=run_dir)

    async with controller() as first:
        network = await first.create_network("front")
        await network.connect(await first.create_sandbox("box"))
    await anyio.to_thread.run_sync(fill, full)
    async with controller() as second:
        assert {it.outcome for it in second.restored.entries} == {"kept"}
        with pytest.raises(cnm.KernelError, match="No space left on device"):
            await second.create_sandbox("another")
        await second.gc([])
        await second.network("front").delete()
        await second._services.kernel.run(remove_table, second._services)


async def test_a_hosts_file_is_written_in_full_or_not_at_all(full: Path) -> None:
    name = "box" * 20
    async with Controller(run_dir=full.parent, on_damage="report") as controller:
        network = await controller.create_network("front")
        box = await controller.create_sandbox("probe")
        room = PAGE - os.path.getsize(box.hosts_path)
        await box.delete()
        # the line of its own does not fit into the page any more
        hosts = {f"h{n:03}": "10.1.1.1" for n in range(room // len("10.1.1.1\th000\n"))}
        box = await controller.create_sandbox("box", hostname=name, extra_hosts=hosts)
        before = Path(box.hosts_path).read_text()
        await anyio.to_thread.run_sync(fill, full)
        with pytest.raises(cnm.KernelError, match="No space left on device"):
            await network.connect(box)
        assert Path(box.hosts_path).read_text() == before
        assert (network.endpoints, box.endpoints) == ((), ())
        full.unlink()
        await network.connect(box)
        assert name in Path(box.hosts_path).read_text()


async def test_a_name_server_that_cannot_be_written_down() -> None:
    """The hosts file, which is written before, is as it was, too."""
    real = files.write

    def full_disk(path: str, content: str, present: str | None) -> None:
        if path.endswith("/resolv.conf"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, content, present)

    async with Controller() as controller:
        network = await controller.create_network("front", ipv4=False, ipv6=True)
        box = await controller.create_sandbox("box", hostname="box")
        before = Path(box.hosts_path).read_text()
        for _ in range(2):
            with (
                patch.object(files, "write", full_disk),
                pytest.raises(cnm.KernelError),
            ):
                await network.connect(box)
            assert Path(box.hosts_path).read_text() == before
        endpoint = await network.connect(box)
        assert endpoint.address6 is not None
        lines = Path(box.hosts_path).read_text().splitlines()
        own = [line.split()[0] for line in lines if line.endswith("\tbox")]
        assert own == [str(endpoint.address6.ip)]
