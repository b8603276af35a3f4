"""The allocators against models that are too simple to be wrong."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import count

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from cnm.errors import (
    AddressInUse,
    ForbiddenError,
    NoAvailableAddress,
    NoAvailablePool,
    PoolOverlap,
)
from cnm.ipam.addresses import AddressSet
from cnm.ipam.allocator import PoolAllocator
from cnm.types import AddressPool, IPAddress, IPNetwork, Pool

SUBNET = ip_network("10.0.0.0/28")
USABLE = frozenset(ip_address(str(host)) for host in SUBNET.hosts())
OWNERS = st.sampled_from(["ann", "bob"])
HOSTS = st.sampled_from(sorted(USABLE, key=int))
RANGES = {"p": ip_network("10.0.0.0/29"), "q": ip_network("10.0.0.8/29")}
POOLS = st.sampled_from(sorted(RANGES))


class AddressModel(RuleBasedStateMachine):
    """Two pools share a subnet; the model is a dict of who has what."""

    @initialize(serial=st.booleans())
    def start(self, serial: bool) -> None:
        self.serial = serial
        self.real = AddressSet(SUBNET)
        for pool, block in RANGES.items():
            self.real.add_pool(pool, block, serial=serial)
        self.model: dict[IPAddress, tuple[str, str]] = {}

    def free(self, pool: str) -> list[IPAddress]:
        free = USABLE - self.model.keys()
        return sorted((a for a in free if a in RANGES[pool]), key=int)

    @rule(pool=POOLS, owner=OWNERS)
    def request_any(self, pool: str, owner: str) -> None:
        free = self.free(pool)
        if not free:
            with pytest.raises(NoAvailableAddress):
                self.real.request(pool, owner, None)
            return
        got = self.real.request(pool, owner, None)
        assert got.network == SUBNET
        assert got.ip in free
        if not self.serial:
            assert got.ip == free[0]
        self.model[got.ip] = pool, owner

    @rule(pool=POOLS, owner=OWNERS, host=HOSTS)
    def request_static(self, pool: str, owner: str, host: IPAddress) -> None:
        if self.model.get(host, (pool, owner))[1] != owner:
            with pytest.raises(AddressInUse):
                self.real.request(pool, owner, host)
            return
        assert self.real.request(pool, owner, host).ip == host
        self.model.setdefault(host, (pool, owner))

    @rule(owner=OWNERS, host=HOSTS)
    def release(self, owner: str, host: IPAddress) -> None:
        if self.model.get(host, ("", owner))[1] != owner:
            with pytest.raises(ForbiddenError):
                self.real.release(owner, host)
            return
        self.real.release(owner, host)
        self.model.pop(host, None)

    @rule(pool=POOLS)
    def replace_pool(self, pool: str) -> None:
        self.real.remove_pool(pool)
        self.real.add_pool(pool, RANGES[pool], serial=self.serial)
        self.model = {a: c for a, c in self.model.items() if c[0] != pool}

    @invariant()
    def counts_agree(self) -> None:
        for pool in RANGES:
            status = self.real.status(pool)
            assert status.in_use == 2 + len(self.model)
            assert status.available == len(self.free(pool))


BASE = ip_network("10.0.0.0/24")
SUBNETS = st.builds(
    lambda size, index: list(BASE.subnets(new_prefix=size))[index % 2 ** (size - 24)],
    st.integers(25, 29),
    st.integers(0, 31),
)
EXCLUDE = st.lists(SUBNETS, max_size=3).map(tuple)


class PoolModel(RuleBasedStateMachine):
    """Subnets are chosen, reserved and released; the model is a list of them."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.real = PoolAllocator()
        self.model: list[IPNetwork] = []
        self.ids = count()

    @rule(target=held, size=st.sampled_from([None, 26, 28]), exclude=EXCLUDE)
    def choose(
        self, size: int | None, exclude: tuple[IPNetwork, ...]
    ) -> tuple[str, Pool] | None:
        network_id = str(next(self.ids))
        pools = (AddressPool(base=BASE, size=27),)
        used = [*self.model, *exclude]
        expected = next(
            (
                subnet
                for subnet in BASE.subnets(new_prefix=size or 27)
                if not any(subnet.overlaps(other) for other in used)
            ),
            None,
        )
        if expected is None:
            with pytest.raises(NoAvailablePool):
                self.real.choose(network_id, 4, size, pools, exclude, serial=True)
            return None
        pool = self.real.choose(network_id, 4, size, pools, exclude, serial=True)
        assert pool.subnet == expected
        self.model.append(pool.subnet)
        return network_id, pool

    @rule(target=held, subnet=SUBNETS)
    def reserve(self, subnet: IPNetwork) -> tuple[str, Pool] | None:
        network_id = str(next(self.ids))
        if any(subnet.overlaps(other) for other in self.model):
            with pytest.raises(PoolOverlap):
                self.real.reserve(network_id, subnet, None, serial=True)
            return None
        pool = self.real.reserve(network_id, subnet, None, serial=True)
        assert pool.subnet == subnet
        self.model.append(subnet)
        return network_id, pool

    @rule(pool=consumes(held))
    def release(self, pool: tuple[str, Pool] | None) -> None:
        if pool is not None:
            self.real.release(pool[0], pool[1].id)
            self.model.remove(pool[1].subnet)


SETTINGS = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAddressModel = AddressModel.TestCase
TestAddressModel.settings = SETTINGS
TestPoolModel = PoolModel.TestCase
TestPoolModel.settings = SETTINGS
