"""Putting right what the kernel does not have as it should be."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from types import NoneType

import anyio

from . import (
    allocation,
    attaching,
    inspection,
    interfaces,
    joining,
    republishing,
)
from .endpoint import Endpoint
from .errors import CNMError, KernelError, NetworkNotFound, told
from .events import FirewallRebuilt, NetworkRestored
from .findings import Findings
from .firewall import forget_unseen
from .inspection import Damage, check_network, examine_all, expected
from .linux import Link, Sockets, delete_link
from .network import Network
from .plugins import Driver
from .reports import Difference, Outcome
from .sandbox import Sandbox
from .services import Services
from .turns import gather
from .types import NetworkState

_logger = logging.getLogger(__name__)


async def remake(
    services: Services, damages: Iterable[tuple[Sandbox, Damage]], findings: Findings
) -> None:
    """Make interfaces again that are gone, when a controller starts."""

    async def rejoin(sandbox: Sandbox, damage: Damage) -> None:
        endpoint = _endpoint(sandbox, damage)
        if endpoint is None:
            return
        await services.turns.take()
        try:
            async with sandbox.lock:  # nobody but us yet
                await joining.rejoin(services, endpoint, sandbox)
        except CNMError as exc:
            findings.add(endpoint.info, "detached", f"{damage.problem}: {exc}")
        else:
            findings.add(endpoint.info, "remade", damage.problem)

    await gather(partial(rejoin, *each) for each in damages)


async def vacate(services: Services, findings: Findings) -> None:
    """Have endpoints leave the host's own network, which earlier versions let in.

    They could not join it now, and are not made again if they are gone.
    """
    asked = [it for it in services.sandboxes if it.adopted and _strangers(it)]
    if asked:
        home = await services.kernel.run(_at_home, asked)
        await gather(partial(_vacate, it, findings) for it in home)


def _strangers(sandbox: Sandbox) -> list[Endpoint]:
    return [endpoint for endpoint in sandbox.endpoints if endpoint.interface]


def _at_home(sockets: Sockets, sandboxes: Iterable[Sandbox]) -> list[Sandbox]:
    """Plan: return the sandboxes that are in the controller's own network."""
    found = []
    for sandbox in sandboxes:
        with suppress(KernelError):  # it has gone meanwhile
            if interfaces.is_home(sockets, sandbox.key):
                found.append(sandbox)
    return found


async def _vacate(sandbox: Sandbox, findings: Findings) -> None:
    reason = f"sandbox {sandbox.name!r} is in the host's own network"
    for endpoint in _strangers(sandbox):
        try:
            await endpoint.leave()
        except CNMError as exc:
            reason = f"{reason}: {told(exc)}"
        outcome: Outcome = "failed" if endpoint.joined else "detached"
        findings.add(endpoint.info, outcome, reason)


async def repair(services: Services) -> tuple[Difference, ...]:
    """Mend what differs from what the kernel should have.

    :return: what was found, and what has become of it
    """
    problems = await services.kernel.run(services.firewall.check)
    subject = f"table {services.firewall.table}"
    found = [Difference(subject=subject, problem=problem) for problem in problems]
    result = await _mend(found, partial(_mend_table, services))
    round_ = _Round(services)
    jobs = [partial(round_.mend_network, it) for it in services.networks]
    others = [partial(round_.mend_sandbox, it) for it in services.sandboxes]
    result += chain.from_iterable(await gather([*jobs, *others]))
    for link in await inspection.strays(services):
        stray = Difference(subject=f"link {link.name}", problem="it belongs to nothing")
        result += await _mend([stray], partial(_delete, services, link))
    return tuple(result)


class _Round:
    """Looks after all networks, and all sandboxes, at the same time.

    A sandbox waits for the networks that it is in: those of others, and whatever takes
    long about them, are none of its business.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._seen = {network.id: anyio.Event() for network in services.networks}
        self._broken: dict[str, str] = {}

    async def mend_network(self, network: Network) -> list[Difference]:
        """Have a network's driver mend what is wrong with it."""
        services = self._services
        try:
            found = await check_network(services, network)
            outcome = await _mend(found, partial(_mend_network, services, network))
            if errors := [it.error for it in outcome if it.error]:
                self._broken[network.id] = errors[0]
            return outcome
        finally:
            self._seen[network.id].set()

    async def mend_sandbox(self, sandbox: Sandbox) -> list[Difference]:
        """Mend a sandbox, but for endpoints of networks that cannot be mended yet."""
        for endpoint in sandbox.endpoints:
            if seen := self._seen.get(endpoint.network.id):
                await seen.wait()
        await self._services.turns.take()
        return await _repair_sandbox(self._services, sandbox, self._broken)


async def _delete(services: Services, link: Link) -> None:
    await services.kernel.run(
        lambda sockets: sockets.route.call(delete_link(link.index))
    )


async def _mend(
    found: Iterable[Difference], mend: Callable[[], Awaitable[None]]
) -> list[Difference]:
    """Mend several differences at once; say what has become of them."""
    differences = list(found)
    if not differences:
        return []
    try:
        await mend()
    except CNMError as exc:
        return [replace(it, error=str(exc)) for it in differences]
    return [replace(it, mended=True) for it in differences]


