"""A machine outside, and bridges that the firewall sees into, or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

import cnm
from cnm.errors import KernelError
from cnm.linux import sysctl
from tests.integration.api.conftest import outside
from tests.integration.barriers import Host

__all__ = ["outside"]

FILTERS = ("net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables")


@pytest.fixture
def controller(reporting_controller: cnm.Controller) -> cnm.Controller:
    """A running controller that removes what it makes, and mends no rules."""
    return reporting_controller


@pytest.fixture(params=[True, False], ids=["br_netfilter", "no br_netfilter"])
def filtered_bridges(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether br_netfilter has the firewall see what stays on a bridge."""
    before = {}
    with suppress(KernelError):  # without br_netfilter there is no such setting
        for name in FILTERS:
            before[name] = sysctl.read(name)
            sysctl.write(name, str(int(request.param)))
    yield request.param
    for name, value in before.items():
        sysctl.write(name, value)


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host
