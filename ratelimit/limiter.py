"""The core: who asks for what, charged in one step."""

import logging
import math
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import TracebackType
from typing import Final, NamedTuple, Self

from ratelimit.charge import NEVER, Charge
from ratelimit.clock import Clock, system_clock
from ratelimit.decision import Decision
from ratelimit.errors import ConfigurationError, LimitExceeded, NotTaken, StoreError
from ratelimit.identity import Identity
from ratelimit.keys import escape
from ratelimit.overrides import Overrides
from ratelimit.periods import Period
from ratelimit.plan import UNKNOWN, Plan
from ratelimit.policy import Concurrency
from ratelimit.rate import MAX_LIMIT
from ratelimit.resilience import Guard
from ratelimit.rules import Rules
from ratelimit.settings import RateLimitSettings
from ratelimit.stores import Op, Request, Store, open_store

logger = logging.getLogger("ratelimit")


_KNOWN: Final = 5.0
"""Seconds for which a worker is known, which says so once a second."""


class Usage(NamedTuple):
    """What an identity has used of one quota: whole `unit`s in this period and in the one before (levels: 0).

    `resets_at` is when the period ends, in epoch seconds by this process's clock; `None` for levels.
    """

    policy: str
    unit: str
    period: Period | None
    limit: int
    used: int
    remaining: int
    resets_at: float | None
    last: int


