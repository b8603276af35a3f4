"""What a network says of services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias, overload

from .errors import ConflictError
from .requests import service_name, service_record
from .types import ServiceRecord

_Records: TypeAlias = tuple[ServiceRecord, ...]
#: Returns the records that there are to be, given those that there are.
Change: TypeAlias = Callable[[_Records], _Records]


class ServiceRecords(Sequence[ServiceRecord]):
    """What a network says of services, as of the moment of asking for it."""

    def __init__(
        self, records: _Records, apply: Callable[[Change], Awaitable[None]]
    ) -> None:
        self._records = records
        self._apply = apply

    def __repr__(self) -> str:
        return f"<ServiceRecords {list(self._records)!r}>"

    @overload
    def __getitem__(self, index: int) -> ServiceRecord: ...
    @overload
    def __getitem__(self, index: slice) -> _Records: ...
    def __getitem__(self, index: int | slice) -> ServiceRecord | _Records:
        return self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    async def add(
        self,
        name: str,
        *,
        target: str = "",
        port: int = 0,
        priority: int = 0,
        weight: int = 0,
        texts: Iterable[str] = (),
    ) -> ServiceRecord:
        """Have sandboxes on the network find a service; they can when this returns.

        The parameters are those of :class:`ServiceRecord`. There may be several records
        of one name.

        :raises InvalidError: with everything that is wrong with the parameters
        :raises ConflictError: if there is such a record already
        :raises NetworkNotFound: if the network has been deleted
        :raises ForbiddenError: if the network only keeps a configuration for others
        """
        record = service_record(
            name,
            target=target,
            port=port,
            priority=priority,
            weight=weight,
            texts=texts,
        )

        def added(records: _Records) -> _Records:
            if _folded(record) in map(_folded, records):
                raise ConflictError(f"there is a record {record} already")
            return (*records, record)

        await self._apply(added)
        return record

    async def remove(self, name: str) -> None:
        """Take back all that is said of a service; no error if it is nothing.

        :param name: the name of the service
        :raises InvalidError: if it is no name
        :raises NetworkNotFound: if the network has been deleted
        """
        gone = service_name(name)
        await self._apply(
            lambda records: tuple(it for it in records if it.name.lower() != gone)
        )


def _folded(record: ServiceRecord) -> ServiceRecord:
    """Return a record as DNS compares it."""
    return replace(record, name=record.name.lower(), target=record.target.lower())
