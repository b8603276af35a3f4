"""The interface of stores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..types import JSON


@dataclass(frozen=True, slots=True)
class Record:
    """A value in a store.

    :ivar key: e.g. ``"network/3f2a..."``
    :ivar value: what was put
    :ivar version: 1 when it was first put, and one more each time
    """

    key: str
    value: Mapping[str, JSON]
    version: int


@dataclass(frozen=True, slots=True)
class Put:
    """Write a value.

    :ivar version: the version that the record must have, 0 for none; None for any
    :ivar durable: have it survive power loss, and whatever was written before it; that
        takes the time of the disk. Otherwise it survives the death of the process.
    """

    key: str
    value: Mapping[str, JSON]
    version: int | None = None
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a record. It is no error if there is none.

    :ivar version: the version that the record must have, or None for any
    :ivar durable: as in :class:`Put`
    """

    key: str
    version: int | None = None
    durable: bool = False


class Store(ABC):
    """Where a controller keeps its journal.

    A controller opens its store once, and closes it once. A store serves one
    controller at a time.
    """

    #: Whether what is put outlives the controller. A controller whose store does not
    #: persist removes all that it has made when it stops.
    persistent: ClassVar[bool]

    #: Whether its transactions end by themselves within a time that is bounded. Others
    #: are given 60 seconds each.
    prompt: ClassVar[bool] = False

    #: Whether it has :meth:`write`.
    writes: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        # what another class says of its transactions holds for those only
        if "transaction" in cls.__dict__:
            cls.prompt = cls.__dict__.get("prompt", False)
            cls.writes = cls.__dict__.get("writes", False)

    @abstractmethod
    async def open(self) -> None:
        """Make the store ready.

        :raises StoreError: if it cannot be opened, or somebody else has it open
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of the store."""

    @abstractmethod
    async def get(self, key: str) -> Record | None:
        """Return the record of a key, or None."""

    @abstractmethod
    async def scan(self, prefix: str) -> tuple[Record, ...]:
        """Return all records whose keys start with a prefix, in the order of keys."""

    @abstractmethod
    async def transaction(self, *changes: Put | Delete) -> None:
        """Make all of the changes, or none of them.

        A transaction that has begun is not interrupted by cancellation, and what has
        been cancelled before is not made. It is durable if one of its changes is. A
        store that may hang, such as one at the end of a network, ends that itself: it
        raises StoreError after a time, and sees to it that what it has given up is not
        made afterwards.

        :raises StoreConflict: if a record has another version than the one expected
        :raises StoreError: if the changes cannot be written
        """

    def write(self, *changes: Put | Delete) -> None:
        """Do as :meth:`transaction` does, in a thread that may be kept waiting.

        With a store that has it (:attr:`writes`), what is done in the kernel to create
        a sandbox or to join, and what is recorded of it, are one thread trip in place
        of three. It may be called from several threads at once.
        """
        raise NotImplementedError

    async def put(
        self, key: str, value: Mapping[str, JSON], *, durable: bool = False
    ) -> None:
        """Write one value.

        :param durable: as in :class:`Put`
        """
        await self.transaction(Put(key, value, durable=durable))

    async def delete(self, key: str, *, durable: bool = False) -> None:
        """Remove one record. It is no error if there is none.

        :param durable: as in :class:`Put`
        """
        await self.transaction(Delete(key, durable=durable))
