"""The end of a veth pair that was up first."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cnm.errors import NetlinkError
from cnm.linux import (
    add_bridge,
    add_veth,
    choose_index,
    get_link,
    set_link,
)
from cnm.linux.carrier import other_end, wait_for_carrier
from tests.integration.lab import Namespace, busy_kernel

PAIRS = 30
#: An EtherType for experiments (IEEE 802).
_EXPERIMENT = 0x88B5


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with Namespace("here") as here, Namespace("there") as there:
        yield here, there


def test_the_first_packet_arrives(ends: tuple[Namespace, Namespace]) -> None:
    here, there = ends
    here.route.call(add_bridge("br0", index=40, up=True))
    frame = b"\xff" * 6 + b"\x02" + b"\0" * 5 + _EXPERIMENT.to_bytes(2, "big") + b"?"
    lost = []
    with busy_kernel(), here.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("br0", 0))
        for number in range(PAIRS):
            with connected(here, there, f"eth{number}") as receiver:
                sender.send(frame)
                try:
                    receiver.recv(100)
                except TimeoutError:
                    lost.append(number)
    assert lost == []


@contextmanager
def connected(here: Namespace, there: Namespace, name: str) -> Iterator[socket.socket]:
    """Make a veth pair as drivers do: the port of the bridge is up first."""
    index, peer = choose_index(), choose_index()
    here.route.call(
        add_veth(
            name,
            name,
            index=index,
            peer_index=peer,
            peer_netns=there.netns,
            master=40,
            up=False,
        ),
        set_link(index, up=True),
    )
    kind = socket.htons(_EXPERIMENT)
    with there.socket(socket.AF_PACKET, socket.SOCK_RAW, kind) as receiver:
        receiver.settimeout(0.5)
        there.route.call(set_link(peer, up=True))
        wait_for_carrier(here.route, index, 40)
        receiver.bind((name, _EXPERIMENT))
        yield receiver


def test_who_waits_in_vain(
    ends: tuple[Namespace, Namespace], caplog: pytest.LogCaptureFixture
) -> None:
    here, _ = ends
    here.route.call(add_veth("v0", "v1", index=40, up=False), set_link(40, up=True))
    with caplog.at_level(logging.WARNING, "cnm"):
        wait_for_carrier(here.route, 40)
    assert caplog.messages == ["no carrier at link 40 after 0.02 s"]
    with pytest.raises(NetlinkError):
        wait_for_carrier(here.route, 41)


def test_the_other_end(ends: tuple[Namespace, Namespace]) -> None:
    here, there = ends
    here.route.call(
        add_veth("v0", "v1", index=40, peer_index=41),
        add_veth("w0", "w1", index=42, peer_index=43, peer_netns=there.netns),
        add_bridge("br0", index=44),
    )
    found = [other_end(here.route.call(get_link(it))[0]) for it in (40, 41, 42, 44)]
    assert found == [41, 40, 0, 0]
