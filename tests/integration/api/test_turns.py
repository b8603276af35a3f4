"""Hundreds of operations at once leave the event loop to others."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import anyio
import anyio.lowlevel

import cnm
from cnm.turns import AT_ONCE, Turns


async def test_only_so_many_begin_in_a_round() -> None:
    turns = Turns()
    begun: list[int] = []
    others: list[int] = []

    async def begin(number: int) -> None:
        await turns.take()
        begun.append(number)

    async def tick() -> None:
        while len(begun) < 100:
            others.append(len(begun))
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        for number in range(100):
            tasks.start_soon(begin, number)
    assert sorted(begun) == list(range(100))
    seen = [0, *others, 100]
    # a round of trio is in no order: two rounds may meet between two looks
    assert max(b - a for a, b in pairwise(seen)) <= 2 * AT_ONCE


async def test_one_after_the_other_does_not_wait() -> None:
    turns = Turns()
    others: list[str] = []

    async def other() -> None:
        others.append("had the event loop")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        for _ in range(AT_ONCE):
            await turns.take()
        assert others == []


async def test_who_is_cancelled_keeps_nobody_waiting() -> None:
    turns = Turns()
    for _ in range(AT_ONCE):
        await turns.take()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await turns.take()
    assert scope.cancelled_caught
    with anyio.fail_after(30):
        for _ in range(3 * AT_ONCE):
            await turns.take()


async def test_those_behind_who_is_cancelled_go_on() -> None:
    turns = Turns()
    for _ in range(AT_ONCE):
        await turns.take()
    begun: list[int] = []
    scopes = [anyio.CancelScope() for _ in range(3 * AT_ONCE)]

    async def begin(number: int) -> None:
        with scopes[number]:
            await turns.take()
            begun.append(number)

    async def cancel() -> None:
        for gone in (0, 1, AT_ONCE, 2 * AT_ONCE):
            scopes[gone].cancel()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for number in range(len(scopes)):
                tasks.start_soon(begin, number)
            tasks.start_soon(cancel)
    assert len(begun) >= len(scopes) - 4  # who had begun already was not cancelled
    assert len(set(begun)) == len(begun)


async def test_operations(controller: cnm.Controller) -> None:
    network = await controller.create_network("front")
    names = [f"box{number}" for number in range(3 * AT_ONCE)]
    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(controller.create_sandbox, name)
    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(network.connect, controller.sandbox(name))
    assert len(network.endpoints) == len(names)
    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(partial(controller.sandbox(name).delete))
    assert controller.sandboxes == ()
    assert network.endpoints == ()
