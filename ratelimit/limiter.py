"""The limiter: the public API of the core, without HTTP."""

import logging
import math
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from ratelimit._utils.poller import Poller
from ratelimit._utils.validation import is_int_between
from ratelimit.clock import Clock, system_clock
from ratelimit.config.policies import Concurrency
from ratelimit.config.settings import RateLimitSettings
from ratelimit.enforcement.circuit_breaker import CircuitBreaker
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.enforcer import Enforcer
from ratelimit.errors import ConfigurationError, LimitExceeded, OverRelease, StoreError
from ratelimit.model.calendar_period import Period
from ratelimit.model.charge import Charge
from ratelimit.model.identity import Identity
from ratelimit.model.rate import MAX_LIMIT
from ratelimit.model.service_limit import Reading
from ratelimit.overrides import Overrides
from ratelimit.resolver.endpoint import UNMATCHED
from ratelimit.resolver.endpoint_policies import EndpointPolicies
from ratelimit.resolver.keys import escape
from ratelimit.resolver.resolver import PolicyResolver
from ratelimit.stores.base import Store
from ratelimit.stores.messages import Operation, StoreRequest
from ratelimit.stores.urls import open_store

logger = logging.getLogger("ratelimit")

POLL_INTERVAL: Final = 1.0
"""Seconds between two background polls of a worker: two small calls, for overrides and the worker registry."""


