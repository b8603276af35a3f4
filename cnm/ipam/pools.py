"""The pools from which networks without a subnet of their own get one."""

from __future__ import annotations

from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network

from ..types import AddressPool

# libnetwork's list, daemon/libnetwork/ipamutils: 31 networks.
_LOCAL = (
    ("172.17.0.0/16", 16),
    ("172.18.0.0/16", 16),
    ("172.19.0.0/16", 16),
    ("172.20.0.0/14", 16),
    ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16),
    ("192.168.0.0/16", 20),
)
# 16,384 networks more. The upper quarter of 10.0.0.0/8 is the least used: clouds,
# virtual private networks and Kubernetes' services are at home in the lower ones.
_PLENTY = ("10.192.0.0/10", 24)


def default_address_pools(host_id: bytes | str) -> tuple[AddressPool, ...]:
    """Return the pools of a controller that was not told any.

    The IPv4 pools are those of libnetwork, in its order, and then a part of
    10.0.0.0/8: 16,415 networks together. The IPv6 pool is a unique local prefix
    (RFC 4193) of 65,536 networks, which depends on nothing but ``host_id``, so that a
    host always gets the same one, and two hosts get different ones.

    :param host_id: what is stable and unique to the host, e.g. its machine id
    """
    ipv4 = (
        AddressPool(base=IPv4Network(base), size=size)
        for base, size in (*_LOCAL, _PLENTY)
    )
    return (*ipv4, AddressPool(base=_unique_local(host_id), size=64))


def _unique_local(host_id: bytes | str) -> IPv6Network:
    # RFC 4193 section 3.2.2 takes the low 40 bits of a hash. libnetwork takes those
    # of the first 8 bytes of SHA-256; the same here gives the same prefix.
    seed = host_id.encode() if isinstance(host_id, str) else host_id
    global_id = sha256(seed).digest()[3:8]
    return IPv6Network((b"\xfd" + global_id + bytes(10), 48))
