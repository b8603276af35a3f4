"""What the core does with drivers that publish ports, and with those that do not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest

import cnm
from cnm.driver import (
    EndpointJoined,
    EndpointPublished,
    EndpointUnpublished,
    JoinInfo,
    PortBinding,
    PublishInfo,
    hookimpl,
)
from cnm.linux import Sockets
from cnm.store import Put

from .fakes import FailingStore, FakeDriver

HOST = ip_address("192.0.2.1")


class PublishingDriver(FakeDriver):
    """Publishes in its own mind only.

    :param plans: whether it answers with plans
    :ivar published: the names of endpoints, and what they have to publish
    :ivar done: how many plans it knows to be done
    """

    def __init__(self, *, plans: bool) -> None:
        super().__init__()
        self.plans = plans
        self.published: dict[str, tuple[str, ...]] = {}
        self.done = 0

    @hookimpl
    async def cnm_endpoint_joined(self, event: EndpointJoined) -> JoinInfo:
        return await super().cnm_endpoint_joined(event)

    @hookimpl
    async def cnm_endpoint_published(
        self, event: EndpointPublished
    ) -> tuple[PortBinding, ...] | PublishInfo:
        address = event.endpoint.address
        assert address is not None
        wanted = event.requests if event.gateway4 else ()
        bindings = tuple(
            PortBinding(
                container_port=request.container_port,
                host_port=request.host_port,
                host_address=HOST,
                container_address=address.ip,
            )
            for request in wanted
        )
        name = event.endpoint.network.name

        def publish() -> None:
            self.published[name] = tuple(map(str, event.requests))

        answer: Any = await self._hear(event, bindings)
        return self._answer(publish, answer)  # type: ignore[no-any-return]

    @hookimpl
    async def cnm_endpoint_unpublished(
        self, event: EndpointUnpublished
    ) -> PublishInfo | None:
        await self._hear(event, None)
        name = event.endpoint.network.name
        return self._answer(lambda: self.published.pop(name, None), ()) or None

    def _answer(self, change: Callable[[], object], answer: Any) -> Any:
        if not self.plans:
            change()
            return answer

        def plan(sockets: Sockets) -> Any:
            if error := self.fail.get("publishing plan"):
                raise error
            change()
            return answer

        return PublishInfo(plan=plan, done=self._count)

    def _count(self) -> None:
        self.done += 1


@pytest.fixture(params=[False, True], ids=["answers", "plans"])
def fake(request: pytest.FixtureRequest) -> PublishingDriver:
    return PublishingDriver(plans=request.param)


@asynccontextmanager
async def running(
    fake: FakeDriver, store: cnm.Store | None = None
) -> AsyncIterator[tuple[cnm.Controller, cnm.Network, cnm.Network, cnm.Sandbox]]:
    async with cnm.Controller(drivers={"fake": fake}, store=store) as controller:
        one = await controller.create_network("one", "fake", subnets=["10.1.0.0/24"])
        two = await controller.create_network("two", "fake", subnets=["10.2.0.0/24"])
        yield controller, one, two, await controller.create_sandbox("box")


async def test_a_driver_that_does_not_publish() -> None:
    async with running(FakeDriver()) as (_, one, _, box):
        with pytest.raises(
            cnm.InvalidError, match="driver 'fake' does not publish ports"
        ):
            await one.connect(box, ports=["80"])
        endpoint = await one.connect(box)
        with pytest.raises(cnm.ForbiddenError, match="does not publish"):
            await endpoint.publish("80")


async def test_order_of_calls(fake: PublishingDriver) -> None:
    async with running(fake) as (_, one, _, box):
        await one.connect(box, ports=["8080:80"])
        await box.delete()
    assert fake.calls[4:] == [
        "endpoint.created",
        "endpoint.joined",
        "endpoint.published",
        "endpoint.unpublished",
        "endpoint.left",
        "endpoint.deleted",
        "network.deleted",
        "network.deleted",
    ]


async def test_all_ports_go_by_way_of_the_gateway(fake: PublishingDriver) -> None:
    async with running(fake) as (_, one, two, box):
        first = await one.connect(box, ports=["8080:80"])
        second = await two.connect(box, ports=["8081:81"])
        both = ("8080:80/tcp", "8081:81/tcp")
        assert fake.published == {"one": both, "two": ("8081:81/tcp",)}
        assert [it.host_port for it in first.ports] == [8080, 8081]
        assert not second.ports
        assert box.ports == first.ports
        await first.leave()
        assert fake.published == {"two": ("8081:81/tcp",)}
        assert [it.host_port for it in second.ports] == [8081]
        await first.join(box)
        assert fake.published == {"one": both[::-1], "two": ("8081:81/tcp",)}
        assert not second.ports
        await first.delete(force=True)
        await second.unpublish("81")
        assert fake.published == {}
        assert second.info.port_requests == ()


@pytest.mark.parametrize("wrong", [RuntimeError("no"), (), [], ("8080",), None])
async def test_a_driver_that_fails(fake: PublishingDriver, wrong: object) -> None:
    """The join is undone, and what was published elsewhere is published again."""
    async with running(fake) as (_, one, two, box):
        first = await one.connect(box, ports=["8080:80"])
        before = dict(fake.published)
        bindings = first.ports
        if wrong == ():
            fake.fail["plan"] = RuntimeError("no")
        elif wrong is None:
            fake.fail["endpoint.unpublished"] = RuntimeError("no")
        else:
            fake.fail["endpoint.published"] = wrong
        if wrong is None:
            with pytest.raises(cnm.DriverError):
                await first.leave()
        else:
            with pytest.raises(cnm.DriverError):
                await two.connect(box, ports=["8081:81"], gateway_priority=5)
        fake.fail.clear()
        assert first.ports == bindings
        assert fake.published.get("one") == before["one"]
        assert two.endpoints == ()
        assert first.joined


async def test_a_store_that_fails(fake: PublishingDriver) -> None:
    store = FailingStore()
    async with running(fake, store) as (_, one, _, box):
        endpoint = await one.connect(box, ports=["8080:80"])
        published, bindings = dict(fake.published), endpoint.ports
        store.failing = True
        with pytest.raises(cnm.StoreError):
            await endpoint.publish("8081:81")
        with pytest.raises(cnm.StoreError):
            await endpoint.unpublish()
        store.failing = False
        assert fake.published == published
        assert endpoint.ports == bindings
        assert [str(it) for it in endpoint.info.port_requests] == ["8080:80/tcp"]


async def test_subscribers_hear_it_after_it_is_stored(fake: PublishingDriver) -> None:
    store = FailingStore()
    kinds = cnm.EndpointPublished, cnm.EndpointUnpublished
    async with (
        running(fake, store) as (controller, one, two, box),
        controller.subscribe(*kinds) as events,
    ):
        await one.connect(box, ports=["8080:80"])
        heard = await anext(events)
        assert isinstance(heard, cnm.EndpointPublished)
        assert heard.endpoint.ports == box.ports
        assert heard.sandbox == box.info
        await two.connect(box, gateway_priority=1)
        gone, new = await anext(events), await anext(events)
        assert isinstance(gone, cnm.EndpointUnpublished)
        assert isinstance(new, cnm.EndpointPublished)
        assert gone.bindings == heard.endpoint.ports
        assert new.endpoint.network.name == "two"
        last = store.transactions[-1]
        stored = [change for change in last if isinstance(change, Put)]
        assert len(stored) == 2, "both endpoints are stored at once"


async def test_a_plan_of_ports_that_fails() -> None:
    """It is part of the join: all of that is undone."""
    fake = PublishingDriver(plans=True)
    async with running(fake) as (_, one, _, box):
        for error, kind in (
            (RuntimeError("no"), cnm.DriverError),
            (cnm.ConflictError("taken"), cnm.ConflictError),
        ):
            fake.fail["publishing plan"] = error
            with pytest.raises(kind):
                await one.connect(box, ports=["8080:80"])
            assert fake.calls[-3:] == [
                "endpoint.published",
                "endpoint.left",
                "endpoint.deleted",
            ]
            fake.fail.clear()
            assert (one.endpoints, box.endpoints, fake.done) == ((), (), 0)
        endpoint = await one.connect(box, ports=["8080:80"])
        assert (endpoint.interface, fake.done) == ("fake0", 1)
        fake.fail["publishing plan"] = RuntimeError("no")
        with pytest.raises(cnm.TeardownError):
            await box.delete()
        assert one.endpoints == ()
