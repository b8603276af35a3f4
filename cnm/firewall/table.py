"""A controller's nftables table."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ..errors import ConflictError, NetlinkError
from ..linux.nftables import Batch, Element, commit, generation, list_tables
from .administration import keep_administration
from .completeness import missing
from .ruleset import BRIDGES, add_ruleset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..linux.netlink import NetlinkSocket
    from ..linux.nftables import Value

# How often somebody else may change tables while this one is being read and rebuilt.
_REBUILD_ATTEMPTS = 20
#: The kernel did not say what has become of a request: netlink_ack() of
#: net/netlink/af_netlink.c had no memory for it, or the answer did not fit.
_UNCERTAIN = (errno.ENOBUFS, errno.EIO)
_DEFAULT_CONTROLLER = "cnm"

_Place: TypeAlias = "tuple[str, tuple[Value, ...], tuple[Value, ...] | None]"
_Elements: TypeAlias = "dict[_Place, Element]"


class NftSockets(Protocol):
    """What the firewall needs of a plan's sockets."""

    @property
    def nft(self) -> NetlinkSocket:
        """A netlink socket of protocol ``NETLINK_NETFILTER``."""
        ...


def table_name(controller: str) -> str:
    """Return the name of a controller's table: ``cnm``, or ``cnm-NAME``."""
    if controller == _DEFAULT_CONTROLLER:
        return controller
    return f"{_DEFAULT_CONTROLLER}-{controller}"


def tables(sockets: NftSockets) -> list[str]:
    """Return the names of the namespace's tables, whoever made them.

    :raises MissingFeature: if the kernel has no nf_tables
    """
    return list_tables(sockets.nft)


