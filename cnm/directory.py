"""Finding objects by name, id and id prefix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from .errors import InvalidError, NameConflict, NotFoundError
from .validation import shown


class Named(Protocol):
    """An object with an id and a name."""

    @property
    def id(self) -> str:
        """The id."""
        ...

    @property
    def name(self) -> str:
        """The name."""
        ...


T = TypeVar("T", bound=Named)


class Directory(Generic[T]):
    """Objects of one kind. Names are unique, and can be reserved before there is one.

    :param not_found: the error that says that there is no such object
    :param where: what the names are unique in, for error messages
    :param everywhere: where those of several directories are kept by their ids, too
    """

    def __init__(
        self,
        not_found: type[NotFoundError],
        where: str = "",
        everywhere: dict[str, T] | None = None,
    ) -> None:
        self._not_found = not_found
        self._where = where
        self._everywhere: dict[str, T] = {} if everywhere is None else everywhere
        self._objects: dict[str, T] = {}
        self._names: dict[str, T] = {}
        self._reserved: dict[str, None] = {}

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._objects.values()))

    def __len__(self) -> int:
        return len(self._objects)

    @property
    def reserved(self) -> tuple[str, ...]:
        """Names of objects that are being made."""
        return tuple(name for name in self._reserved if name not in self._names)

    @contextmanager
    def reserve(self, name: str) -> Iterator[None]:
        """Keep a name for an object that is added within the block.

        Nobody else has it until the end of the block, even if the object is removed
        again.

        :raises NameConflict: if the name is taken
        """
        if name in self._names or name in self._reserved:
            raise NameConflict(
                f"{self._not_found.kind} with name {shown(name)} already exists"
                f"{self._where}"
            )
        self._reserved[name] = None
        try:
            yield
        finally:
            del self._reserved[name]

    def add(self, item: T) -> None:
        """Add an object."""
        self._objects[item.id] = self._everywhere[item.id] = item
        self._names[item.name] = item

    def remove(self, item: T) -> None:
        """Remove an object. No error if it is gone."""
        if self._objects.pop(item.id, None) is not None:
            del self._names[item.name]
            self._everywhere.pop(item.id, None)

    def get(self, identity: str) -> T | None:
        """Return the object of an id, or None."""
        return self._objects.get(identity)

    def find(self, ref: str) -> T:
        """Return an object: a full id beats a name, a name beats an id prefix.

        :raises NotFoundError: if there is none
        :raises InvalidError: if several ids start with the prefix
        """
        kind = self._not_found.kind
        if not isinstance(ref, str) or not ref.strip():
            raise InvalidError(f"invalid {kind} name or id: {shown(ref)}")
        if item := self._objects.get(ref) or self._names.get(ref):
            return item
        hits = [self._objects[key] for key in self._objects if key.startswith(ref)]
        if len(hits) > 1:
            raise InvalidError(
                f"{kind} {shown(ref)} is ambiguous ({len(hits)} matches found)"
            )
        if not hits:
            raise self._not_found(ref if len(ref) <= 80 else f"{ref[:77]}...")
        return hits[0]