class Limiter:
    """Charge every limit that applies to an identity at an endpoint, all of them or none, in one atomic step.

    `store` is used instead of the one that the settings name; `clock` returns integer microseconds since the epoch.
    Constructing connects to nothing, and no decision ever raises because of a store: a request that finds it away is
    decided by the policies' failure modes. Use it as an async context manager, or call `aclose` at the end.
    `overrides` are limits of single callers, raised or lowered while the app runs.
    """

    def __init__(self, settings: RateLimitSettings, store: Store | None = None, clock: Clock | None = None) -> None:
        self.settings = settings
        self.plan = Plan(settings)
        self.clock: Clock = clock or system_clock
        if store is None:
            store = open_store(settings.store, clock=clock, timeout=settings.store_timeout)
        ahead = any(limit.lease for limit in settings.limits)
        self._guard = Guard(store, self.clock, self.plan.countable, ahead=ahead, prefix=escape(settings.key_prefix))
        self._store, self._worker = store, secrets.token_hex(6)
        self.overrides = Overrides(self.plan, store, self.clock, beside=self._greet)

    async def check(
        self, identity: Identity, *, method: str = "GET", endpoint: str = UNKNOWN, cost: int = 1
    ) -> Decision:
        """Charge `cost` requests and return the decision.

        `endpoint` is the route template, `"*"` for none. Each policy takes `cost` times its own cost, in units; where
        its cost is a function of the request, `cost` itself. A `Concurrency` gives one slot, which is not renewed and
        ends with its lease: give it back with `finish`. An exempt endpoint, or one that no policy applies to, is
        allowed without limits. A `cost` that is no positive integer raises `ConfigurationError`.
        """
        _check_amount("cost", cost)
        rules, charges = await self._charges(identity, method, endpoint, cost)
        return await self.decide(charges, op=Op.HOLD if rules.holds else Op.CHARGE)

    async def peek(self, identity: Identity, *, method: str = "GET", endpoint: str = UNKNOWN) -> Decision:
        """Return the decision that one more request would get, charging nothing; `remaining` is as it stands."""
        _, charges = await self._charges(identity, method, endpoint, 1)
        return await self.decide(charges, op=Op.PEEK)

    async def consume(
        self,
        policy: str,
        identity: Identity,
        amount: int = 1,
        *,
        force: bool = False,
        method: str = "GET",
        endpoint: str = UNKNOWN,
    ) -> Decision:
        """Charge `amount` units of one limit or quota, by its name, wherever it stands.

        With `force` they are counted even where they exceed it: they are already spent. `identity` names the counter as
        it does for requests: for a policy by token, with the organization that the token came with. A policy that does
        not apply to it allows. An amount that is no positive integer, an unknown policy, a `Concurrency` (see `slot`) or
        one that is counted for each endpoint, where none is given, raise `ConfigurationError`.
        """
        _check_amount("amount", amount)
        charge = await self._charge(policy, identity, amount, method, endpoint)
        if charge is None:
            return Decision(True)
        if charge.terms.kind == "concurrency":
            raise ConfigurationError(f"policy: {policy!r} gives slots: use slot or check")
        return await self.decide([charge], op=Op.ADJUST if force else Op.CHARGE)

    async def release(
        self, policy: str, identity: Identity, amount: int = 1, *, method: str = "GET", endpoint: str = UNKNOWN
    ) -> Decision:
        """Give back `amount` units of one limit or quota, and return how it stands then.

        More than is taken now raises `NotTaken` and gives back nothing. A store that does not answer raises
        `StoreError`: nobody knows then whether it was done. Other errors are those of `consume`.
        """
        _check_amount("amount", amount)
        charge = await self._charge(policy, identity, amount, method, endpoint)
        if charge is None:
            return Decision(True)
        if charge.terms.kind == "concurrency":
            raise ConfigurationError(f"policy: {policy!r} gives slots, which end with `finish`")
        answer = await self._guard.ask(Request([charge._replace(cost=-amount)], Op.RELEASE))
        if answer.numbers[0][2] == NEVER:
            raise NotTaken(
                f"amount: less than {amount} {charge.terms.unit} of {policy!r} are taken; nothing is released"
            )
        return Decision.of(answer.limits([charge]))

    def slot(
        self, policy: str, identity: Identity, *, method: str = "GET", endpoint: str = UNKNOWN
    ) -> AbstractAsyncContextManager[Decision]:
        """Hold a slot of one `Concurrency` for an `async with` block, renewed as long as it takes.

        Where none is free, entering raises `LimitExceeded`, whose `decision` says when to try again. A policy that is
        unknown or of another kind raises `ConfigurationError` here.
        """
        if not isinstance(self.plan.rule(policy).policy, Concurrency):
            raise ConfigurationError(f"policy: {policy!r} gives no slots: it is no Concurrency")
        return self._slot(policy, identity, method, endpoint)

    async def finish(self, decision: Decision) -> None:
        """Give back the slots that a decision holds and settle what it noted; again does nothing, and nothing fails."""
        for finished in [receipt.finish() for receipt in decision.receipts]:
            await finished

    async def usage(self, identity: Identity, *, method: str = "GET", endpoint: str = UNKNOWN) -> tuple[Usage, ...]:
        """Return what `identity` has used of each quota of the settings that applies to it; raises `StoreError`."""
        await self.start()
        charges = [
            charge
            for policy in self.settings.quotas
            if endpoint != UNKNOWN or "endpoint" not in policy.per
            for charge in [self.plan.charge(policy.name, identity, 1, self.clock(), method=method, endpoint=endpoint)]
            if charge is not None
        ]
        if not charges:
            return ()
        answer = await self._guard.ask(Request(charges, Op.USAGE))
        return tuple(_usage(charge, told, answer.now) for charge, told in zip(charges, answer.numbers, strict=True))

    async def decide(self, charges: Sequence[Charge], *, op: Op = Op.CHARGE) -> Decision:
        """Decide charges that are already made out, as `plan` makes them; all doors end here.

        `op` is `Op.HOLD` where there may be slots among them.
        """
        if not charges:
            return Decision(True)
        decision = await self._guard.decide(charges, op)
        for limit in decision.refused_in_shadow:
            logger.info("shadow policy %s would have refused for %.3f s", limit.policy, limit.retry_after)
        return decision

    async def start(self) -> None:
        """Read the overrides and watch for changes; done by itself before the first decision of an event loop."""
        if not self.overrides.watching:
            self._guard.open()
            await self.overrides.watch()

    async def aclose(self) -> None:
        """Wait for what is being written and close the store; may be called twice."""
        self.overrides.stop()
        if self._guard.absence.fallback.workers > 1:
            with suppress(StoreError):
                await self._greet(0.0)
        await self._guard.aclose()

    async def _greet(self, seconds: float = _KNOWN) -> None:
        """Make this worker known to the others, each of which takes its share of the limits while the store is away."""
        book, worker = f"{self.settings.key_prefix}:{{workers}}", f"{self._worker}-{os.getpid()}"
        told, absence = await self._store.present(book, worker, seconds), self._guard.absence
        # Who has not found the store again yet is not known there any more, and is still at work.
        absence.fallback.workers = max(1, told, absence.fallback.workers if absence.away else 0)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @asynccontextmanager
    async def _slot(self, policy: str, identity: Identity, method: str, endpoint: str) -> AsyncIterator[Decision]:
        charge = await self._charge(policy, identity, 1, method, endpoint)
        decision = await self.decide([] if charge is None else [charge], op=Op.HOLD)
        if not decision.allowed:
            again = f"; try again in {decision.retry_after:g} s" if math.isfinite(decision.retry_after) else ""
            raise LimitExceeded(f"no slot of {policy!r} is free{again}", decision)
        try:
            for receipt in decision.receipts:
                receipt.keep()
            yield decision
        finally:
            await self.finish(decision)

    async def _charge(self, policy: str, identity: Identity, amount: int, method: str, endpoint: str) -> Charge | None:
        await self.start()
        return self.plan.charge(policy, identity, amount, self.clock(), method=method.upper(), endpoint=endpoint)

    async def _charges(
        self, identity: Identity, method: str, endpoint: str, cost: int
    ) -> tuple[Rules, Sequence[Charge]]:
        await self.start()
        rules = self.plan.rules(self.plan.endpoint(method.upper(), endpoint))
        return rules, rules.charges(identity, cost, now=self.clock())


def _usage(charge: Charge, told: tuple[int, int, int], now: int) -> Usage:
    terms, (used, reset, last) = charge.terms, told
    # Periods end on the second; the rest is how long the answer took.
    resets_at = None if terms.period is None else float(round((now + reset * 1000) / 1e6))
    remaining = max(0, terms.usable - used)
    return Usage(terms.policy, terms.unit, terms.period, terms.usable, used, remaining, resets_at, last)


def _check_amount(name: str, amount: object) -> None:
    if isinstance(amount, bool) or not isinstance(amount, int) or not 1 <= amount <= MAX_LIMIT:
        raise ConfigurationError(f"{name}: must be a positive integer, got {amount!r}")
