"""What a request gets while the store is away: each policy's own failure mode."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Final
from weakref import WeakSet

from ratelimit.ahead import Ahead, Trip
from ratelimit.charge import Charge
from ratelimit.clock import Clock
from ratelimit.decision import Decision
from ratelimit.errors import StoreError
from ratelimit.receipts import DONE, Receipt, Sender
from ratelimit.refusals import Refusals
from ratelimit.stores import Answer, MemoryStore, Op, Request, Store

logger = logging.getLogger("ratelimit")


_PATIENCE: Final = 5
"""Failures in a row after which requests no longer wait for the store."""

_CHARGING: Final = (Op.CHARGE, Op.HOLD)
"""What a refusal is remembered for, and what may be done with units that were taken ahead."""

_PAUSE: Final = 1_000_000
"""Microseconds after which one request tries the store again."""


_MOST_OWED: Final = 10_000
"""Requests whose slots are owed to the store; beyond that the oldest end with their leases."""


class Guard:
    """Asks the store, and decides by the policies' failure modes where it does not answer.

    `local` counts on this worker's memory, `allow` does not count, `deny` refuses with 503. After five failures in a
    row no request waits for the store, but one a second, which tries it. Each change between away and back is one
    line in the log. What the store has refused is remembered for up to a second and not asked again. Slots that could
    not be given back, or may have been taken by a call that broke off, are owed to the store until it is back.

    `countable` are the policies and units that may be settled. With `ahead`, units of hot keys are taken ahead.
    """

    def __init__(self, store: Store, clock: Clock, countable: set[str], *, ahead: bool = False) -> None:
        self._store = store
        self._clock = clock
        self.countable = countable
        self._closed: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        memory = MemoryStore(clock=clock)
        self._local, self._at_once = memory, _AtOnce(memory, self)
        self._sender: Sender = _AtOnce(store, self) if isinstance(store, MemoryStore) else self
        self._near = store if type(store) is MemoryStore else None
        # A store in this process answers as fast as any memory of what it said.
        self._refusals = Refusals()
        self._ahead = Ahead() if ahead and self._sender is self else None
        self._failures = 0
        self._next_try = 0
        self._lost = 0
        self._owed: deque[Request] = deque(maxlen=_MOST_OWED)
        self._sending: set[asyncio.Task[None]] = set()

    def at_once(self, charges: Sequence[Charge], op: Op = Op.CHARGE) -> Decision | None:
        """Decide where nobody has to be waited for: in memory, by what is remembered, or with the store away."""
        if self._near is not None:  # It neither fails nor waits.
            request = Request(charges, op, secrets.randbits(52) + 1 if op == Op.HOLD else 0)
            return self._decision(request, self._near.run(request), self._sender)
        if self._failures >= _PATIENCE and not self._may_try():
            return self._degraded(charges, op)
        refused = self._refusals.known(charges, self._clock()) if op in _CHARGING else None
        return None if refused is None else Decision.of(refused)

    async def decide(self, charges: Sequence[Charge], op: Op = Op.CHARGE) -> Decision:
        """Decide the charges of one request; never raises `StoreError`."""
        if (decision := self.at_once(charges, op)) is not None:
            return decision
        deciding = self._ask_store if self._ahead is None or op not in _CHARGING else self._spend_ahead
        return await deciding(charges, op, self._clock())

    async def _ask_store(self, charges: Sequence[Charge], op: Op, now: int) -> Decision:
        try:
            request, answer = await self._submit(charges, op)
        except StoreError:
            return self._degraded(charges, op)
        decision = self._decision(request, answer, self._sender)
        if decision.violated and op != Op.PEEK and self._sender is self:
            self._refusals.note(charges, decision.limits, now)
        return decision

    async def _spend_ahead(self, charges: Sequence[Charge], op: Op, now: int) -> Decision:
        ahead = self._ahead or Ahead()
        trip = ahead.take(charges, now)
        try:
            decision = await self._travel(ahead, trip, op)
            if decision.violated and trip.asking:  # For less than was asked for with it there may be room.
                trip.give_back()
                trip.end()
                trip = ahead.take(charges, now, more=False)
                decision = await self._travel(ahead, trip, op)
        except StoreError:
            trip.give_back()
            return self._degraded(charges, op)
        except BaseException:
            trip.give_back()
            raise
        finally:
            trip.end()
        if decision.violated:
            trip.give_back()
            self._refusals.note(charges, decision.limits, now)
        return decision

    async def _travel(self, ahead: Ahead, trip: Trip, op: Op) -> Decision:
        if not trip.asked:
            request, limits, at = Request(trip.charges), ahead.arrive(trip, (), 0), trip.at
        else:
            request, answer = await self._submit(trip.asked, op)
            limits, at = ahead.arrive(trip, answer.limits(trip.asked), answer.at), answer.at
        made = [charge for charge, limit in zip(trip.charges, limits, strict=True) if not limit.retry_after]
        return Decision.of(limits, receipts=(Receipt(self, made, request.holder, at),))

    async def _submit(self, charges: Sequence[Charge], op: Op) -> tuple[Request, Answer]:
        holder = secrets.randbits(52) + 1 if op == Op.HOLD else 0
        request = Request(charges, op, holder, 0, self._undo)
        try:
            answer = await self._store.submit(request)
        except StoreError as error:
            self._note_failure(error)
            self._owe([charge._replace(cost=-1) for charge in charges], holder)
            raise
        if self._failures:
            self._note_success()
        return request, answer

    async def ask(self, request: Request) -> Answer:
        """Pass a request on as it is, for those who want to know whether it was done: raises `StoreError`."""
        answer = await self._store.submit(request)
        self._refusals.forget(request.charges)
        return answer

    def send(self, request: Request) -> Awaitable[None]:
        """Write a correction, which goes on if who waits for it is cancelled; what cannot be written is logged."""
        self._refusals.forget(request.charges)
        task = asyncio.get_running_loop().create_task(self._send(request))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return asyncio.shield(task)

    @property
    def closed(self) -> bool:
        """Whether this is closed in the event loop that runs, and renews nothing there."""
        return asyncio.get_running_loop() in self._closed

    def open(self) -> None:
        """Renew in this event loop again."""
        self._closed.discard(asyncio.get_running_loop())

    async def aclose(self) -> None:
        """Wait for corrections under way and close the store."""
        self._closed.add(asyncio.get_running_loop())
        await self._drain()
        await self._store.aclose()

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while mine := [task for task in self._sending if task.get_loop() is loop]:
            await asyncio.wait(mine)
            await asyncio.sleep(0)  # Lets the callbacks of finished tasks run; waiting for what is done does not.

    async def _send(self, request: Request) -> None:
        if self._failures >= _PATIENCE and not self._may_try():
            self._note_lost(request)
            return
        try:
            await self._store.submit(request)
        except StoreError as error:
            self._note_failure(error)
            self._note_lost(request)
        else:
            # Whoever asked before this was written may have noted a refusal since.
            self._refusals.forget(request.charges)
            if self._failures:
                self._note_success()

    def _decision(self, request: Request, answer: Answer, sender: Sender, *, degraded: bool = False) -> Decision:
        decision = Decision.told(request.charges, answer.numbers, answer.now, degraded=degraded)
        if decision.allowed and request.op != Op.PEEK:
            decision.receipts = (Receipt(sender, _made(request, answer), request.holder, answer.at),)
        return decision

    def _undo(self, request: Request, answer: Answer | None) -> None:
        """Give back what was charged for somebody who was cancelled before the answer came.

        What was already spent, and is only counted, stays so; where no answer came, slots are owed.
        """
        if answer is None:
            self._owe([charge._replace(cost=-1) for charge in request.charges], request.holder)
        elif request.op in _CHARGING and Decision.told(request.charges, answer.numbers, answer.now).allowed:
            Receipt(self._sender, _made(request, answer), request.holder, answer.at).undo()

    def _may_try(self) -> bool:
        now = self._clock()
        # A wall clock that was set back must not keep the store away.
        if self._next_try - _PAUSE <= now < self._next_try:
            return False
        self._next_try = now + _PAUSE
        return True

    def _degraded(self, charges: Sequence[Charge], op: Op) -> Decision:
        if any(charge.terms.on_store_failure == "deny" and not charge.terms.shadow for charge in charges):
            return Decision.unavailable()
        local = [charge for charge in charges if charge.terms.on_store_failure == "local"]
        request = Request(local, op, secrets.randbits(52) + 1)
        return self._decision(request, self._local.run(request), self._at_once, degraded=True)

    def _note_failure(self, error: StoreError) -> None:
        if not self._failures:
            logger.error("store away: %s %r; limits go by on_store_failure", error, self._store)
        self._failures += 1
        self._next_try = self._clock() + _PAUSE

    def _note_lost(self, request: Request) -> None:
        """Owe the slots to the store; anything else, of which nobody knows whether it was done, is lost."""
        self._owe(request.charges, request.holder)
        if request.op == Op.ADJUST and any(charge.terms.kind != "concurrency" for charge in request.charges):
            if not self._lost:
                logger.error("the store is away: settlements and refunds are not written")
            self._lost += 1

    def _owe(self, charges: Sequence[Charge], holder: int) -> None:
        slots = [charge for charge in charges if charge.terms.kind == "concurrency" and charge.cost < 0]
        if slots and holder:
            self._owed.append(Request(slots, Op.ADJUST, holder))

    def _note_success(self) -> None:
        logger.warning("store back: %r; limits are shared again", self._store)
        if self._lost:
            logger.error("%d settlements or refunds were not written while the store was away", self._lost)
        self._failures = self._lost = 0
        owed, self._owed = self._owed, deque(maxlen=_MOST_OWED)
        for request in owed:
            self.send(request)


def _made(request: Request, answer: Answer) -> Sequence[Charge]:
    """Return the charges of an admitted request that were made: a shadow that had no room has taken nothing."""
    for _, _, wait in answer.numbers:
        if wait > 0:
            return [charge for charge, told in zip(request.charges, answer.numbers, strict=True) if told[2] <= 0]
    return request.charges


class _AtOnce:
    """Takes corrections to a store that never waits."""

    def __init__(self, store: MemoryStore, guard: "Guard") -> None:
        self._store = store
        self._guard = guard

    @property
    def countable(self) -> set[str]:
        return self._guard.countable

    @property
    def closed(self) -> bool:
        return self._guard.closed

    def send(self, request: Request) -> Awaitable[None]:
        """Write a correction."""
        self._store.run(request)
        return DONE