class Firewall:
    """One table, and what ought to be in it.

    The methods block: they belong into plans. They may be called from several threads;
    each change is one atomic transaction.

    :param table: its name, see :func:`table_name`
    :param fwmark: mark and mask of packets that are let into networks from elsewhere
    :param enabled: whether there is a table at all; without one, the kernel is never
        touched, and changes are only taken down
    :param use: is told the port of each netlink socket before it changes the table
    :param memory: path of a file that says what has been switched on for it, in case
        that the table goes; it is not to outlive the host's start
    :ivar table: the table's name
    :ivar memory: the path of the file, ``""`` for none
    :ivar enabled: whether there is a table at all
    """

    def __init__(
        self,
        table: str,
        fwmark: tuple[int, int] | None = None,
        *,
        enabled: bool = True,
        use: Callable[[int], object] = lambda port: None,
        memory: str = "",
    ) -> None:
        self.table = table
        self.memory = memory
        self.enabled = enabled
        self._fwmark = fwmark
        self._lock = threading.Lock()
        self._built = False
        self._elements: _Elements = {}
        self._use = use
        self._ports: set[int] = set()
        self._put_back = False

    def __contains__(self, element: Element) -> bool:
        """Tell whether an element ought to be in the table."""
        return self._elements.get(_place(element)) == element

    @property
    def bridges(self) -> tuple[str, ...]:
        """The names of the bridges that ought to be in the table, sorted."""
        with self._lock:
            elements = [it for it in self._elements.values() if it.set is BRIDGES]
        return tuple(sorted(str(element.key[0]) for element in elements))

    @property
    def elements(self) -> tuple[Element, ...]:
        """What ought to be in the table."""
        with self._lock:
            return tuple(self._elements.values())

    def has_changed_by(self, port: int) -> bool:
        """Tell whether the table has been changed by way of a netlink socket."""
        return port in self._ports

    def update(
        self,
        sockets: NftSockets,
        *,
        add: Iterable[Element] = (),
        remove: Iterable[Element] = (),
    ) -> None:
        """Remove elements, then add elements: all of it, or nothing.

        Before the first :meth:`rebuild` it is only taken down. To remove what is not
        there, and to add what is there already, are no errors. If somebody has deleted
        the table, or elements of it, it is rebuilt.

        :raises ConflictError: if a key is to be added that has other data
        :raises NetlinkError: if the kernel refuses the change
        """
        with self._lock:
            change = _Change(self._elements, add, remove)
            if self._built:
                self._commit(sockets, change)
            change.apply()

    def _commit(self, sockets: NftSockets, change: _Change) -> None:
        batch = Batch(self.table)
        batch.delete_elements(change.removed.values())
        batch.add_elements(change.added.values())
        try:
            if not self._commit_if_there(sockets, batch):
                gone = not self.exists(sockets)
                self._rebuild(sockets, change.wanted())
                self._put_back |= gone
        except NetlinkError as exc:
            if exc.errno in _UNCERTAIN:
                self._rebuild(sockets, self._elements)
            raise

    def rebuild(self, sockets: NftSockets) -> None:
        """Make the table anew, with all its elements, without a gap in between.

        What the administrator has put into it stays: the rules of the chain ``user``,
        and the chains and sets that they mention.

        :raises MissingFeature: if the kernel has no nf_tables
        :raises NetlinkError: if the kernel refuses the table
        """
        if not self.enabled:
            return
        with self._lock:
            self._rebuild(sockets, self._elements)
            self._built = True

    def mend(self, sockets: NftSockets) -> bool:
        """Make the table anew if it ought to be there, and is not.

        :return: whether it was missing, or has been found missing by an :meth:`update`
        """
        with self._lock:
            if self._built and not self.exists(sockets):
                self._rebuild(sockets, self._elements)
                self._put_back = True
            was_missing, self._put_back = self._put_back, False
            return was_missing

    def check(self, sockets: NftSockets) -> tuple[str, ...]:
        """Say what is wrong with the table; nothing if all is as it should be."""
        with self._lock:
            if not self._built:
                return ()
            if not self.exists(sockets):
                return ("it is gone",)
            elements = tuple(self._elements.values())
            try:
                return tuple(missing(sockets.nft, self.table, elements, self._fwmark))
            except NetlinkError as exc:
                if exc.errno != errno.ENOENT:
                    raise
                return ("it is gone",)  # by now

    def remove(self, sockets: NftSockets) -> None:
        """Delete the table; no error if it is gone. Later updates are taken down."""
        if not self.enabled:
            return
        batch = Batch(self.table)
        batch.delete_table()
        with self._lock:
            self._built = False
            self._commit_if_there(sockets, batch)

    def exists(self, sockets: NftSockets) -> bool:
        """Return whether the kernel has the table."""
        return self.enabled and self.table in tables(sockets)

    def _note(self, port: int) -> None:
        if port not in self._ports:
            self._ports.add(port)
            self._use(port)

    def _rebuild(self, sockets: NftSockets, elements: _Elements) -> None:
        self._note(sockets.nft.port)
        batch = Batch(self.table)
        batch.add_table()  # so that there is one to delete
        batch.delete_table()
        batch.add_table()
        add_ruleset(batch, self._fwmark)
        batch.add_elements(elements.values())
        for _ in range(_REBUILD_ATTEMPTS):
            if self._replace(sockets.nft, batch):
                return
        raise NetlinkError(
            errno.ERESTART, f"rebuild table {self.table}", "it kept being changed"
        )

    def _commit_if_there(self, sockets: NftSockets, batch: Batch) -> bool:
        """Commit, and return False if what is to be changed does not exist."""
        self._note(sockets.nft.port)
        try:
            commit(sockets.nft, batch)
        except NetlinkError as exc:
            if exc.errno != errno.ENOENT:
                raise
            return False
        return True

    def _replace(self, nft: NetlinkSocket, ours: Batch) -> bool:
        """Replace the table, and return False if somebody changed it meanwhile."""
        batch = Batch(self.table)
        batch.requests += ours.requests
        before = generation(nft)
        try:
            if self.table in list_tables(nft):
                keep_administration(nft, batch)
            commit(nft, batch, generation=before)
        except NetlinkError as exc:
            gone = exc.errno == errno.ENOENT and generation(nft) != before
            if exc.errno != errno.ERESTART and not gone:
                raise
            return False
        return True


class _Change:
    """What an update comes to, given the elements that are there.

    :ivar removed: those that go
    :ivar added: those that come
    """

    def __init__(
        self, present: _Elements, add: Iterable[Element], remove: Iterable[Element]
    ) -> None:
        self._present = present
        self.removed: _Elements = {}
        self.added: _Elements = {}
        for element in remove:
            place = _place(element)
            if present.get(place) == element:
                self.removed[place] = element
        for element in add:
            self._add(element)

    def apply(self) -> None:
        """Make the change in the elements that are there."""
        for place in self.removed:
            del self._present[place]
        self._present.update(self.added)

    def wanted(self) -> _Elements:
        """Return the elements that are there afterwards."""
        present = self._present.items()
        stay = {place: it for place, it in present if place not in self.removed}
        return stay | self.added

    def _add(self, element: Element) -> None:
        place = _place(element)
        if self.removed.get(place) == element:
            del self.removed[place]
            return
        there = self.added.get(place)
        if there is None and place not in self.removed:
            there = self._present.get(place)
        if there is None:
            self.added[place] = element
        elif there != element:
            raise ConflictError(
                f"{element.key!r} in set {element.set.name!r} has {there.data!r} "
                f"already, and cannot have {element.data!r}"
            )


def _place(element: Element) -> _Place:
    return element.set.name, element.key, element.end
