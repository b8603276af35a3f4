"""The rules for IPAM drivers."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Callable, Mapping

import anyio

from ...errors import CNMError, DriverError
from ...events import (
    AddressReleased,
    AddressRequested,
    PoolReleased,
    PoolRequested,
)
from ...hookspecs import IPAMDriver
from ...plugins import Driver
from ...types import Address, IPAddress, IPNetwork, Pool
from .report import ConformanceError, Violation, violation

Found = AsyncIterator[str]
SUBNETS: tuple[IPNetwork, ...] = (
    ipaddress.ip_network("10.77.0.0/24"),
    ipaddress.ip_network("fd77::/64"),
)
#: How many addresses are asked for at once.
MANY = 20


def _made(driver: Callable[[], object], timeout: float) -> Driver:
    return Driver("subject", driver(), IPAMDriver, timeout=timeout)


async def _pool(driver: Driver, subnet: IPNetwork, network: str = "net") -> Pool:
    event = PoolRequested(network_id=network, version=subnet.version, subnet=subnet)
    return await driver.demand(event, Pool)


async def _address(
    driver: Driver, pool: Pool, owner: str, wanted: IPAddress | None = None
) -> IPAddress | None:
    event = AddressRequested(pool_id=pool.id, owner=owner, address=wanted)
    interface = (await driver.demand(event, Address)).interface
    return interface.ip if interface else None


async def _life(driver: Driver, again: Driver) -> Found:
    for subnet in SUBNETS:
        pool = await _pool(driver, subnet)
        if pool.subnet != subnet:
            yield f"{subnet} was asked for, and {pool.subnet} given"
        found = await _address(driver, pool, "a")
        if found is None:
            yield "no address was given, though a subnet was"
            continue
        if found not in pool.subnet:
            yield f"{found} is not in {pool.subnet}"
        await driver.handle(AddressReleased(pool_id=pool.id, owner="a", address=found))
        if await _address(driver, pool, "b", found) != found:
            yield f"{found} was released, asked for again, and not given"
        await driver.handle(PoolReleased(network_id="net", pool_id=pool.id))
        # it may be somebody else's now
        await _pool(driver, subnet, "other")


async def _once(driver: Driver, again: Driver) -> Found:
    pool = await _pool(driver, SUBNETS[0])
    given: list[IPAddress | None] = []

    async def ask(number: int) -> None:
        given.append(await _address(driver, pool, f"owner{number}"))

    async with anyio.create_task_group() as tasks:
        for number in range(MANY):
            tasks.start_soon(ask, number)
    if len(set(given)) != MANY:
        yield f"{MANY} were asked for at once, and {len(set(given))} different given"
    try:
        await _address(driver, pool, "thief", given[0])
        yield f"{given[0]} is in use, and was given to somebody else"
    except CNMError as exc:
        if isinstance(exc, DriverError):
            yield f"for an address in use it raised {exc.__cause__!r}"


async def _undo_twice(driver: Driver, again: Driver) -> Found:
    pool = await _pool(driver, SUBNETS[0])
    found = await _address(driver, pool, "a")
    assert found is not None
    released = AddressReleased(pool_id=pool.id, owner="a", address=found)
    gone = PoolReleased(network_id="net", pool_id=pool.id)
    for subject, event in (
        *((driver, it) for it in (released, released, gone, gone, released)),
        # after a restart: what was interrupted is undone
        *((again, it) for it in (released, gone)),
    ):
        try:
            await subject.handle(event)
        except Exception as exc:
            yield f"{event.name} failed with nothing left to release: {exc}"


async def _owners(driver: Driver, again: Driver) -> Found:
    pool = await _pool(driver, SUBNETS[0])
    found = await _address(driver, pool, "a")
    assert found is not None
    stranger = AddressReleased(pool_id=pool.id, owner="b", address=found)
    try:
        await driver.handle(stranger)
    except CNMError:
        return
    try:
        if await _address(driver, pool, "c", found) == found:
            yield f"{found} of one owner was released by another"
    except CNMError:
        return


async def _restart(driver: Driver, again: Driver) -> Found:
    pool = await _pool(driver, SUBNETS[0])
    found = await _address(driver, pool, "a")
    same = await _pool(again, SUBNETS[0])
    if same.id != pool.id:
        yield f"after a restart, pool {pool.id!r} is called {same.id!r}"
    if await _address(again, same, "a", found) != found:
        yield f"after a restart, {found} was asked for again, and not given"


async def _full(driver: Driver, again: Driver) -> Found:
    pool = await _pool(driver, ipaddress.ip_network("10.78.0.0/29"))
    for number in range(9):
        try:
            await _address(driver, pool, f"owner{number}")
        except CNMError as exc:
            if isinstance(exc, DriverError):
                yield f"a full subnet makes it raise {exc.__cause__!r}"
            return
    yield "9 addresses were given of a subnet that has 8"


Rule = Callable[[Driver, Driver], Found]
RULES: Mapping[str, tuple[Rule, str]] = {
    "life": (_life, "give what is asked for, and take it back"),
    "once": (_once, "an address has one owner; raise AddressInUse for another"),
    "undo twice": (_undo_twice, "releasing what is not there succeeds"),
    "owners": (_owners, "only the owner of an address releases it"),
    "restart": (
        _restart,
        "name pools by what they are of: after a restart the core asks for all again",
    ),
    "full": (_full, "raise NoAvailableAddress when there is none left"),
}


async def check_ipam_driver(
    driver: Callable[[], object], *, timeout: float = 10.0
) -> None:
    """Check that an IPAM driver keeps to the contract.

    :param driver: the driver's class, or a function that makes one
    :param timeout: seconds that a handler may take
    :raises ConformanceError: with all rules that it breaks, and what to do about each
    """
    violations: list[Violation] = []
    for name, (rule, advice) in RULES.items():
        try:
            made, again = _made(driver, timeout), _made(driver, timeout)
            problems = [problem async for problem in rule(made, again)]
        except Exception as exc:
            problems = [f"{type(exc).__name__}: {exc}"]
        violations += [
            violation(name, problem, advice) for problem in dict.fromkeys(problems)
        ]
    if violations:
        raise ConformanceError(violations)
