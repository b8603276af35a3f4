"""What tests need of a kernel that not every kernel has.

A test that is marked ``@needs("ipvlan")`` is skipped where the kernel has no ipvlan.
With ``CNM_TEST_ALL_FEATURES=1``, as in the guest of ``make test-vm``, it fails there.
"""

from __future__ import annotations

import os
from functools import cache

import pytest

from cnm.errors import MissingFeature
from cnm.linux import (
    Request,
    add_dummy,
    add_ipvlan,
    add_veth,
    add_vlan,
    delete_link,
)
from tests.integration.lab import Namespace

_PARENT = 1 << 28


#: What is made to try out a feature.
FEATURES: dict[str, Request] = {
    "dummy": add_dummy("cnm-try"),
    "ipvlan": add_ipvlan("cnm-try", parent=_PARENT),
    "vlan": add_vlan("cnm-try", parent=_PARENT, identity=7),
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
    """Tell whether the kernel has a feature, by trying it in a thread's namespace."""
    with Namespace("try") as host:
        host.route.call(
            add_veth("cnm-a", "cnm-b", index=_PARENT, peer_index=_PARENT + 1, up=True)
        )
        try:
            host.route.call(FEATURES[feature])
        except MissingFeature:
            return False
        finally:
            host.route.call(delete_link(_PARENT))
    return True