class QuotaUsage(NamedTuple):
    """What an identity has used of one quota: whole `unit`s in this period, and `last` in the previous one (levels: 0).

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

    `check` charges a request and is what most callers need. `peek` tells what `check` would decide, and charges nothing.
    `consume` and `release` charge and give back units of one policy by its name. `slot` holds a permit of one
    `Concurrency` for a block. `check` and `slot` refuse by themselves; `consume` can be forced.

    `store` replaces the one that the settings name; `clock` returns integer microseconds since the epoch. Constructing
    connects to nothing, and no decision raises because of a store: while it is unavailable, the policies' failure modes
    decide. Use the limiter as an async context manager, or call `aclose` at the end. `overrides` are limits of single
    callers, raised or lowered while the app runs. `resolver`, `store` and `enforcer` are its parts.
    """

    def __init__(self, settings: RateLimitSettings, store: Store | None = None, clock: Clock | None = None) -> None:
        self.settings = settings
        self.resolver = PolicyResolver(settings)
        self.clock: Clock = clock or system_clock
        if store is None:
            store = open_store(settings.store, clock=clock, timeout=settings.store_timeout)
        self.store = store
        self.enforcer = Enforcer(
            store,
            self.clock,
            self.resolver.settleable,
            prefetch=any(limit.prefetch for limit in settings.limits),
            key_prefix=escape(settings.key_prefix),
        )
        self.overrides = Overrides(self.resolver, store, self.clock)
        self.poller = Poller(self._poll, POLL_INTERVAL)
        self._poll_breaker = CircuitBreaker(
            store,
            unavailable="overrides or the number of workers may be out of date",
            available="overrides and the number of workers are up to date",
            threshold=1,
        )

    @property
    def is_started(self) -> bool:
        """Whether the limiter polls in the running event loop."""
        return self.poller.is_running

    async def check(
        self, identity: Identity, *, method: str = "GET", endpoint: str = UNMATCHED, cost: int = 1
    ) -> Decision:
        """Charge `cost` requests and return the decision.

        `endpoint` is the route template, `"*"` for none. Each policy takes `cost` times its own cost, in units; where
        its cost is a function of the request, `cost` itself. A `Concurrency` gives one permit, which is not renewed and
        expires with its lease: release it with `finish`. An exempt endpoint, or one that no policy applies to, is
        allowed without limits. A `cost` that is not a positive integer raises `ConfigurationError`.
        """
        _check_amount("cost", cost)
        ask_store = await self.start()
        policies, charges = self._charges(identity, method, endpoint, cost)
        return await self.decide(charges, acquire=policies.has_concurrency, ask_store=ask_store)

    async def peek(self, identity: Identity, *, method: str = "GET", endpoint: str = UNMATCHED) -> Decision:
        """Return the decision that one more request would get, charging nothing; `remaining` is as it stands."""
        ask_store = await self.start()
        _, charges = self._charges(identity, method, endpoint, 1)
        return await self._decide(charges, Operation.PEEK, ask_store=ask_store)

    async def consume(
        self,
        policy: str,
        identity: Identity,
        amount: int = 1,
        *,
        force: bool = False,
        method: str = "GET",
        endpoint: str = UNMATCHED,
    ) -> Decision:
        """Charge `amount` units of one limit or quota, by its name, at any endpoint.

        With `force` they are counted even above the limit: they are already spent. `identity` names the counter as it
        does for requests: for a policy by token, with the organization that the token came with. A policy that does
        not apply to it allows. An amount that is not a positive integer, an unknown policy, a `Concurrency` (see
        `slot`), or a policy that is counted for each endpoint where none is given raise `ConfigurationError`.
        """
        _check_amount("amount", amount)
        ask_store = await self.start()
        charge = self._charge(policy, identity, amount, method, endpoint)
        if charge is None:
            return Decision(True)
        if charge.limit.kind == "concurrency":
            raise ConfigurationError(f"policy: {policy!r} is a Concurrency, which gives permits: use slot or check")
        return await self._decide([charge], Operation.ADJUST if force else Operation.CHARGE, ask_store=ask_store)

    async def release(
        self, policy: str, identity: Identity, amount: int = 1, *, method: str = "GET", endpoint: str = UNMATCHED
    ) -> Decision:
        """Give back `amount` units of one limit or quota, and return how it stands then.

        More than was charged raises `OverRelease` and gives back nothing. A store that does not answer raises
        `StoreError`: whether it was done is unknown then. Other errors are those of `consume`.
        """
        _check_amount("amount", amount)
        await self.start()
        charge = self._charge(policy, identity, amount, method, endpoint)
        if charge is None:
            return Decision(True)
        if charge.limit.kind == "concurrency":
            raise ConfigurationError(f"policy: {policy!r} is a Concurrency: `finish` releases its permits")
        request = StoreRequest([charge._replace(cost=-amount)], Operation.RELEASE)
        reply = await self.enforcer.submit(request)
        if request.is_refused(reply):
            raise OverRelease(
                f"amount: fewer than {amount} {charge.limit.unit} of {policy!r} are charged; none released"
            )
        return Decision.from_limits(reply.service_limits([charge]))

    def slot(
        self, policy: str, identity: Identity, *, method: str = "GET", endpoint: str = UNMATCHED
    ) -> AbstractAsyncContextManager[Decision]:
        """Hold a permit of one `Concurrency` for an `async with` block, renewed until the block ends.

        Where no permit is free, entering raises `LimitExceeded`, whose `decision` says when to try again. A policy that
        is unknown or of another kind raises `ConfigurationError` here.
        """
        if not isinstance(self.resolver.policy_named(policy).policy, Concurrency):
            raise ConfigurationError(f"policy: {policy!r} is not a Concurrency and gives no permits")
        return self._slot(policy, identity, method, endpoint)

    async def finish(self, decision: Decision) -> None:
        """Release the permits of a decision and settle what it recorded; repeating it has no effect; never fails."""
        for released in [settlement.release() for settlement in decision.settlements]:
            await released

    async def usage(
        self, identity: Identity, *, method: str = "GET", endpoint: str = UNMATCHED
    ) -> tuple[QuotaUsage, ...]:
        """Return what `identity` has used of each quota of the settings that applies to it; raises `StoreError`."""
        await self.start()
        charges = [
            charge
            for policy in self.settings.quotas
            if endpoint != UNMATCHED or "endpoint" not in policy.per
            for charge in [
                self.resolver.charge(policy.name, identity, 1, self.clock(), method=method, endpoint=endpoint)
            ]
            if charge is not None
        ]
        if not charges:
            return ()
        reply = await self.enforcer.submit(StoreRequest(charges, Operation.USAGE))
        return tuple(
            _quota_usage(charge, reading, reply.now) for charge, reading in zip(charges, reply.readings, strict=True)
        )

    def decide(
        self, charges: Sequence[Charge], *, acquire: bool = False, ask_store: bool = True
    ) -> Coroutine[Any, Any, Decision]:
        """Decide pre-built charges, as `resolver` makes them; `acquire` where there may be permits among them.

        `ask_store` is what `start` has returned: without it the policies' failure modes decide.
        """
        return self._decide(charges, Operation.ACQUIRE if acquire else Operation.CHARGE, ask_store=ask_store)

    async def start(self) -> bool:
        """Read the overrides and poll for changes; the first decision in an event loop does this by itself.

        The first poll of a process is waited for, but no longer than a call to the store may take. Returns whether the
        store may be asked: a request that has waited in vain is not kept waiting a second time.
        """
        if self.poller.is_running:
            return True
        self.enforcer.open()
        wait = self.store.call_timeout or self.settings.store_timeout
        return not await self.poller.start(wait=0.0 if self.overrides.is_loaded else wait)

    async def aclose(self) -> None:
        """Wait for what is being written and close the store; may be called twice."""
        await self.poller.aclose()
        with suppress(StoreError):
            await self.enforcer.workers.sign_off()
        await self.enforcer.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _decide(self, charges: Sequence[Charge], operation: Operation, *, ask_store: bool) -> Decision:
        """Decide charges; all public methods go through here."""
        if not charges:
            return Decision(True)
        decision = await self.enforcer.decide(charges, operation, ask_store=ask_store)
        for limit in decision.refused_in_shadow:
            logger.info("shadow policy %s would have refused for %.3f s", limit.policy, limit.retry_after)
        return decision

    async def _poll(self) -> None:
        """Read the overrides and send a heartbeat; a login may have the rights for one of them alone."""
        failure: Exception | None = None
        for call in (self.overrides.refresh, self.enforcer.workers.heartbeat):
            try:
                await call()
            except Exception as error:  # noqa: BLE001 - the next poll may succeed
                failure = failure or error
        if failure is None:
            self._poll_breaker.record_success()
        elif not self.enforcer.circuit_breaker.has_failures:  # Otherwise the log says already that the store is away.
            self._poll_breaker.record_failure(failure)

    @asynccontextmanager
    async def _slot(self, policy: str, identity: Identity, method: str, endpoint: str) -> AsyncIterator[Decision]:
        ask_store = await self.start()
        charge = self._charge(policy, identity, 1, method, endpoint)
        decision = await self.decide([] if charge is None else [charge], acquire=True, ask_store=ask_store)
        if not decision.allowed:
            retry = f"; try again in {decision.retry_after:g} s" if math.isfinite(decision.retry_after) else ""
            raise LimitExceeded(f"no permit of {policy!r} is free{retry}", decision)
        try:
            for settlement in decision.settlements:
                settlement.start_renewal()
            yield decision
        finally:
            await self.finish(decision)

    def _charge(self, policy: str, identity: Identity, amount: int, method: str, endpoint: str) -> Charge | None:
        return self.resolver.charge(policy, identity, amount, self.clock(), method=method.upper(), endpoint=endpoint)

    def _charges(
        self, identity: Identity, method: str, endpoint: str, cost: int
    ) -> tuple[EndpointPolicies, Sequence[Charge]]:
        policies = self.resolver.policies_at(self.resolver.endpoint(method.upper(), endpoint))
        return policies, policies.charges(identity, cost, now=self.clock())


def _quota_usage(charge: Charge, reading: Reading, now: int) -> QuotaUsage:
    limit, (used, reset_ms, last) = charge.limit, reading
    # Periods end on the second; the rest is how long the reply took.
    resets_at = None if limit.period is None else float(round((now + reset_ms * 1000) / 1e6))
    number = limit.advertised_limit
    return QuotaUsage(limit.policy, limit.unit, limit.period, number, used, max(0, number - used), resets_at, last)


def _check_amount(name: str, amount: object) -> None:
    if not is_int_between(amount, 1, MAX_LIMIT):
        raise ConfigurationError(f"{name}: must be a positive integer, got {amount!r}")
