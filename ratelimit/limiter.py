"""The limiter: the public API of the core, without HTTP."""

import logging
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import datetime
from itertools import repeat
from typing import Any, Final, Self

from ratelimit._utils.poller import Poller
from ratelimit._utils.validation import check_amount
from ratelimit.clock import Clock, system_clock
from ratelimit.config.policies import Concurrency
from ratelimit.config.settings import RateLimitSettings
from ratelimit.controls.blocks import Blocks
from ratelimit.controls.overrides import Overrides
from ratelimit.controls.shared_entries import SharedEntries
from ratelimit.enforcement.at_most import take_at_most
from ratelimit.enforcement.background_polls import BackgroundPolls
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.enforcer import Enforcer
from ratelimit.enforcement.permits import held_permit
from ratelimit.errors import ConfigurationError, OverRelease, StoreError
from ratelimit.model.charge import Charge
from ratelimit.model.identity import Identity
from ratelimit.model.quota_usage import QuotaUsage, quota_usage
from ratelimit.model.service_limit import ServiceLimit
from ratelimit.resolver.endpoint import UNMATCHED
from ratelimit.resolver.keys import escape
from ratelimit.resolver.resolver import PolicyResolver
from ratelimit.stores.base import Store
from ratelimit.stores.messages import Operation, StoreRequest
from ratelimit.stores.urls import open_store

logger = logging.getLogger("ratelimit")

POLL_INTERVAL: Final = 1.0
"""Seconds between two background polls of a worker: two small calls, for overrides and the worker registry."""


