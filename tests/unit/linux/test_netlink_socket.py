"""What a socket does, short of changing anything."""

from __future__ import annotations

import errno

import pytest

from cnm.errors import KernelError, NetlinkError
from cnm.linux import (
    Message,
    NetlinkSocket,
    Request,
    delete_link,
    dump_addresses,
    dump_links,
    get_link,
    parse_address,
    parse_link,
)
from cnm.linux.wire import HEADER, attribute_list, attributes, messages, nested, string

NOWHERE = 1 << 30


def test_answers() -> None:
    with NetlinkSocket() as socket:
        (message,) = socket.call(get_link(name="lo"))
    link = parse_link(message)
    assert (link.index, link.name, link.kind) == (1, "lo", "")


def test_several_requests_are_answered_in_order() -> None:
    with NetlinkSocket() as socket:
        answers = socket.call(get_link(1), get_link(name="lo"), get_link(1))
    assert [parse_link(it).name for it in answers] == ["lo"] * 3


def test_nothing_asked_nothing_answered() -> None:
    with NetlinkSocket() as socket:
        assert socket.call() == []


def test_all_errors_of_a_batch_are_collected() -> None:
    with NetlinkSocket() as socket, pytest.raises(NetlinkError) as caught:
        socket.call(get_link(1), get_link(NOWHERE), get_link(1), get_link(name="none"))
    error = caught.value
    assert (error.errno, error.index) == (errno.ENODEV, 1)
    assert error.what == f"get link {NOWHERE}"
    assert str(error) == f"get link {NOWHERE}: No such device"
    assert [(it.index, it.what) for it in error.others] == [(3, "get link none")]


def test_the_kernels_own_words() -> None:
    request = Request(16, 0, b"\0" * 4, "send nonsense")
    with NetlinkSocket() as socket, pytest.raises(NetlinkError) as caught:
        socket.call(request)
    assert caught.value.errno == errno.EINVAL
    with NetlinkSocket() as socket, pytest.raises(NetlinkError) as caught:
        socket.dump(Request(18, 0, b"\1" * 16, "list nonsense"))
    assert caught.value.text != ""
    assert caught.value.text in str(caught.value)


def test_answers_of_an_earlier_call_are_not_mistaken() -> None:
    with NetlinkSocket() as socket:
        # as if a call had been interrupted between sending and receiving
        socket._send((get_link(NOWHERE), get_link(1)), 1, 0)
        (message,) = socket.call(get_link(name="lo"))
        assert parse_link(message).name == "lo"
        socket._send((dump_links(),), -1, 0x300)
        found = socket.dump(dump_addresses(1))
        assert {parse_address(it).index for it in found} <= {1}


def test_sequence_numbers_start_again() -> None:
    with NetlinkSocket() as socket:
        socket._sequence = (1 << 31) - 2
        for _ in range(3):
            assert len(socket.call(get_link(1), get_link(1))) == 2


def test_listing() -> None:
    with NetlinkSocket() as socket:
        links = [parse_link(it) for it in socket.dump(dump_links())]
    assert [it.name for it in links if it.index == 1] == ["lo"]


def test_a_batch_that_does_not_fit_the_buffer() -> None:
    with NetlinkSocket() as socket:
        filler = Request(18, 0, b"\0" * 16 + string(20, "x" * 60_000), "fill")
        with pytest.raises(KernelError, match="fill: "):
            socket.call(*[filler] * 10, get_link(1))
        assert len(socket.call(get_link(1))) == 1


def test_interrupted_dumps_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = [([Message(16, b"old")], True), ([Message(16, b"new")], False)]
    monkeypatch.setattr(NetlinkSocket, "_collect", lambda *_: outcomes.pop(0))
    with NetlinkSocket() as socket:
        assert socket.dump(dump_links()) == [Message(16, b"new")]


def test_a_dump_that_is_always_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NetlinkSocket, "_collect", lambda *_: ([], True))
    with NetlinkSocket() as socket, pytest.raises(NetlinkError, match="kept changing"):
        socket.dump(dump_links())


def test_nothing_received() -> None:
    with NetlinkSocket() as socket:
        assert socket.receive() == []


def test_a_closed_socket() -> None:
    socket = NetlinkSocket()
    assert socket.fileno() >= 0
    socket.close()
    socket.close()
    assert socket.fileno() == -1
    with pytest.raises(KernelError, match="delete link 7: Bad file descriptor"):
        socket.call(delete_link(7))


def test_damaged_messages_end_the_reading() -> None:
    whole = nested(1, string(2, "abc"))
    assert attributes(attributes(whole)[1]) == {2: b"abc\0"}
    assert list(attribute_list(b"\2\0\1\0" + whole)) == []
    assert list(messages(HEADER.pack(8, 1, 0, 0, 0))) == []
    assert list(messages(b"short")) == []
