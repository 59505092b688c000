"""A sequence and a mapping that are never changed and cheap to make longer: the new one shares what the old one has.

A hundred thousand events add to the same few of them: copies would take time by the square of that.
"""

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from itertools import islice
from typing import Generic, TypeVar, overload

T = TypeVar("T")
V = TypeVar("V")
LAYER = 32
"""Changed entries that are copied with each change."""


class Growing(Sequence[T], Generic[T]):
    """A sequence; `plus` gives a longer one."""

    __slots__ = ("_items", "_size")

    def __init__(self, items: Iterable[T] = ()):
        self._items = list(items)
        self._size = len(self._items)

    def plus(self, *new: T) -> "Growing[T]":
        """This and more."""
        longer: Growing[T] = object.__new__(Growing)
        # What another one has appended after the end of this one is not overwritten.
        longer._items = self._items if len(self._items) == self._size else self._items[: self._size]
        longer._items.extend(new)
        longer._size = self._size + len(new)
        return longer

    def first(self, size: int) -> "Growing[T]":
        """Its first items."""
        shorter: Growing[T] = object.__new__(Growing)
        shorter._items, shorter._size = self._items, min(size, self._size)
        return shorter

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        return islice(self._items, self._size)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...
    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        if isinstance(place, slice):
            return [self._items[number] for number in range(*place.indices(self._size))]
        if not -self._size <= place < self._size:
            raise IndexError(place)
        return self._items[place if place >= 0 else place + self._size]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(list(self))


class Layered(Mapping[str, V], Generic[V]):
    """A mapping in order of first entry; `plus` gives one with another value."""

    __slots__ = ("_base", "_over", "_whole")

    def __init__(self, base: Mapping[str, V] | None = None, over: dict[str, V] | None = None):
        self._base = base or {}
        self._over = over or {}
        self._whole: dict[str, V] | None = None

    def plus(self, key: str, value: V) -> "Layered[V]":
        """This with a value."""
        over = {**self._over, key: value}
        return Layered(self._base, over) if len(over) <= LAYER else Layered({**self._base, **over})

    def __getitem__(self, key: str) -> V:
        return self._over[key] if key in self._over else self._base[key]

    def __contains__(self, key: object) -> bool:
        return key in self._over or key in self._base

    def __len__(self) -> int:
        return len(self._all())

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._all())

    def keys(self) -> KeysView[str]:
        """Its keys."""
        return self._all().keys()

    def values(self) -> ValuesView[V]:
        """Its values."""
        return self._all().values()

    def items(self) -> ItemsView[str, V]:
        """Both."""
        return self._all().items()

    def __repr__(self) -> str:
        return repr(self._all())

    def _all(self) -> dict[str, V]:
        if self._whole is None:
            self._whole = {**self._base, **self._over}
        return self._whole
