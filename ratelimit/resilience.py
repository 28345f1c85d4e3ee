"""What a request gets while the store is away: each policy's own failure mode."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Sequence
from typing import Final

from ratelimit.absence import Absence
from ratelimit.ahead import Ahead, Trip
from ratelimit.charge import Charge
from ratelimit.clock import Clock
from ratelimit.decision import Decision
from ratelimit.errors import StoreError, StorePartlyAway
from ratelimit.receipts import Receipt, Sender
from ratelimit.refusals import Refusals
from ratelimit.senders import AtOnce, Beside
from ratelimit.stores import Answer, MemoryStore, Op, Request, Store

logger = logging.getLogger("ratelimit")


_CHARGING: Final = (Op.CHARGE, Op.HOLD)
"""What a refusal is remembered for, and what may be done with units that were taken ahead."""


class Guard:
    """Asks the store, and decides by the policies' failure modes where it does not answer.

    `local` counts on this worker's memory, its share of each limit, `allow` does not count, `deny` refuses with 503.
    After five failures in a row no request waits for the store; it is looked for in the background, five times a second.
    Each change between away and back is one line in the log. What was admitted meanwhile, and what was to be
    corrected, is kept and written once when it is back. What the store has refused is remembered for up to a second
    and not asked again.

    `countable` are the policies and units that may be settled. With `ahead`, units of hot keys are taken ahead. `prefix`
    begins all keys.
    """

    def __init__(
        self, store: Store, clock: Clock, countable: set[str], *, ahead: bool = False, prefix: str = "rl"
    ) -> None:
        self._store = store
        self._clock = clock
        self.countable = countable
        self.absence = Absence(store, clock, prefix)
        self._sender: Sender = AtOnce(store, self) if isinstance(store, MemoryStore) else self
        self._near = store if type(store) is MemoryStore else None
        # A store in this process answers as fast as any memory of what it said.
        self._refusals = Refusals()
        self._ahead = Ahead() if ahead and self._sender is self else None

    def at_once(self, charges: Sequence[Charge], op: Op = Op.CHARGE) -> Decision | None:
        """Decide where nobody has to be waited for: in memory, by what is remembered, or with the store away."""
        if self._near is not None:  # It neither fails nor waits.
            request = Request(charges, op, secrets.randbits(52) + 1 if op == Op.HOLD else 0)
            return self._decision(request, self._near.run(request), self._sender)
        if self.absence.away:
            self.absence.watch()
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
        except StoreError as error:
            # A correction that has set out the store finishes itself: told of it again, it would count it twice.
            return self._degraded(charges, op, keep=op != Op.ADJUST or isinstance(error, StorePartlyAway))
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
            self.absence.failed(error)
            self.absence.owe([charge._replace(cost=-1) for charge in charges], holder)
            raise
        self.absence.answered(request, answer)
        return request, answer

    async def ask(self, request: Request) -> Answer:
        """Pass a request on as it is, for those who want to know whether it was done: raises `StoreError`."""
        answer = await self._store.submit(request)
        self._refusals.forget(request.charges)
        return answer

    def send(self, request: Request) -> Awaitable[None]:
        """Write a correction, which goes on if who waits for it is cancelled; what cannot be written is logged."""
        self._refusals.forget(request.charges)
        return asyncio.shield(self.absence.spawn(self._send(request)))

    @property
    def closed(self) -> bool:
        """Whether this is closed in the event loop that runs, and renews nothing there."""
        return self.absence.closed

    def open(self) -> None:
        """Renew in this event loop again."""
        self.absence.open()

    async def aclose(self) -> None:
        """Wait for corrections under way, try once more to write what is kept, and close the store."""
        await self.absence.aclose()
        await self._store.aclose()

    async def _send(self, request: Request) -> None:
        if self.absence.away:
            self.absence.keep(request)
            return
        try:
            answer = await self._store.submit(request)
        except StoreError as error:
            # Corrections that have set out the store finishes itself; a slot may be given back twice.
            self.absence.failed(error)
            if isinstance(error, StorePartlyAway):
                self.absence.keep(request)
            else:
                self.absence.owe(request.charges, request.holder)
        else:
            # Whoever asked before this was written may have noted a refusal since.
            self._refusals.forget(request.charges)
            self.absence.answered(request, answer)

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
            self.absence.owe([charge._replace(cost=-1) for charge in request.charges], request.holder)
        elif request.op in _CHARGING and Decision.told(request.charges, answer.numbers, answer.now).allowed:
            Receipt(self._sender, _made(request, answer), request.holder, answer.at).undo()

    def _degraded(self, charges: Sequence[Charge], op: Op, *, keep: bool = True) -> Decision:
        if any(charge.terms.on_store_failure == "deny" and not charge.terms.shadow for charge in charges):
            return Decision.unavailable()
        local = [charge for charge in charges if charge.terms.on_store_failure == "local"]
        request, answer = self.absence.fallback.run(
            Request(local, op, secrets.randbits(52) + 1 if op == Op.HOLD else 0), keep=keep
        )
        decision = self._decision(request, answer, Beside(self, self.absence.fallback), degraded=True)
        if decision.allowed and op in _CHARGING:
            # What is not limited meanwhile is still used.
            let = [charge for charge in charges if charge not in local and charge.terms.kind == "quota"]
            self.absence.fallback.keep(let, answer.at)
        return decision


def _made(request: Request, answer: Answer) -> Sequence[Charge]:
    """Return the charges of an admitted request that were made: a shadow that had no room has taken nothing."""
    for _, _, wait in answer.numbers:
        if wait > 0:
            return [charge for charge, told in zip(request.charges, answer.numbers, strict=True) if told[2] <= 0]
    return request.charges
