"""One value for each event loop."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Hold one value for each event loop, made by `make` when the loop asks for it first.

    Values of closed loops are dropped when a new loop asks: a test client may start one loop for each request.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[asyncio.AbstractEventLoop, T] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._values.values()))

    def get(self) -> T:
        """Return the value of the running event loop."""
        loop = asyncio.get_running_loop()
        value = self._values.get(loop)
        if value is None:
            self._values = {each: kept for each, kept in list(self._values.items()) if not each.is_closed()}
            value = self._values[loop] = self._make()
        return value

    def peek(self) -> T | None:
        """Return the value of the running event loop, or `None` where none was made."""
        return self._values.get(asyncio.get_running_loop())

    def pop(self) -> T | None:
        """Forget the value of the running event loop and return it, or `None` where none was made."""
        return self._values.pop(asyncio.get_running_loop(), None)

    def clear(self) -> None:
        """Forget the values of all event loops."""
        self._values.clear()