async def put_table_back(services: Services) -> bool:
    """Make the nftables table anew if it is gone; return whether it was."""
    gone = await services.kernel.run(services.firewall.mend)
    if gone:
        await services.kernel.run(forget_unseen, services.firewall)
        _logger.warning("somebody removed the nftables table; it is back")
        services.bus.publish(FirewallRebuilt(controller=services.name))
    return gone


async def _mend_table(services: Services) -> None:
    if not await put_table_back(services):
        await services.kernel.run(services.firewall.rebuild)
        await services.kernel.run(forget_unseen, services.firewall)
    await services.admit()


async def _mend_network(services: Services, network: Network) -> None:
    await _take_up(services, network)
    await services.admit()


async def _take_up(services: Services, network: Network) -> None:
    """Have the driver of a network mend what it has built."""
    async with network.lock:
        if network.deleting:
            raise NetworkNotFound(network.name)
        driver, fault = network.handler, network.fault
        if fault:
            driver = await _reserve_again(services, network)
        if driver is None:
            return
        endpoints = inspection.joined(network)
        event = NetworkRestored(network=network.info, endpoints=endpoints)
        state = await services.answer(driver, event, NetworkState, NoneType)
        if state is not None and state != network.state:
            await network.renew(state)
        network.recovered(driver)
        for endpoint in network.endpoints:
            endpoint.recovered(driver)
            if not fault:
                await republishing.again(services, endpoint)
        if fault:
            await _publish(services, network)
    services.bus.publish(NetworkRestored(network=network.info))


async def _reserve_again(services: Services, network: Network) -> Driver:
    """Get the subnets and addresses of a network that could not be restored.

    :return: its driver
    """
    driver = await services.driver(network.driver)
    ipam = await services.ipam(network.info.ipam)
    # the start may have come that far; nobody else is let in between
    await allocation.release_network(ipam, network.info)
    await allocation.restore_network(ipam, network.info)
    for endpoint in network.endpoints:
        await allocation.restore_addresses(ipam, endpoint.info)
    return driver


async def _publish(services: Services, network: Network) -> None:
    """Publish what the start could not, of all sandboxes in a network."""
    joined = dict.fromkeys(endpoint.sandbox for endpoint in network.endpoints)
    for sandbox in filter(None, joined):
        async with sandbox.lock:
            one = (sandbox.info, sandbox.members())
            await republishing.restore(services, [one], Findings())


async def _repair_sandbox(
    services: Services, sandbox: Sandbox, broken: Mapping[str, str]
) -> list[Difference]:
    """Mend a sandbox, but for endpoints of networks that cannot be mended yet."""
    result: list[Difference] = []
    wanted = [(sandbox, expected(services, sandbox))]
    for _, damage in await services.kernel.run(examine_all, wanted):
        found = [
            Difference(subject=damage.info or sandbox.info, problem=damage.problem)
        ]
        if damage.info is not None:
            reason = broken.get(damage.info.network.id)
        else:
            reason = None if damage.gone else damage.problem
        if reason is not None:
            result += [replace(it, error=reason) for it in found]
            continue
        mend = partial(_mend_sandbox, services, sandbox, damage)
        result += await _mend(found, mend)
    return result


async def _mend_sandbox(services: Services, sandbox: Sandbox, damage: Damage) -> None:
    if damage.info is None:
        await _lose(services, sandbox)
        return
    endpoint = _endpoint(sandbox, damage)
    if endpoint is None:
        return  # it has left meanwhile
    async with endpoint.lock, sandbox.lock:
        if endpoint.sandbox is sandbox:
            with anyio.CancelScope(shield=True):
                await _mend_interface(services, sandbox, endpoint)


async def _lose(services: Services, sandbox: Sandbox) -> None:
    """Drop a sandbox whose namespace is gone; its endpoints stay, joined to none."""
    for endpoint in sandbox.endpoints:
        async with endpoint.lock, sandbox.lock:
            if endpoint.sandbox is sandbox:
                await joining.abandon(services, endpoint, sandbox)
    await sandbox.delete()


async def _mend_interface(
    services: Services, sandbox: Sandbox, endpoint: Endpoint
) -> None:
    """Mend what is wrong with an interface, now that nobody else changes it."""
    wanted = [it for it in expected(services, sandbox) if it.info.id == endpoint.id]
    found = await services.kernel.run(examine_all, [(sandbox, tuple(wanted))])
    damages = [damage for _, damage in found]
    if any(damage.gone for damage in damages):
        await joining.rejoin(services, endpoint, sandbox)
    elif damages and endpoint.attachment is not None:
        info, index = endpoint.info, endpoint.attachment.index
        addresses = attaching.addresses(info)
        plan = partial(interfaces.reconfigure, mac=info.mac, addresses=addresses)
        await services.kernel.run(plan, sandbox.key, index)
        await sandbox.reroute()


def _endpoint(sandbox: Sandbox, damage: Damage) -> Endpoint | None:
    identity = damage.info.id if damage.info else ""
    return next((it for it in sandbox.endpoints if it.id == identity), None)
