"""Ids and MAC addresses."""

from __future__ import annotations

import os

from cnm.linux import choose_id, choose_mac


def test_all_are_different() -> None:
    ids = [choose_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(len(it) == 64 and int(it, 16) >= 0 for it in ids)
    macs = [choose_mac() for _ in range(1000)]
    assert len(set(macs)) == 1000
    assert all(it.startswith("02:") and len(it) == 17 for it in macs)


def test_a_forked_process_has_others() -> None:
    choose_id()  # so that there are bytes left
    read, write = os.pipe()
    if not os.fork():
        os.write(write, choose_id().encode())
        os._exit(0)
    os.close(write)
    with open(read, encoding="ascii") as other:
        assert other.read() != choose_id()
    os.wait()
