"""What a request gets while the store is away: each policy's own failure mode."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Sequence
from typing import Final

from ratelimit.clock import Clock
from ratelimit.decision import Charge, Decision
from ratelimit.errors import StoreError
from ratelimit.receipts import DONE, CheckCosts, Receipt, Sender
from ratelimit.stores import Answer, MemoryStore, Op, Request, Store

logger = logging.getLogger("ratelimit")


_PATIENCE: Final = 5
"""Failures in a row after which requests no longer wait for the store."""

_PAUSE: Final = 1_000_000
"""Microseconds after which one request tries the store again."""


class Guard:
    """Asks the store, and decides by the policies' failure modes where it does not answer.

    `local` counts on this worker's memory, `allow` does not count, `deny` refuses with 503. After five failures in a
    row no request waits for the store, but one a second, which tries it. Each change between away and back is one
    line in the log. `check` is asked what may be spent and settled.
    """

    def __init__(self, store: Store, clock: Clock, check: CheckCosts) -> None:
        self._store = store
        self._clock = clock
        self._check = check
        memory = MemoryStore(clock=clock)
        self._local, self._at_once = memory, _AtOnce(memory)
        self._sender: Sender = _AtOnce(store) if isinstance(store, MemoryStore) else self
        self._failures = 0
        self._next_try = 0
        self._lost = 0
        self._sending: set[asyncio.Task[None]] = set()

    async def decide(self, charges: Sequence[Charge], op: Op = Op.CHARGE) -> Decision:
        """Decide the charges of one request; never raises `StoreError`."""
        if self._failures >= _PATIENCE and not self._may_try():
            return self._degraded(charges, op)
        holder = secrets.randbits(52) + 1 if op == Op.HOLD else 0
        request = Request(charges, op, holder, 0, self._undo)
        try:
            answer = await self._store.submit(request)
        except StoreError as error:
            self._note_failure(error)
            return self._degraded(charges, op)
        if self._failures:
            self._note_success()
        return self._decision(request, answer, self._sender)

    async def ask(self, request: Request) -> Answer:
        """Pass a request on as it is, for those who want to know whether it was done: raises `StoreError`."""
        return await self._store.submit(request)

    def send(self, request: Request) -> Awaitable[None]:
        """Write a correction, which goes on if who waits for it is cancelled; what cannot be written is logged."""
        task = asyncio.get_running_loop().create_task(self._send(request))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return asyncio.shield(task)

    async def aclose(self) -> None:
        """Wait for corrections under way and close the store."""
        await self._drain()
        await self._store.aclose()

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while mine := [task for task in self._sending if task.get_loop() is loop]:
            await asyncio.wait(mine)
            await asyncio.sleep(0)  # Lets the callbacks of finished tasks run; waiting for what is done does not.

    async def _send(self, request: Request) -> None:
        if self._failures >= _PATIENCE and not self._may_try():
            self._note_lost()
            return
        try:
            await self._store.submit(request)
        except StoreError as error:
            self._note_failure(error)
            self._note_lost()
        else:
            if self._failures:
                self._note_success()

    def _decision(self, request: Request, answer: Answer, sender: Sender, *, degraded: bool = False) -> Decision:
        limits = answer.limits(request.charges)
        if request.op == Op.PEEK:
            return Decision.of(limits, degraded=degraded)
        receipt = Receipt(sender, self._check, request, limits, answer.at)
        return Decision.of(limits, degraded=degraded, receipts=(receipt,))

    def _undo(self, request: Request, answer: Answer) -> None:
        """Give back what was charged for somebody who was cancelled before the answer came."""
        limits = answer.limits(request.charges)
        if request.op != Op.PEEK and Decision.of(limits).allowed:
            Receipt(self._sender, self._check, request, limits, answer.at).undo()

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

    def _note_lost(self) -> None:
        if not self._lost:
            logger.error("the store is away: settlements, refunds and slots given back are not written")
        self._lost += 1

    def _note_success(self) -> None:
        logger.warning("store back: %r; limits are shared again", self._store)
        if self._lost:
            logger.error("%d settlements, refunds or slots given back were not written; slots end by lease", self._lost)
        self._failures = self._lost = 0


class _AtOnce:
    """Takes corrections to a store that never waits."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def send(self, request: Request) -> Awaitable[None]:
        """Write a correction."""
        self._store.run(request)
        return DONE