class Limiter:
    """Charge every limit that applies to an identity at an endpoint, all of them or none, in one atomic step.

    `check` charges a request and is what most callers need. `peek` tells what `check` would decide, and charges nothing.
    `consume` and `release` charge and give back units of one policy by its name. `slot` holds a permit of one
    `Concurrency` for a block. `check` and `slot` refuse by themselves; `consume` can be forced.

    `store` replaces the one that the settings name; `clock` returns integer microseconds since the epoch. Constructing
    connects to nothing, and no decision raises because of a store: while it is unavailable, the policies' failure modes
    decide. Use the limiter as an async context manager, or call `aclose` at the end. `overrides` change rates while the
    app runs, `blocks` refuse callers. `resolver`, `store` and `enforcer` are its parts.
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
        entries = SharedEntries(store, f"{settings.key_prefix}:{{overrides}}")
        self.overrides = Overrides(self.resolver, entries, self.clock)
        self.blocks = Blocks(self.resolver, entries, self.clock)
        breaker = self.enforcer.circuit_breaker
        actions = entries.refresh, self.enforcer.workers.heartbeat
        self.poller = Poller(BackgroundPolls(store, actions, lambda: breaker.has_failures).run, POLL_INTERVAL)
        self._entries = entries

    @property
    def is_started(self) -> bool:
        """Whether the limiter polls in the running event loop."""
        return self.poller.is_running

    async def check(
        self,
        identity: Identity,
        *,
        method: str = "GET",
        endpoint: str = UNMATCHED,
        cost: int = 1,
        policies: Sequence[str] | None = None,
        at_most: bool = False,
    ) -> Decision:
        """Charge `cost` requests and return the decision.

        `endpoint` is the route template, `"*"` for none; where the routes of an app are known, its decorators and
        dependencies count too. Each policy takes `cost` times its own cost, in units; where its cost is a function of
        the request, `cost` itself. A `cost` of 0 looks, and charges nothing. With `policies` those of these names are
        charged, and no others. With `at_most` as many requests are charged as all policies have left, up to `cost`:
        `Decision.granted` tells how many; none is a refusal.

        A `Concurrency` gives one permit, which expires with its lease: release it with `finish`. Where no policy applies,
        the request is allowed. A `cost` that is no integer ≥ 0, or an unknown policy, raises `ConfigurationError`.
        """
        if cost == 0:
            return await self.peek(identity, method=method, endpoint=endpoint, cost=0, policies=policies)
        check_amount("cost", cost)
        ask_store = self.poller.is_running or await self.start()
        if (refused := self.blocked(identity)) is not None:
            return refused
        if policies is None and not at_most:  # The usual check.
            usual = self.resolver.policies_at(self.resolver.route(method.upper(), endpoint))
            charges = usual.charges(identity, cost, now=self.clock())
            return await self.decide(charges, acquire=usual.has_concurrency, ask_store=ask_store)

        def decide(requests: int) -> Coroutine[Any, Any, Decision]:
            charges = self._charges(identity, method, endpoint, requests, policies)
            acquire = any(charge.limit.kind == "concurrency" for charge in charges)
            return self.decide(charges, acquire=acquire, ask_store=ask_store)

        return await take_at_most(cost, decide) if at_most else await decide(cost)

    async def peek(
        self,
        identity: Identity,
        *,
        method: str = "GET",
        endpoint: str = UNMATCHED,
        cost: int = 1,
        policies: Sequence[str] | None = None,
    ) -> Decision:
        """Return what `check` with these arguments would decide, charging nothing; `remaining` is as it stands."""
        if cost != 0:
            check_amount("cost", cost)
        ask_store = await self.start()
        if (refused := self.blocked(identity)) is not None:
            return refused
        charges = self._charges(identity, method, endpoint, cost, policies)
        return await self._decide(charges, Operation.PEEK, ask_store=ask_store)

    async def limits(
        self, identity: Identity, *, method: str = "GET", endpoint: str = UNMATCHED
    ) -> tuple[ServiceLimit, ...]:
        """Return what applies to an identity at an endpoint, and what is left of it; charges nothing."""
        return (await self.peek(identity, method=method, endpoint=endpoint, cost=0)).limits

    async def message(self, connection: Any, policy: str, amount: int = 1) -> Decision:
        """Charge a message of a WebSocket to one policy by its name, for the identity of the handshake, as `consume`.

        A connection that has not passed the middleware raises `ConfigurationError`.
        """
        identity = connection.scope.get("state", {}).get("identity")
        if not isinstance(identity, Identity):
            raise ConfigurationError("message: the connection has not passed a RateLimitMiddleware")
        return await self.consume(policy, identity, amount)

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
        check_amount("amount", amount)
        ask_store = await self.start()
        charge = self.resolver.named.units(policy, identity, amount, self.clock(), method=method, endpoint=endpoint)
        operation = Operation.ADJUST if force else Operation.CHARGE
        return await self._decide([] if charge is None else [charge], operation, ask_store=ask_store)

    async def release(
        self, policy: str, identity: Identity, amount: int = 1, *, method: str = "GET", endpoint: str = UNMATCHED
    ) -> Decision:
        """Give back `amount` units of one limit or quota, and return how it stands then.

        More than was charged raises `OverRelease` and gives back nothing. A store that does not answer raises
        `StoreError`: whether it was done is unknown then. Other errors are those of `consume`.
        """
        check_amount("amount", amount)
        await self.start()
        charge = self.resolver.named.units(policy, identity, amount, self.clock(), method=method, endpoint=endpoint)
        if charge is None:
            return Decision(True)
        request = StoreRequest([charge._replace(cost=-amount)], Operation.RELEASE)
        reply = await self.enforcer.submit(request)
        if request.is_refused(reply):
            unit = charge.limit.unit
            raise OverRelease(f"amount: fewer than {amount} {unit} of {policy!r} are charged; none released")
        return Decision.from_limits(reply.service_limits([charge]))

    def slot(
        self, policy: str, identity: Identity, *, method: str = "GET", endpoint: str = UNMATCHED
    ) -> AbstractAsyncContextManager[Decision]:
        """Hold a permit of one `Concurrency` for an `async with` block, renewed until the block ends.

        Where no permit is free, entering raises `LimitExceeded`, whose `decision` says when to try again. A policy that
        is unknown or of another kind raises `ConfigurationError` here.
        """
        if not isinstance(self.resolver.named.get(policy).policy, Concurrency):
            raise ConfigurationError(f"policy: {policy!r} is not a Concurrency and gives no permits")
        return self._slot(policy, identity, method, endpoint)

    async def finish(self, decision: Decision) -> None:
        """Release the permits of a decision and settle what it recorded; repeating it has no effect; never fails."""
        await decision.release()

    async def usage(
        self, identity: Identity, *, method: str = "GET", endpoint: str = UNMATCHED
    ) -> tuple[QuotaUsage, ...]:
        """Return what `identity` has used of each quota of the settings that applies to it; raises `StoreError`."""
        await self.start()
        charges = self.resolver.quota_charges(identity, self.clock(), method=method, endpoint=endpoint)
        if not charges:
            return ()
        reply = await self.enforcer.submit(StoreRequest(charges, Operation.USAGE))
        return tuple(map(quota_usage, charges, reply.readings, repeat(reply.now)))

    async def reset(self, identity: Identity, policy: str | None = None) -> int:
        """Empty what `identity` has used, at all endpoints that this process knows; return how many counters there were.

        Windows and calendar quotas; levels, permits, and what all callers share only by their policy's name. Other workers remember a refusal for a
        second at most. An unknown policy raises `ConfigurationError`, an unavailable store `StoreError`.
        """
        await self.start()
        return await self.enforcer.delete(self.resolver.counter_keys(identity, policy))

    async def block(
        self, key: Mapping[str, str], *, until: datetime | None = None, why: str | None = None, by: str | None = None
    ) -> None:
        """Refuse all requests of callers with these values: 403, with the code `blocked`; as `blocks.set`."""
        await self.blocks.set(key, until=until, why=why, by=by)

    def blocked(self, identity: Identity) -> Decision | None:
        """Return the refusal of a caller that is blocked, else `None`."""
        block = self.blocks.find(identity) if len(self.blocks) else None
        return None if block is None else Decision.blocked(block.seconds_left(self.clock()))

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
        wait = 0.0 if self._entries.is_loaded else self.store.call_timeout or self.settings.store_timeout
        return not await self.poller.start(wait=wait)

    async def aclose(self) -> None:
        """Wait for what is being written and close the store; may be called twice."""
        await self.poller.aclose()
        with suppress(StoreError):
            await self.enforcer.workers.sign_off()
        await self.enforcer.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def _decide(self, charges: Sequence[Charge], operation: Operation, *, ask_store: bool) -> Decision:
        """Decide charges; all public methods go through here."""
        if not charges:
            return Decision(True)
        decision = await self.enforcer.decide(charges, operation, ask_store=ask_store)
        for limit in decision.refused_in_shadow:
            logger.info("shadow policy %s would have refused for %.3f s", limit.policy, limit.retry_after)
        return decision

    @asynccontextmanager
    async def _slot(self, policy: str, identity: Identity, method: str, endpoint: str) -> AsyncIterator[Decision]:
        decision = await self.check(identity, method=method, endpoint=endpoint, policies=[policy])
        async with held_permit(decision, policy):
            yield decision

    def _charges(
        self, identity: Identity, method: str, endpoint: str, cost: int, names: Sequence[str] | None
    ) -> Sequence[Charge]:
        if names is None:
            policies = self.resolver.policies_at(self.resolver.route(method.upper(), endpoint))
            return policies.charges(identity, cost, now=self.clock())
        return self.resolver.named.charges(names, identity, cost, self.clock(), method=method, endpoint=endpoint)
