"""Turns for outbound work: evenly spaced, first come first served."""

import asyncio
import logging
import math
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakValueDictionary

from ratelimit.charge import NEVER, Charge, Terms
from ratelimit.clock import Clock, system_clock
from ratelimit.decision import Decision
from ratelimit.errors import ConfigurationError, LimitExceeded, StoreError, StoreUnavailable
from ratelimit.keys import escape
from ratelimit.rate import Rate
from ratelimit.stores import Answer, Op, Request, Store, open_store
from ratelimit.turns import Line, Turn
from ratelimit.waiting import check_wait, in_background

logger = logging.getLogger("ratelimit")

_PAUSE: Final = 0.2
"""Seconds between two tries where the store is away."""

_GRACE: Final = 0.05
"""Seconds that a turn which was near enough may come later than it should."""

_FASTEST: Final = 100_000
"""Turns in a second: intervals shorter than 10 µs are nothing that anybody can keep."""

_FOREVER: Final = 10.0**9
"""A bound in seconds that is none."""

_MOST_TERMS: Final = 64
"""Different bounds on the wait for which the terms are kept."""

_CLOSED: Final = "the pacer was closed"


class Pacer:
    """Give turns at a pace, evenly spaced and first come first served, to all processes that share the store.

    `Pacer("100/second", per="subscription")` lets `await pacer.wait("sub_1")` return every 10 ms for each subscription;
    `per` names what each pace belongs to (nothing: one pace for all), and its values are given in that order. `name` tells
    pacers on one store apart. `store` is an address or a store; turns are kept by its clock, to the microsecond, and a
    reservation is one round trip. `max_wait` bounds waits, in seconds (`None`: as long as it takes).

    Any span of k intervals sees at most k + 1 turns begin (for intervals below 10 ms, what fits into 5 ms more): a turn
    that is missed by more than half an interval, because the machine was busy, is lost, and everybody in this process
    takes the next one. A store that has lost its memory begins anew, and what other processes still hold comes on top.
    While the store is away everybody waits. Nothing is connected before the first turn; close it, or use it as an async context manager. A rate of zero or of more
    than 100,000 a second, and an address or a bound that is none, raise `ConfigurationError`.
    """

    def __init__(
        self,
        rate: Rate | str,
        *,
        per: str | Sequence[str] = (),
        name: str = "pacer",
        store: Store | str = "memory://",
        max_wait: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.rate = _checked(rate)
        self.per = _dimensions(per)
        self.name, self.max_wait = name, check_wait(max_wait)
        self.missed = 0
        """Turns that were lost so far because this process was too busy to take them."""
        self._clock = clock or system_clock
        self._store = open_store(store, clock=clock) if isinstance(store, str) else store
        self._known: dict[int, Terms] = {}
        # A line lives as long as somebody waits in it.
        self._lines: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str], Line] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self._taking: set[asyncio.Task[None]] = set()
        self._away = False
        self._closings = 0

    @property
    def interval(self) -> float:
        """The seconds between two turns."""
        return self.rate.period / self.rate.limit

    async def wait(self, *key: object, max_wait: float | None = None) -> float:
        """Return when it is this caller's turn, and say how many seconds that took.

        Where it would take longer than `max_wait` seconds (default: the pacer's), nothing is taken and `LimitExceeded`
        is raised at once; and later, where turns that were missed make it longer than that and an interval more. With
        the store away for as long its `StoreError` is raised. Where somebody is cancelled all who came after in this process
        move up, and the last turn is given back.
        """
        loop, line = asyncio.get_running_loop(), self._line(key)
        began, bound = loop.time(), self._bound(max_wait)
        number = await self._reserve(line, key, bound)
        try:
            async with asyncio.timeout_at(None if bound is None else began + bound + self.interval + _GRACE):
                await line.wait(number)
        except TimeoutError:
            raise self._exceeded(line.late(number), bound, 0) from None
        return loop.time() - began

    async def reserve(self, *key: object, max_wait: float | None = None) -> Turn:
        """Take the next turn, to be waited for or given back by the caller alone; raises what `wait` does at once."""
        line = self._line(key)
        return Turn(line, await self._reserve(line, key, self._bound(max_wait)))

    def wait_sync(self, *key: object, max_wait: float | None = None) -> float:
        """Do as `wait`, in a thread without an event loop."""
        return in_background(self.wait(*key, max_wait=max_wait))

    async def aclose(self) -> None:
        """Close the store in this event loop; may be called twice. Who waits here gets `StoreUnavailable`."""
        loop = asyncio.get_running_loop()
        self._closings += 1
        for (where, _), line in list(self._lines.items()):
            if where is loop:
                line.close(StoreUnavailable(_CLOSED))
        while mine := [task for task in list(self._tasks) if task.get_loop() is loop]:
            for task in self._taking.intersection(mine):
                task.cancel()
            await asyncio.wait(mine)
            await asyncio.sleep(0)
        await self._store.settle()
        await self._store.aclose()

    def close(self) -> None:
        """Do as `aclose`, for those who use `wait_sync`."""
        in_background(self.aclose())

    def __repr__(self) -> str:
        return f"<Pacer {self.name} {self.rate} per {', '.join(self.per) or 'nothing'}, {self._store!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _bound(self, max_wait: float | None) -> float | None:
        return self.max_wait if max_wait is None else check_wait(max_wait)

    async def _reserve(self, line: Line, key: Sequence[object], bound: float | None) -> int:
        loop, closings = asyncio.get_running_loop(), self._closings
        until = math.inf if bound is None else loop.time() + bound
        while True:
            asked, charge = loop.time(), self._charge(key, until - loop.time())
            try:
                answer = await self._store.submit(Request([charge], Op.CHARGE, 0, 0, self._abandoned))
            except StoreError as error:
                self._lost(error)
                if loop.time() + _PAUSE > until:
                    raise
                await asyncio.sleep(_PAUSE)
                if closings != self._closings:
                    raise StoreUnavailable(_CLOSED) from error
                await self._settle()
            else:
                self._found()
                return self._taken(line, answer, asked, bound)

    def _taken(self, line: Line, answer: Answer, asked: float, bound: float | None) -> int:
        turn, wait, over = answer.numbers[0]
        if over > 0:
            raise self._exceeded(-wait / 1e6, bound, over / 1000)
        # It was read at once, and may be looked at a little later.
        ago = (self._clock() - answer.now) / 1e6
        line.hear(turn, wait, asked, asyncio.get_running_loop().time() - (ago if 0 < ago < 1 else 0.0))
        return turn

    def _exceeded(self, late: float, bound: float | None, over: float) -> LimitExceeded:
        away = f"is {-late:g} s away" if late < 0 else "was missed"
        return LimitExceeded(
            f"the next turn of {self.name!r} {away}, more than max_wait={bound:g}", Decision(False, 429, over)
        )

    async def _settle(self) -> None:
        """Give back what was taken for nobody, before something else is taken: later it would be lost in the middle."""
        with suppress(StoreError):
            await self._store.settle()
        loop = asyncio.get_running_loop()
        giving = [task for task in list(self._tasks - self._taking) if task.get_loop() is loop]
        if giving:
            await asyncio.wait(giving)

    def _lost(self, error: StoreError) -> None:
        if not self._away:
            self._away = True
            logger.error("store away: %s %r; pacer %r holds everybody", error, self._store, self.name)

    def _found(self) -> None:
        if self._away:
            self._away = False
            logger.warning("store back: %r; pacer %r goes on", self._store, self.name)

    def _charge(self, key: Sequence[object], bound: float) -> Charge:
        return Charge(self._terms(bound), self._named(key))

    def _named(self, key: Sequence[object]) -> str:
        if len(key) != len(self.per):
            raise ConfigurationError(f"key: per is {', '.join(self.per) or 'empty'}, and {len(key)} values are given")
        values = ["" if each is None else escape(each) for each in key]
        if "" in values:
            raise ConfigurationError(f"key: the value of {self.per[values.index('')]} is missing")
        return f"rl:{{{values[0] if values else '*'}}}:{escape(self.name)}:pace:{':'.join(values) or '*'}"

    def _terms(self, bound: float) -> Terms:
        patience = NEVER if bound > _FOREVER else max(0, math.ceil(bound * 1000))
        if patience not in self._known:
            if len(self._known) >= _MOST_TERMS:
                self._known.clear()
            limit, window = self.rate.limit, self.rate.period
            self._known[patience] = Terms(
                kind="pace", policy=self.name, scope="global", limit=limit, window=window, patience=patience
            )
        return self._known[patience]

    def _abandoned(self, request: Request, answer: Answer | None) -> None:
        """Give back a turn that was given to nobody any more."""
        if answer is not None and answer.numbers[0][2] <= 0:
            self._spawn(self._give_back(request.charges[0], answer.numbers[0][0]))

    def _line(self, key: Sequence[object]) -> Line:
        place = asyncio.get_running_loop(), self._named(key)
        line = self._lines.get(place)
        if line is None:
            charge = self._charge(key, math.inf)
            line = self._lines[place] = Line(
                self.interval,
                lambda line, wanted: self._missed(line, key, wanted=wanted),
                lambda turn: self._spawn(self._give_back(charge, turn)),
            )
        return line

    def _missed(self, line: Line, key: Sequence[object], *, wanted: bool) -> None:
        self.missed += 1
        if wanted:
            task = self._spawn(self._take_more(line, key))
            self._taking.add(task)
            task.add_done_callback(self._taking.discard)

    async def _take_more(self, line: Line, key: Sequence[object]) -> None:
        """Take a turn for somebody who waits and whose turn was missed."""
        try:
            turn = await self._reserve(line, key, None)
        except Exception as error:  # noqa: BLE001 - whoever waits for it has to know
            line.failed(error)
        except BaseException:
            line.failed(StoreUnavailable(_CLOSED))
            raise
        else:
            line.more(turn)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _give_back(self, charge: Charge, turn: int) -> None:
        try:
            await self._store.submit(Request([charge._replace(cost=-1)], Op.ADJUST, turn))
        except StoreError as error:
            # What has set out the store does when it is back; else the turn is lost, and nobody is too fast.
            logger.debug("a turn of pacer %r is not given back yet: %s", self.name, error)


def _dimensions(per: str | Sequence[str]) -> tuple[str, ...]:
    names: tuple[object, ...] = (per,) if isinstance(per, str) else tuple(per)
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ConfigurationError(f"per: must be names, each once, not {per!r:.100}")
    return tuple(map(str, names))


def _checked(rate: Rate | str) -> Rate:
    rate = rate if isinstance(rate, Rate) else Rate.parse(rate)
    if not 0 < rate.limit <= rate.period * _FASTEST:
        raise ConfigurationError(f"rate: a pace is above zero and at most {_FASTEST}/second, not {rate}")
    return rate
