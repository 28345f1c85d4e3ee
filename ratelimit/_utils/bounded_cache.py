"""Dictionaries whose size has a bound."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Self, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(dict[K, V]):
    """Hold at most `max_size` entries: an insert beyond that first drops all others.

    `cache[key] = value` and `merge` check the bound. Reads are those of `dict`, and as fast. A `max_size` of 0 stores nothing.
    `generation` counts the calls of `clear`: code that computes a value while `clear` may be called compares it before
    and after.
    """

    def __init__(self, max_size: int) -> None:
        super().__init__()
        self.max_size = max_size
        self.generation = 0

    def __reduce__(self) -> tuple[Callable[[int], Self], tuple[int]]:
        """Pickle and copy as an empty cache."""
        return type(self), (self.max_size,)

    def __setitem__(self, key: K, value: V) -> None:
        if len(self) >= self.max_size and key not in self:
            super().clear()
            if self.max_size == 0:
                return
        super().__setitem__(key, value)

    def merge(self, entries: Mapping[K, V]) -> None:
        """Insert several entries, and check the bound once: it may be exceeded by their number."""
        if len(self) >= self.max_size:
            super().clear()
        super().update(entries)

    def clear(self) -> None:
        """Drop all entries."""
        self.generation += 1
        super().clear()


class LruCache(OrderedDict[K, V]):
    """Hold at most `max_size` entries: beyond that, the one that was used longest ago is dropped."""

    def __init__(self, max_size: int) -> None:
        super().__init__()
        self._max_size = max_size

    def put(self, key: K, value: V) -> None:
        """Insert or replace an entry, and count it as used."""
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._max_size:
            self.popitem(last=False)

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """Return the entry of `key`, made by `make` where there is none, and count it as used."""
        if key not in self:
            self.put(key, make())
        self.move_to_end(key)
        return self[key]
