"""What tests need of a kernel that not every kernel has.

A test that is marked ``@needs("ipvlan")`` is skipped where the kernel has no ipvlan.
With ``CNM_TEST_ALL_FEATURES=1``, as in the guest of ``make test-vm``, it fails there.
Whether a kernel has a feature is tried out: what can be loaded counts as there.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from functools import cache, partial
from ipaddress import IPv4Address
from socket import AF_INET, AF_UNSPEC, IPPROTO_ESP, htonl

import pytest

from cnm.errors import KernelError
from cnm.linux import (
    NetlinkSocket,
    Request,
    add_dummy,
    add_ipvlan,
    add_macvlan,
    add_veth,
    add_vlan,
)
from cnm.linux.wire import (
    LINK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    attribute,
    nested,
    string,
    u32,
)
from tests.integration.lab import Namespace

#: index of a veth, on which links and queueing disciplines are made
_PARENT = 1 << 28

# include/uapi/linux/rtnetlink.h, if_link.h
_RTM_NEWLINK, _RTM_NEWQDISC = 16, 36
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_INFO_DATA = 3, 18, 1, 2
_IFLA_VRF_TABLE = 1
_TCA_KIND, _TCA_OPTIONS, _TC_H_ROOT = 1, 2, 0xFFFFFFFF
# include/uapi/linux/netlink.h, genetlink.h
_NETLINK_XFRM, _NETLINK_GENERIC = 6, 16
_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, _CTRL_ATTR_FAMILY_NAME = 16, 3, 2
# include/uapi/linux/xfrm.h
_XFRM_MSG_NEWSA, _XFRMA_ALG_AEAD = 16, 18

#: How a kernel says that it does not have what is asked for.
_ABSENT = {
    errno.EOPNOTSUPP,  # a kind of link
    errno.ENOENT,  # a queueing discipline, a generic netlink family
    errno.EPROTONOSUPPORT,  # a netlink protocol, a transformation
    errno.ENOSYS,  # an algorithm
}


def needs(*features: str) -> pytest.MarkDecorator:
    """Mark a test, or a module's tests, that need features of the kernel."""
    unknown = set(features) - FEATURES.keys()
    assert not unknown, unknown
    return pytest.mark.needs(*features)


def check(item: pytest.Item) -> None:
    """Skip a test, or have it fail, if the kernel lacks what it needs."""
    wanted = [str(name) for mark in item.iter_markers("needs") for name in mark.args]
    missing = [name for name in dict.fromkeys(wanted) if not has(name)]
    if not missing:
        return
    reason = f"this kernel has no {', '.join(missing)}"
    if os.environ.get("CNM_TEST_ALL_FEATURES") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@cache
def has(feature: str) -> bool:
    """Tell whether the kernel has a feature, by trying it in a namespace of its own."""
    with Namespace("try") as host:
        host.route.call(
            add_veth("cnm-a", "cnm-b", index=_PARENT, peer_index=_PARENT + 1)
        )
        try:
            FEATURES[feature](host)
        except KernelError as exc:
            if exc.errno not in _ABSENT:
                raise
            return False
    return True


def netem(index: int, *, delay: int) -> Request:
    """Have all that leaves by a link be late.

    :param delay: milliseconds
    """
    # struct tcmsg, struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter;
    # a tick of the packet scheduler is 64 ns (include/net/pkt_sched.h)
    header = struct.pack("=BxxxiIII", AF_UNSPEC, index, 0, _TC_H_ROOT, 0)
    options = struct.pack("=6I", delay * 1_000_000 >> 6, 1000, 0, 0, 0, 0)
    body = header + string(_TCA_KIND, "netem") + attribute(_TCA_OPTIONS, options)
    return Request(_RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body, "add netem")


def add_vrf(name: str, *, table: int, index: int = 0, up: bool = False) -> Request:
    """Make a VRF: a link whose ports have a routing table of their own."""
    return _add_link("vrf", name, index, up, u32(_IFLA_VRF_TABLE, table))


def _add_link(kind: str, name: str, index: int, up: bool, data: bytes = b"") -> Request:
    info = string(_IFLA_INFO_KIND, kind) + nested(_IFLA_INFO_DATA, data)
    header = LINK.pack(AF_UNSPEC, 0, index, int(up), int(up))
    body = header + string(_IFLA_IFNAME, name) + nested(_IFLA_LINKINFO, info)
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add {kind} {name}")


def _route(request: Request, host: Namespace) -> None:
    host.route.call(request)


def _call(protocol: int, request: Request, host: Namespace) -> None:
    with host.run(partial(NetlinkSocket, protocol)) as netlink:
        netlink.call(request)


def _add_state() -> Request:
    """Make a state of ESP with AES-GCM, as encrypted overlays have it."""
    # struct xfrm_usersa_info: selector, id, source, lifetimes and statistics, sequence
    # number, reqid, family, mode (0: transport), replay window, flags
    one, two = IPv4Address("192.0.2.1").packed, IPv4Address("192.0.2.2").packed
    identity = struct.pack("=16sIB3x", two, htonl(0x1000), IPPROTO_ESP)
    tail = struct.pack("=IIHBBB7x", 0, 1, AF_INET, 0, 0, 0)
    state = bytes(56) + identity + one.ljust(16, b"\0") + bytes(108) + tail
    # struct xfrm_algo_aead: name, bits of the key, bits of the check value, key
    cipher = struct.pack("=64sII20x", b"rfc4106(gcm(aes))", 160, 128)
    body = state + attribute(_XFRMA_ALG_AEAD, cipher)
    return Request(_XFRM_MSG_NEWSA, NLM_F_CREATE | NLM_F_EXCL, body, "add ESP")


def _get_family(name: str) -> Request:
    # struct genlmsghdr: command, version
    body = struct.pack("=BBxx", _CTRL_CMD_GETFAMILY, 1)
    body += string(_CTRL_ATTR_FAMILY_NAME, name)
    return Request(_GENL_ID_CTRL, 0, body, f"find {name}")


#: What is done to try out a feature.
FEATURES: dict[str, Callable[[Namespace], None]] = {
    "dummy": partial(_route, add_dummy("cnm-try")),
    "esp": partial(_call, _NETLINK_XFRM, _add_state()),
    "ip_vs": partial(_call, _NETLINK_GENERIC, _get_family("IPVS")),
    "ipvlan": partial(_route, add_ipvlan("cnm-try", parent=_PARENT)),
    "macvlan-source": partial(
        _route, add_macvlan("cnm-try", parent=_PARENT, mode="source")
    ),
    "netem": partial(_route, netem(_PARENT, delay=1)),
    "vlan": partial(_route, add_vlan("cnm-try", parent=_PARENT, identity=7)),
    "vrf": partial(_route, add_vrf("cnm-try", table=7)),
    "wireguard": partial(_route, _add_link("wireguard", "cnm-try", 0, False)),
}
