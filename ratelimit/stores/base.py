"""The interface of a store."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from ratelimit._utils.histogram import Histogram
from ratelimit.errors import StoreError
from ratelimit.model.charge import Charge
from ratelimit.model.service_limit import ServiceLimit
from ratelimit.stores.messages import Operation, Outcome, SharedMap, StoreReply, StoreRequest

T = TypeVar("T")

BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128)
"""The bounds of the histogram of batches."""


class Store(ABC):
    """Keeps counters, decides the charges of a request in one atomic step, and keeps a few small shared maps.

    Derive from this to write a store; `ratelimit.testing.StoreConformance` is the suite that it has to pass. Every method
    raises `StoreError` when the store does not do its work, and never an error of the store's own library.

    A correction (`ADJUST`, `RENEW`) that was sent is completed by the store, once, even where `submit` raised. A caller
    of any other operation goes on without the reply; `StoreRequest.on_orphaned` later gets what was done for it.
    """

    batches: Histogram | None = None
    """How many requests traveled in each call, where several do."""

    is_immediate = False
    """Whether `submit_nowait` does all requests, so that nothing ever waits for this store."""

    call_timeout: float = 0.0
    """Seconds for which a caller waits at most for a request that one call can do; 0: there is no such bound."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # A subclass of an in-process store that changes `submit` alone, by itself or by a mixin, is asked through it.
        owners = [next(each for each in cls.__mro__ if name in each.__dict__) for name in ("submit", "submit_nowait")]
        if cls.__mro__.index(owners[0]) < cls.__mro__.index(owners[1]):
            cls.submit_nowait = Store.submit_nowait  # type: ignore[method-assign]

    @abstractmethod
    async def submit(self, request: StoreRequest) -> StoreReply:
        """Do what is asked with the charges of one request."""

    def submit_nowait(self, request: StoreRequest) -> StoreReply | None:
        """Do as `submit` where that never waits and never fails; return `None`, and do nothing, where it might."""
        del request
        return None

    async def rehearse(self, request: StoreRequest) -> StoreReply:
        """Return what `submit` would reply to charges, and change nothing. By default the numbers are as before them."""
        return await self.submit(request._replace(operation=Operation.PEEK))

    def submit_soon(
        self, request: StoreRequest, then: Callable[[StoreRequest, Outcome], T]
    ) -> asyncio.Future[T] | None:
        """Do as `submit`, by a future of what `then` makes of the reply or the `StoreError`, or return `None`.

        `then` is called as soon as the outcome is known, unless the future was cancelled before. The callers of
        a batch then need no coroutine each. A store that does not offer this returns `None`, and does nothing.
        """
        del request, then
        return None

    @abstractmethod
    async def read_map(self, name: str, seen: int | None) -> SharedMap | None:
        """Return the shared map `name`, or `None` where its version is still `seen`."""

    @abstractmethod
    async def put_entry(self, name: str, entry: str, value: bytes | None) -> None:
        """Write one entry of the shared map `name`, or remove it with `None`, and give the map a new version."""

    async def delete(self, keys: Iterable[str]) -> int:
        """Forget these counters, and return how many of them there were. A store that cannot raises `StoreError`."""
        del keys
        raise StoreError(f"{type(self).__name__} cannot empty counters [RL412]")

    async def add_counts(self, spans: Sequence[tuple[str, int]], counts: Mapping[str, int]) -> None:
        """Add these numbers to the counts of each span of time, which is kept for so many seconds, in one call.

        A store that keeps none does nothing.
        """
        del spans, counts

    async def read_counts(self, spans: Sequence[str]) -> Sequence[Mapping[str, int]]:
        """Return the counts of these spans of time; of one that is not kept, none."""
        return [{} for _ in spans]

    async def append_log(self, name: str, values: Sequence[bytes], *, keep: int, seconds: int) -> None:
        """Append to a log that holds about `keep` values and ends `seconds` after the last; a store may keep none."""
        del name, values, keep, seconds

    async def read_log(self, name: str, *, last: int = 100, after: str | None = None) -> Sequence[tuple[str, bytes]]:
        """Return the `last` values of a log, or the first so many `after` an id, each with its id, the oldest first."""
        del name, last, after
        return ()

    async def add_ranks(
        self, ranks: Mapping[str, Mapping[str, int]], *, keep: int, seconds: int, replace: bool = False
    ) -> None:
        """Add these numbers to rankings, of which each keeps its `keep` largest for `seconds`; a store may keep none.

        With `replace` the numbers are set, rather than added to those that there are.
        """
        del ranks, keep, seconds, replace

    async def read_ranks(self, names: Sequence[str], *, member: str | None = None) -> Sequence[Mapping[str, int]]:
        """Return these rankings, or one `member` of each; of one that is not kept, none."""
        del member
        return [{} for _ in names]

    async def heartbeat(self, registry: str, worker: str, seconds: float) -> int:
        """Register `worker` for `seconds` (0: remove it), and return the number of workers registered now.

        A store that is not shared counts one.
        """
        del registry, worker, seconds
        return 1

    async def evicts_by(self) -> str | None:
        """Return by which policy the store drops counters in use when its memory is full; `None`: by none that is known."""
        return None

    async def drain(self) -> None:  # noqa: B027 - an in-process store has no calls in flight
        """Wait for the calls in flight in this event loop: one may still lose its reply. Call before closing."""

    async def resolve_in_doubt(self) -> bool:
        """Find out which calls without a reply were done, and return whether none remains. Call before closing."""
        return True

    @abstractmethod
    async def aclose(self) -> None:
        """Close what the running event loop holds open; may be called twice."""

    async def charge(self, charges: Sequence[Charge], *, peek: bool = False) -> Sequence[ServiceLimit]:
        """Charge all or, with `peek`, nothing, and return one service limit for each charge, in their order."""
        operation = Operation.PEEK if peek else Operation.CHARGE
        reply = await self.submit(StoreRequest(charges, operation))
        return reply.service_limits(charges)
