"""Answers of drivers that have the right type, and cannot be used."""

# ruff: noqa: PT012 - the block is what is tested

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

import cnm
from cnm import Controller
from cnm.driver import (
    Address,
    AddressRequested,
    DriverLoaded,
    EndpointState,
    JoinInfo,
    LeaveInfo,
    NetworkDeleted,
    NetworkState,
    Pool,
    PoolRequested,
    Requirements,
    hookimpl,
)
from cnm.ipam.default import DefaultIPAM
from cnm.linux import Placement

from .fakes import FakeDriver
from .test_drivers import WRONG, use

UNUSABLE: dict[str, list[tuple[object, str]]] = {
    "network.requested": [
        (Requirements(state={"set": {1}}), "state"),  # type: ignore[dict-item]
    ],
    "network.created": [
        (NetworkState(interface_prefix="much too long"), "interface_prefix"),
        (NetworkState(interface_prefix=5), "interface_prefix"),  # type: ignore[arg-type]
        (NetworkState(links=5), "links"),  # type: ignore[arg-type]
        (NetworkState(links=("br0",)), "links"),  # type: ignore[arg-type]
        (NetworkState(parents=(2**31,)), "parents"),
        (NetworkState(state=[1]), "state"),  # type: ignore[arg-type]
        (NetworkState(state={"object": object()}), "state"),  # type: ignore[dict-item]
        (NetworkState(state={1: 2}), "state"),  # type: ignore[dict-item]
    ],
    "endpoint.created": [
        (EndpointState(mac="nonsense"), "mac"),
        (EndpointState(mac="02-42-0A-09-00-02"), "mac"),
        (EndpointState(state={"bytes": b""}), "state"),  # type: ignore[dict-item]
    ],
    "endpoint.joined": [
        (JoinInfo(), "interface, plan"),
        (JoinInfo(interface=5), "interface"),  # type: ignore[arg-type]
        (JoinInfo(interface="a/b"), "interface"),
        (JoinInfo(plan="veth0"), "plan"),  # type: ignore[arg-type]
        (JoinInfo(interface="a", gateway="10.9.0.1"), "gateway"),  # type: ignore[arg-type]
        (JoinInfo(interface="a", gateway=ip_address("fd00::1")), "gateway"),
        (JoinInfo(interface="a", gateway6=ip_address("10.9.0.1")), "gateway6"),
        (JoinInfo(interface="a", routes=["10.0.0.0/8"]), "routes"),  # type: ignore[arg-type]
        (JoinInfo(interface="a", routes=5), "routes"),  # type: ignore[arg-type]
    ],
}


@pytest.mark.parametrize(
    ("step", "answer", "field"),
    [(step, *each) for step, some in UNUSABLE.items() for each in some],
)
async def test_an_answer_that_cannot_be_used_is_undone(
    step: str, answer: object, field: str
) -> None:
    fake = FakeDriver()
    async with Controller(drivers={"fake": fake}) as controller:
        fake.fail[step] = answer
        with pytest.raises(
            cnm.DriverError,
            match=f"'fake' failed to handle {step}: returned .*, {field}.*: expected ",
        ):
            await use(controller)
        assert fake.calls == WRONG[step]


@pytest.mark.parametrize("indexes", [5, "eth0", (-1,), (2**40,), (None,), ("eth0",)])
async def test_a_plan_that_does_not_return_indexes(indexes: Any) -> None:
    class Careless(FakeDriver):
        def plug(self, placement: Placement) -> Any:
            super().plug(placement)
            return indexes

    async with Controller(drivers={"fake": Careless()}) as controller:
        with pytest.raises(
            cnm.DriverError,
            match=r"endpoint\.joined: its plan returned .*: expected indexes of links",
        ):
            await use(controller)
        (network,) = controller.networks
        assert network.endpoints == ()


async def test_what_a_driver_knows_of_an_endpoint_is_a_mapping() -> None:
    fake = FakeDriver()
    async with Controller(drivers={"fake": fake}) as controller:
        _, _, endpoint = await use(controller)
        fake.fail["endpoint.inspected"] = 5
        with pytest.raises(cnm.DriverError, match="returned 5, not Mapping"):
            await endpoint.inspect()


