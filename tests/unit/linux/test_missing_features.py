"""What kernels that lack something answer, as read in their sources."""

from __future__ import annotations

import errno

import pytest

from cnm.errors import MissingFeature, NetlinkError
from cnm.linux import NETLINK_NETFILTER, NetlinkSocket, add_bridge
from cnm.linux.netlink import _error
from cnm.linux.nftables import Batch, commit, generation, list_tables


def answering(monkeypatch: pytest.MonkeyPatch, code: int) -> NetlinkSocket:
    """Return a socket that gets an error for whatever is first asked."""

    def collect(_: object, requests: tuple[object, ...], *__: int) -> None:
        raise _error(code, requests[0])  # type: ignore[arg-type]

    monkeypatch.setattr(NetlinkSocket, "_send", lambda *_: 1)
    monkeypatch.setattr(NetlinkSocket, "_collect", collect)
    return NetlinkSocket()


def test_a_link_type() -> None:
    code = errno.EOPNOTSUPP
    error = _error(code, add_bridge("br0"), "Unknown device type")
    assert isinstance(error, MissingFeature)
    assert str(error) == "add bridge br0: this kernel lacks CONFIG_BRIDGE"
    # the type is there, something else is not supported
    assert isinstance(_error(code, add_bridge("br0"), "MTU"), NetlinkError)


def test_tables_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch("cnm")
    batch.add_table()
    with (
        answering(monkeypatch, errno.EOPNOTSUPP) as socket,
        pytest.raises(MissingFeature, match=r"change table cnm: .* CONFIG_NF_TABLES"),
    ):
        commit(socket, batch)


@pytest.mark.parametrize("read", [list_tables, generation])
def test_tables_cannot_be_read(monkeypatch: pytest.MonkeyPatch, read: object) -> None:
    assert callable(read)
    with (
        answering(monkeypatch, errno.EINVAL) as socket,
        pytest.raises(MissingFeature, match="CONFIG_NF_TABLES"),
    ):
        read(socket)
    with (
        answering(monkeypatch, errno.ENOMEM) as socket,
        pytest.raises(NetlinkError, match="Cannot allocate memory"),
    ):
        read(socket)


def test_no_netfilter_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr("cnm.linux.netlink.socket.socket", refuse)
    with pytest.raises(MissingFeature, match="CONFIG_NETFILTER_NETLINK"):
        NetlinkSocket(NETLINK_NETFILTER)
