"""Operations call no more functions where there are many other objects."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import FrameType

import cnm
from cnm import Controller

FEW, MANY = 4, 44
#: What may be done more often by chance: less than once for each object.
CHANCE = 20
#: What is counted belongs to the task that has set it, not to those in the background.
_counted: ContextVar[Counter[str] | None] = ContextVar("counted", default=None)


async def test_nothing_walks_through_all_others(controller: Controller) -> None:
    shared = await controller.create_network("shared", ipv6=True)
    few = await each(controller, shared)
    for number in range(FEW, MANY):
        await controller.create_network(f"n{number}")
        sandbox = await controller.create_sandbox(f"s{number}")
        await shared.connect(sandbox, ports=[f"{8000 + number}:80"])
    many = await each(controller, shared)
    for name in few:
        more = many[name] - few[name]
        assert {it: n for it, n in more.items() if n > CHANCE} == {}, name


async def each(controller: Controller, shared: cnm.Network) -> dict[str, Counter[str]]:
    """Return what operations call, by operation, when all is as before."""
    found: dict[str, Counter[str]] = {}

    async def counted(name: str, operation: Awaitable[object]) -> None:
        calls, restore = count()
        try:
            await operation
        finally:
            restore()
        found[name] = calls

    for _ in range(2):  # what is done once only is done in the first round
        await counted("create network", controller.create_network("net", ipv6=True))
        await counted("create sandbox", controller.create_sandbox("box"))
        box, net = controller.sandbox("box"), controller.network("net")
        await counted("connect", shared.connect(box, ports=["80"]))
        await counted("connect once more", net.connect(box))
        await counted("disconnect", shared.disconnect(box))
        await counted("delete sandbox", box.delete())
        await net.delete()
    return found


def count() -> tuple[Counter[str], Callable[[], None]]:
    """Count which functions of cnm this task calls, until told to stop."""
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, arg: object) -> None:
        module = str(frame.f_globals.get("__name__"))
        if event == "call" and module.startswith("cnm") and _counted.get() is calls:
            calls[f"{module}.{frame.f_code.co_qualname}"] += 1

    def restore() -> None:
        sys.setprofile(before)
        _counted.reset(token)

    token, before = _counted.set(calls), sys.getprofile()
    sys.setprofile(note)
    return calls, restore
