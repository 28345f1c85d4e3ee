"""What every store does."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

from ratelimit.charge import Charge
from ratelimit.decision import ServiceLimit, Triple, service_limits


class Op(IntEnum):
    """What is done with the charges of one request; from `HOLD` on, a holder or an instant goes with them."""

    CHARGE = 0
    """Make all enforcing charges, or none of them where one has no room; a shadow where it has room itself."""
    PEEK = 1
    """Make none."""
    USAGE = 2
    """Make none, and answer (used, reset, used in the period before) for each."""
    HOLD = 3
    """As `CHARGE`, and the slots are the holder's."""
    ADJUST = 4
    """Change what was charged at `at` by the costs, above or below zero, whether or not there is room; slots are
    taken from the holder."""
    RELEASE = 5
    """Take the costs, below zero, off what is there now; none of them where one exceeds what was taken."""
    RENEW = 6
    """Let the holder's leases begin anew."""


CORRECTIONS: Final = (Op.ADJUST, Op.RENEW)
"""What nobody waits for, and is done in any case; who asks for anything else goes on without it."""


class Request(NamedTuple):
    """The charges of one request and what to do with them, all together in one step.

    `at` is the store's own instant of an earlier answer (0: now). `abandoned` is called with the answer where it could
    no longer be given to who asked, because they were cancelled, and with `None` where there is none.
    """

    charges: Sequence[Charge]
    op: Op = Op.CHARGE
    holder: int = 0
    at: int = 0
    abandoned: Callable[[Any, "Answer | None"], None] | None = None


class Answer(NamedTuple):
    """What a store says to one request: three integers for each charge, as `service_limit` reads them.

    `now` is this process's clock in epoch microseconds; `at` is the instant by the store's own clock in milliseconds,
    which means something to nobody but the store.
    """

    numbers: Sequence[Triple]
    now: int
    at: int

    def limits(self, charges: Sequence[Charge]) -> list[ServiceLimit]:
        """Return the service limits of the charges that were asked for."""
        return service_limits(charges, self.numbers, self.now)


class Notes(NamedTuple):
    """A few named values that all who use a store share, and the version that they have: never the same again."""

    version: int
    values: Mapping[str, bytes]


class Store(ABC):
    """Keeps counters and decides the charges of a request in one atomic step, and keeps a few notes beside them.

    Every method raises `StoreError` when the store does not do its work, and never anything of the store's own library.
    Corrections (`ADJUST`, `RENEW`) that have set out are the store's to finish, once, also where it raised; whoever asked
    for anything else goes on without it, and `Request.abandoned` hears of what was done for them all the same.
    """

    @abstractmethod
    async def submit(self, request: Request) -> Answer:
        """Do what is asked with the charges of one request."""

    @abstractmethod
    async def notes(self, book: str, seen: int | None) -> Notes | None:
        """Return what is noted in `book`, or `None` where that is still the version `seen`."""

    @abstractmethod
    async def note(self, book: str, name: str, value: bytes | None) -> None:
        """Write a note, or remove it with `None`, and with it change the book's version."""

    async def present(self, book: str, worker: str, seconds: float) -> int:
        """Make `worker` known in `book` for so many seconds (0: no more), and return how many are known there now.

        A store that nobody shares knows of one.
        """
        del book, worker, seconds
        return 1

    async def settle(self) -> bool:
        """Find out what became of calls that nobody knows of, and say whether none is left; before closing."""
        return True

    @abstractmethod
    async def aclose(self) -> None:
        """Give back what the store holds open; it is not used afterwards. May be called twice."""

    async def charge(self, charges: Sequence[Charge], *, peek: bool = False) -> Sequence[ServiceLimit]:
        """Charge all or, with `peek`, nothing, and return one service limit for each, in their order."""
        answer = await self.submit(Request(charges, Op.PEEK if peek else Op.CHARGE))
        return answer.limits(charges)