async def test_a_plan_is_no_async_function() -> None:
    class Careless(FakeDriver):
        @hookimpl
        async def cnm_driver_loaded(self, event: DriverLoaded) -> None:
            self.kernel = event.kernel

        @hookimpl
        async def cnm_network_deleted(self, event: NetworkDeleted) -> None:
            if self.fail:
                await self.kernel.run(late)

        async def late(self, sockets: object) -> None:
            """Never gets here."""

    fake = Careless()
    late: Any = fake.late
    said = r"Careless\.late is async def: expected a plan, which blocks"
    async with Controller(drivers={"fake": fake}) as controller:
        network, box, endpoint = await use(controller)
        fake.fail["endpoint.left"] = LeaveInfo(plan=late)
        with pytest.raises(cnm.TeardownError) as caught:
            await endpoint.leave()
        assert caught.group_contains(cnm.DriverError, match=f"endpoint.left: .*{said}")
        fake.fail["endpoint.joined"] = JoinInfo(plan=late)
        with pytest.raises(cnm.DriverError, match=f"endpoint.joined: .*{said}"):
            await endpoint.join(box)
        await endpoint.delete()
        with pytest.raises(cnm.DriverError, match=f"network.deleted: .*{said}"):
            await network.delete()
        fake.fail.clear()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("mtu"), r"KeyError\('mtu'\)"),
        (AssertionError(), r"AssertionError\(\)"),
        (ExceptionGroup("two", [ValueError("one"), ValueError("other")]), "one; other"),
    ],
)
async def test_what_an_error_of_a_driver_says(error: Exception, words: str) -> None:
    fake = FakeDriver()
    async with Controller(drivers={"fake": fake}) as controller:
        fake.fail["network.created"] = error
        with pytest.raises(cnm.DriverError, match=f"network.created: {words}$"):
            await use(controller)


NET = ip_network("10.9.0.0/24")
#: Answers of IPAM drivers that cannot be used, and what is said of them.
UNUSABLE_IPAM: list[tuple[object, str]] = [
    (Pool(id=5, subnet=NET), "id: expected a string, not 5"),  # type: ignore[arg-type]
    (Pool(id="p", subnet="10.9.0.0/24"), "subnet: expected IPv4Network or IPv6Network"),  # type: ignore[arg-type]
    (Pool(id="p", subnet=NET, ip_range=5), "ip_range: expected IPv4Network or"),  # type: ignore[arg-type]
    (Pool(id="p", subnet=NET, gateway=ip_interface("10.9.0.1/24")), "gateway: expect"),
    (Pool(id="p", subnet=ip_network("fd00::/64")), "fd00::/64, which is not IPv4"),
    (
        Pool(id="p", subnet=NET, gateway=ip_address("10.8.0.1")),
        "returned gateway 10.8.0.1, which is not in 10.9.0.0/24",
    ),
    (Address(interface=ip_interface("10.8.0.2/24")), "10.8.0.2/24, which is not in"),
    (Address(interface=ip_address("10.9.0.2")), "interface: expected IPv4Interface"),  # type: ignore[arg-type]
    (Address(interface=ip_interface("fd00::2/64")), "fd00::2/64, which is not IPv4"),
]


@pytest.mark.parametrize(("answer", "said"), UNUSABLE_IPAM)
@pytest.mark.parametrize("gateway", [True, False])
async def test_an_answer_of_an_ipam_driver_that_cannot_be_used(
    answer: object, said: str, gateway: bool
) -> None:
    class Careless(DefaultIPAM):
        @hookimpl
        async def cnm_pool_requested(self, event: PoolRequested) -> Any:
            given = await super().cnm_pool_requested(event)
            return answer if isinstance(answer, Pool) else given

        @hookimpl
        async def cnm_address_requested(self, event: AddressRequested) -> Any:
            given = await super().cnm_address_requested(event)
            wrong = isinstance(answer, Address) and event.gateway == gateway
            return answer if wrong else given

    drivers = {"careless": Careless}
    async with Controller(drivers={"fake": FakeDriver}, ipam_drivers=drivers) as box:
        with pytest.raises(cnm.DriverError, match=f"'careless' failed to .*{said}"):
            network = await box.create_network(
                "net", "fake", subnets=["10.9.0.0/24"], ipam="careless"
            )
            await network.create_endpoint("one")


@pytest.mark.parametrize("what", ["gateway", "aux address", "endpoint"])
async def test_an_ipam_driver_that_gives_what_was_not_asked_for(what: str) -> None:
    class Stubborn(DefaultIPAM):
        @hookimpl
        async def cnm_address_requested(self, event: AddressRequested) -> Any:
            given = await super().cnm_address_requested(event)
            if event.address != ip_address("10.9.0.9"):
                return given
            return Address(interface=ip_interface("10.9.0.10/24"))

    drivers = {"stubborn": Stubborn}
    async with Controller(drivers={"fake": FakeDriver}, ipam_drivers=drivers) as box:
        said = "returned 10.9.0.10/24, and was asked for 10.9.0.9"
        with pytest.raises(cnm.DriverError, match=f"'stubborn' failed to .*{said}"):
            network = await box.create_network(
                "net",
                "fake",
                subnets=["10.9.0.0/24"],
                ipam="stubborn",
                gateways=["10.9.0.9"] if what == "gateway" else (),
                aux_addresses={"a": "10.9.0.9"} if what == "aux address" else None,
            )
            await network.create_endpoint("one", address="10.9.0.9")
