"""Where corrections go: to a store that never waits, or to what this worker decided by itself."""

from collections.abc import Awaitable

from ratelimit.fallback import Fallback
from ratelimit.receipts import DONE, Sender
from ratelimit.stores import MemoryStore, Op, Request


class AtOnce:
    """Takes corrections to a store that never waits."""

    def __init__(self, store: MemoryStore, guard: Sender) -> None:
        self._store = store
        self._guard = guard

    @property
    def countable(self) -> set[str]:
        """The policies and units that may be settled."""
        return self._guard.countable

    @property
    def closed(self) -> bool:
        """Whether nothing is renewed any more."""
        return self._guard.closed

    def send(self, request: Request) -> Awaitable[None]:
        """Write a correction."""
        self._store.run(request)
        return DONE


class Beside:
    """Takes corrections to what this worker decided by itself, or to the store where it has been told of it."""

    def __init__(self, guard: Sender, fallback: Fallback) -> None:
        self._guard, self._fallback = guard, fallback
        self._epoch = fallback.epoch

    @property
    def countable(self) -> set[str]:
        """The policies and units that may be settled."""
        return self._guard.countable

    @property
    def closed(self) -> bool:
        """Whether nothing is renewed any more."""
        return self._guard.closed

    def send(self, request: Request) -> Awaitable[None]:
        """Write a correction."""
        fallback = self._fallback
        if fallback.epoch == self._epoch:
            fallback.run(request)
            return DONE
        charges = [fallback.origin(charge) for charge in request.charges if charge.terms.kind != "concurrency"]
        if not charges or request.op != Op.ADJUST:
            return DONE  # Slots that were held here alone are forgotten.
        return self._guard.send(Request(charges, Op.ADJUST, 0, fallback.there(request.at)))
