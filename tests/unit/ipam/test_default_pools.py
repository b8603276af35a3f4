from __future__ import annotations

from hashlib import sha256
from ipaddress import IPv6Network

from cnm.ipam.pools import default_address_pools


def test_libnetworks_pools_come_first() -> None:
    listed = [f"{pool.base}:{pool.size}" for pool in default_address_pools("host")]
    assert listed[:7] == [
        "172.17.0.0/16:16",
        "172.18.0.0/16:16",
        "172.19.0.0/16:16",
        "172.20.0.0/14:16",
        "172.24.0.0/14:16",
        "172.28.0.0/14:16",
        "192.168.0.0/16:20",
    ]


def test_there_is_room_for_ten_thousand_networks_of_each_family() -> None:
    room = {4: 0, 6: 0}
    for pool in default_address_pools("host"):
        room[pool.base.version] += 2 ** (pool.size - pool.base.prefixlen)
    assert room == {4: 31 + 16_384, 6: 65_536}


def test_no_pool_overlaps_another() -> None:
    pools = default_address_pools("host")
    assert not any(a.base.overlaps(b.base) for a in pools for b in pools if a is not b)


def test_the_ipv6_prefix_is_the_hosts_own() -> None:
    base = default_address_pools("host")[-1].base
    low_40_bits = int.from_bytes(sha256(b"host").digest()[:8]) & (2**40 - 1)
    assert base == IPv6Network(((0xFD << 120) | (low_40_bits << 80), 48))
    assert default_address_pools(b"host")[-1].base == base
    assert default_address_pools("other")[-1].base != base
