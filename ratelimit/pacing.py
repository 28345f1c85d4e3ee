"""Turns for outbound work: evenly spaced, first come first served."""

import asyncio
import logging
import math
from collections.abc import Coroutine, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from ratelimit.charge import NEVER, Charge, Terms
from ratelimit.clock import Clock, system_clock
from ratelimit.decision import Decision
from ratelimit.errors import ConfigurationError, LimitExceeded, StoreError
from ratelimit.keys import escape
from ratelimit.rate import Rate
from ratelimit.stores import Answer, Op, Request, Store, open_store
from ratelimit.turns import Line
from ratelimit.waiting import check_wait, in_background

logger = logging.getLogger("ratelimit")

_PAUSE: Final = 0.2
"""Seconds between two tries where the store is away."""

_FOREVER: Final = 10.0**9
"""A bound in seconds that is none."""

_STEP: Final = 0.01
"""Seconds by which a turn may seem to come before it can: more than that, and the store's clock was set back."""

_FEW_LINES: Final = 100
"""Keys for which lines are kept where nobody waits."""

_MOST_TERMS: Final = 64
"""Different bounds on the wait for which the terms are kept."""


class Pacer:
    """Give turns at a pace, evenly spaced and first come first served, to all processes that share the store.

    `Pacer("100/second", per="subscription")` lets `await pacer.wait("sub_1")` return every 10 ms for each subscription;
    `per` names what each pace belongs to (nothing: one pace for all), and its values are given in that order. `name` tells
    pacers on one store apart. `store` is an address or a store; turns are kept by its clock, to the microsecond, and a
    reservation is one round trip. `max_wait` bounds waits, in seconds (`None`: as long as it takes).

    Any span of k intervals sees at most k + 1 turns begin (for intervals below 10 ms, what fits into 5 ms more): a turn
    that is missed by more than half an interval, because the machine was busy, is lost, and everybody in this process
    takes the next one. While the store is away everybody waits. Nothing is connected before the first turn. A rate of zero
    or of more than a million a second, and an address or a bound that is none, raise `ConfigurationError`.
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
        self.clock = clock or system_clock
        self._store = open_store(store, clock=clock) if isinstance(store, str) else store
        self._known: dict[int, Terms] = {}
        self._lines: dict[tuple[asyncio.AbstractEventLoop, str], Line] = {}
        self._most_lines = _FEW_LINES
        self._behind: WeakKeyDictionary[asyncio.AbstractEventLoop, float] = WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self._taking: set[asyncio.Task[None]] = set()
        self._away = False
        self.missed = 0
        """Turns that were lost so far because this process was too busy to take them."""

    @property
    def interval(self) -> float:
        """The seconds between two turns."""
        return self.rate.period / self.rate.limit

    async def wait(self, *key: object, max_wait: float | None = None) -> float:
        """Return when it is this caller's turn, and say how many seconds that took.

        Where it would take longer than `max_wait` seconds (default: the pacer's), nothing is taken and `LimitExceeded`
        is raised at once; with the store away for as long, its `StoreError`. Where somebody is cancelled all who came
        after in this process move up, and the last turn is given back.
        """
        loop = asyncio.get_running_loop()
        began, turn = loop.time(), await self._reserve(key, self._bound(max_wait))
        await self._line(key).wait(turn.number)
        return loop.time() - began

    async def reserve(self, *key: object, max_wait: float | None = None) -> "Turn":
        """Take the next turn, to be waited for or given back by the caller alone; raises what `wait` does."""
        return await self._reserve(key, self._bound(max_wait))

    def wait_sync(self, *key: object, max_wait: float | None = None) -> float:
        """Do as `wait`, in a thread without an event loop."""
        return in_background(self.wait(*key, max_wait=max_wait))

    async def aclose(self) -> None:
        """Wait for what is being given back and close the store, in this event loop; may be called twice."""
        loop = asyncio.get_running_loop()
        for task in self._taking:
            if task.get_loop() is loop:
                task.cancel()
        while mine := [task for task in self._tasks if task.get_loop() is loop]:
            await asyncio.wait(mine)
            await asyncio.sleep(0)
        await self._store.settle()
        await self._store.aclose()

    def close(self) -> None:
        """Do as `aclose`, for those who use `wait_sync`."""
        in_background(self.aclose())

    def _bound(self, max_wait: float | None) -> float | None:
        return self.max_wait if max_wait is None else check_wait(max_wait)

    async def _reserve(self, key: Sequence[object], bound: float | None) -> "Turn":
        loop = asyncio.get_running_loop()
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
            else:
                self._found()
                return self._turn(charge, answer, bound, asked)

    def _turn(self, charge: Charge, answer: Answer, bound: float | None, asked: float) -> "Turn":
        turn, wait, over = answer.numbers[0]
        if over > 0:
            raise LimitExceeded(
                f"the next turn of {self.name!r} is {wait / 1e6:g} s away, more than max_wait={bound:g}",
                Decision(False, 429, over / 1000),
            )
        self._hear(answer, asked)
        return Turn(self, charge, turn)

    def _hear(self, answer: Answer, asked: float) -> None:
        """Learn how far the store's clock is behind the event loop's, from an answer to what was asked at `asked`."""
        loop, (turn, wait, _) = asyncio.get_running_loop(), answer.numbers[0]
        # It was read at once, and may be looked at a little later.
        ago = (self.clock() - answer.now) / 1e6
        behind = loop.time() - (ago if 0 < ago < 1 else 0.0) - (turn - wait) / 1e6
        # Answers take longer or less long, and turns are as even as the store says: the quickest tells its clock best.
        best = min(behind, self._behind.get(loop, math.inf))
        early = asked + wait / 1e6 - (turn / 1e6 + best)
        self._behind[loop] = behind if early > _STEP else best

    def moment(self, turn: int) -> float:
        """Return when a turn begins, by the time of the event loop that runs, as well as it is known now."""
        return turn / 1e6 + self._behind[asyncio.get_running_loop()]

    def _lost(self, error: StoreError) -> None:
        if not self._away:
            self._away = True
            logger.error("store away: %s %r; pacer %r holds everybody", error, self._store, self.name)

    def _found(self) -> None:
        if self._away:
            self._away = False
            logger.warning("store back: %r; pacer %r goes on", self._store, self.name)

    def _charge(self, key: Sequence[object], bound: float) -> Charge:
        if len(key) != len(self.per):
            raise ConfigurationError(f"key: give {', '.join(self.per) or 'nothing'}, not {len(key)} values")
        values = [escape(each) for each in key]
        if "" in values:
            raise ConfigurationError(f"key: the value of {self.per[values.index('')]} is empty")
        tag = values[0] if values else "*"
        return Charge(self._terms(bound), f"rl:{{{tag}}}:{escape(self.name)}:pace:{':'.join(values) or '*'}")

    def _terms(self, bound: float) -> Terms:
        patience = NEVER if bound > _FOREVER else max(0, int(bound * 1000))
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
        loop, charge = asyncio.get_running_loop(), self._charge(key, math.inf)
        line = self._lines.get((loop, charge.key))
        if line is None:
            if len(self._lines) >= self._most_lines:
                # Where nobody waits nothing is remembered: keys come and go.
                self._lines = {place: each for place, each in self._lines.items() if each and not place[0].is_closed()}
                self._most_lines = 2 * len(self._lines) + _FEW_LINES
            line = self._lines[loop, charge.key] = Line(
                self.interval,
                self.moment,
                lambda wanted: self._missed(key, wanted=wanted),
                lambda turn: self._spawn(self._give_back(charge, turn)),
            )
        return line

    def _missed(self, key: Sequence[object], *, wanted: bool) -> None:
        self.missed += 1
        if wanted:
            task = self._spawn(self._take_more(key))
            self._taking.add(task)
            task.add_done_callback(self._taking.discard)

    async def _take_more(self, key: Sequence[object]) -> None:
        """Take a turn for somebody who waits and whose turn was missed."""
        line = self._line(key)
        line.more((await self._reserve(key, None)).number)

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


class Turn:
    """A turn that was taken: wait for it, or give it back, in the event loop in which it was reserved."""

    def __init__(self, pacer: Pacer, charge: Charge, number: int) -> None:
        self._pacer, self._charge, self.number = pacer, charge, number
        """`number` is its moment by the store's clock, in microseconds."""
        self._returned = False

    @property
    def delay(self) -> float:
        """The seconds until it begins, 0.0 when it has."""
        return max(0.0, -self._late())

    async def wait(self) -> float:
        """Return when the turn begins, and say how many seconds after that; who is cancelled meanwhile gives it back."""
        try:
            await asyncio.sleep(self.delay)
        except BaseException:
            self.give_back()
            raise
        return max(0.0, self._late())

    def give_back(self) -> None:
        """Give the turn back, once, without waiting; it goes to who asks next where nobody has a later one.

        Others are lost: moving everybody up would take a round trip each, and giving it to who comes next would let
        them overtake.
        """
        if not self._returned:
            self._returned = True
            self._pacer._spawn(self._pacer._give_back(self._charge, self.number))  # noqa: SLF001 - two halves of one

    def _late(self) -> float:
        return asyncio.get_running_loop().time() - self._pacer.moment(self.number)


def _dimensions(per: str | Sequence[str]) -> tuple[str, ...]:
    names: tuple[object, ...] = (per,) if isinstance(per, str) else tuple(per)
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ConfigurationError(f"per: must be names, each once, not {per!r:.100}")
    return tuple(map(str, names))


def _checked(rate: Rate | str) -> Rate:
    rate = rate if isinstance(rate, Rate) else Rate.parse(rate)
    if not 0 < rate.limit <= rate.period * 1_000_000:
        raise ConfigurationError(f"rate: a pace is above zero and at most 1000000/second, not {rate}")
    return rate
