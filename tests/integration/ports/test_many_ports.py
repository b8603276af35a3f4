"""Publishing ports by the thousand, and the file descriptors that it takes."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest

from cnm.errors import UnavailableError

from .world import HOST4, ONLY4, World, descriptors, publisher


@pytest.fixture
def few_files() -> Iterator[int]:
    """Allow the process 300 file descriptors more than it has."""
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = descriptors() + 300
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, old[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, old)


async def test_ten_thousand_ports(world: World, few_files: int) -> None:
    async with publisher(world) as it:
        before = descriptors()
        wanted = world.publication("20000-29999:20000-29999", **ONLY4)
        bindings = await it.mapper.publish(wanted)
        assert len(bindings) == 20_000
        assert descriptors() < before + 50
        assert not any(map(world.is_free, ["0.0.0.0"] * 100, range(20000, 30000, 100)))

        part = [each for each in bindings if each.host_port % 2]
        await it.mapper.unpublish("e1", part)

        assert world.is_free("0.0.0.0", 20001)
        assert world.is_free("::1", 29999)
        assert not world.is_free("0.0.0.0", 20000)
        assert not world.is_free("::1", 29998)
        await it.mapper.unpublish("e1")
        assert all(map(world.is_free, ["0.0.0.0"] * 100, range(20000, 30000, 100)))
        assert descriptors() == before + 2


async def test_too_few_file_descriptors(world: World, few_files: int) -> None:
    async with publisher(world) as it:
        await it.mapper.publish(world.publication("8080:80", **ONLY4))
        kept = [os.dup(0) for _ in range(few_files - descriptors() - 40)]
        try:
            before = descriptors()
            with pytest.raises(UnavailableError, match=rf"ulimit -n is {few_files}"):
                await it.mapper.publish(
                    world.publication("8080:80", "20000-29999:20000-29999", **ONLY4)
                )
            assert descriptors() == before
        finally:
            for descriptor in kept:
                os.close(descriptor)
        assert world.is_free("0.0.0.0", 20000)
        assert not world.is_free("0.0.0.0", 8080)
        assert await world.ask(world.client, HOST4, 8080) == "box 192.0.2.2"
