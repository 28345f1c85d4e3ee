"""The limiter: the public API of the core, without HTTP."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import repeat
from typing import Any

from ratelimit._utils.validation import check_amount
from ratelimit.config.policies import Concurrency
from ratelimit.enforcement.at_most import take_at_most
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.events import CorrectionEvent
from ratelimit.enforcement.permits import held_permit
from ratelimit.errors import ConfigurationError, OverRelease
from ratelimit.limiter_core import POLL_INTERVAL, LimiterCore
from ratelimit.model.charge import Charge
from ratelimit.model.identity import Identity
from ratelimit.model.kinds import NEVER
from ratelimit.model.quota_usage import QuotaUsage, quota_usage
from ratelimit.model.service_limit import ServiceLimit
from ratelimit.resolver.endpoint import UNMATCHED
from ratelimit.resolver.labels import label_of
from ratelimit.stores.messages import Operation, StoreRequest

__all__ = ["POLL_INTERVAL", "Limiter"]


class Limiter(LimiterCore):
    """Charge every limit that applies to an identity at an endpoint, all of them or none, in one atomic step.

    `check` charges a request and is what most callers need. `peek` tells what `check` would decide, and charges nothing.
    `consume` and `release` charge and give back units of one policy by its name. `slot` holds a permit of one
    `Concurrency` for a block. `check` and `slot` refuse by themselves; `consume` can be forced.

    `store` replaces the one that the settings name; `clock` returns integer microseconds since the epoch; `listeners` get to
    know what is decided. Constructing connects to nothing, and no decision raises because of a store: while it is
    unavailable, the policies' failure modes decide. Use the limiter as an async context manager, or call `aclose` at the
    end. `overrides` change rates while the app runs, `blocks` refuse callers.
    """

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
        policies = (policies,) if isinstance(policies, str) else policies
        if cost == 0:
            seen = await self.peek(identity, method=method, endpoint=endpoint, cost=0, policies=policies)
            seen.granted = 0 if at_most else None
            return seen
        check_amount("cost", cost)
        _check_identity(identity)
        ask_store = self.poller.is_running or await self.start()
        if self.has_listed and (listed := self.listed(identity)) is not None:
            self.observer.tally(listed, (), 0.0)
            self.said(listed, (), identity, self.resolver.endpoint(method.upper(), endpoint), 0.0)
            listed.granted = cost * listed.allowed if at_most else None
            return listed

        if policies is None and not at_most:  # The usual check.
            place = self.resolver.route(method.upper(), endpoint)
            usual = self.resolver.policies_at(place)
            began, charges = self.observer.began(), usual.charges(identity, cost, now=self.clock())
            acquire = usual.has_concurrency
            decision = self.decide_now(charges, acquire=acquire)
            if decision is None:
                decision = await self.decide(charges, acquire=acquire, ask_store=ask_store)
            self.observer.tally(decision, charges, began)
            if self.observer.hears or decision.unrendered is None:
                self.said(decision, charges, identity, place, began)
            return decision
        return await self._check_chosen(
            identity, method, endpoint, cost, policies, at_most=at_most, ask_store=ask_store
        )

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
        await self.start()
        listed = self.listed(identity)
        if listed is None:
            listed = await self.look(identity, method=method, endpoint=endpoint, cost=cost, policies=policies)
        return listed

    async def limits(
        self, identity: Identity, *, method: str = "GET", endpoint: str = UNMATCHED
    ) -> tuple[ServiceLimit, ...]:
        """Return what applies to an identity at an endpoint, and what is left of it; charges nothing.

        So it is for a blocked caller too. A policy that an override has lifted does not apply.
        """
        return (await self.look(identity, method=method, endpoint=endpoint)).limits

    async def look(
        self,
        identity: Identity,
        *,
        method: str = "GET",
        endpoint: str = UNMATCHED,
        cost: int = 0,
        policies: Sequence[str] | None = None,
    ) -> Decision:
        """Do as `peek`, whether the caller is blocked or not."""
        _check_identity(identity)
        ask_store = await self.start()
        charges = self._charges(identity, method, endpoint, cost, policies)
        return await self.decide(charges, ask_store=ask_store, operation=Operation.PEEK)

    async def message(self, connection: Any, policy: str, amount: int = 1) -> Decision:
        """Charge a message of a WebSocket to one policy by its name, for the identity of the handshake, as `consume`.

        A connection that has not passed the middleware raises `ConfigurationError`.
        """
        identity = connection.scope.get("state", {}).get("identity")
        if not isinstance(identity, Identity):
            raise ConfigurationError("message: the connection has not passed a RateLimitMiddleware [RL203]")
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
        _check_identity(identity)
        ask_store = await self.start()
        if not force and (listed := self.listed(identity)) is not None:
            self.observer.tally(listed, (), 0.0)
            self.said(listed, (), identity, self.resolver.endpoint(method.upper(), endpoint), 0.0)
            return listed
        charge = self.resolver.named.units(policy, identity, amount, self.clock(), method=method, endpoint=endpoint)
        return await self.decide_and_say(
            [] if charge is None else [charge],
            Operation.ADJUST if force else Operation.CHARGE,
            ask_store=ask_store,
            identity=identity,
            method=method,
            endpoint=endpoint,
        )

    async def release(
        self, policy: str, identity: Identity, amount: int = 1, *, method: str = "GET", endpoint: str = UNMATCHED
    ) -> Decision:
        """Give back `amount` units of one limit or quota, and return how it stands then.

        More than was charged raises `OverRelease` and gives back nothing. A store that does not answer raises
        `StoreError`: whether it was done is unknown then. Other errors are those of `consume`.
        """
        check_amount("amount", amount)
        _check_identity(identity)
        await self.start()
        charge = self.resolver.named.units(policy, identity, amount, self.clock(), method=method, endpoint=endpoint)
        if charge is None:
            return Decision(True)
        request = StoreRequest([charge._replace(cost=-amount)], Operation.RELEASE)
        reply = await self.enforcer.submit(request)
        if request.is_refused(reply):
            unit = charge.limit.unit
            raise OverRelease(f"amount: fewer than {amount} {unit} of {policy!r} are charged; none released [RL313]")
        self.observer.corrected(CorrectionEvent(policy=policy, action="released", units=amount))
        return Decision.from_limits(reply.service_limits([charge]))

    def slot(
        self, policy: str, identity: Identity, *, method: str = "GET", endpoint: str = UNMATCHED
    ) -> AbstractAsyncContextManager[Decision]:
        """Hold a permit of one `Concurrency` for an `async with` block, renewed until the block ends.

        Where no permit is free, entering raises `LimitExceeded`, whose `decision` says when to try again. A policy that
        is unknown or of another kind raises `ConfigurationError` here.
        """
        if not isinstance(self.resolver.named.get(policy).policy, Concurrency):
            raise ConfigurationError(f"policy: {policy!r} is not a Concurrency and gives no permits [RL304]")
        return self._slot(policy, identity, method, endpoint)

    async def finish(self, decision: Decision) -> None:
        """Release the permits of a decision and settle what it recorded; repeating it has no effect; never fails."""
        await decision.release()

    async def usage(
        self, identity: Identity, *, method: str = "GET", endpoint: str = UNMATCHED
    ) -> tuple[QuotaUsage, ...]:
        """Return what `identity` has used of each quota of the settings that applies to it; raises `StoreError`."""
        _check_identity(identity)
        await self.start()
        charges = self.resolver.quota_charges(identity, self.clock(), method=method, endpoint=endpoint)
        if not charges:
            return ()
        reply = await self.enforcer.submit(StoreRequest(charges, Operation.USAGE))
        return tuple(map(quota_usage, charges, reply.readings, repeat(reply.now)))

    async def reset(
        self, identity: Identity, policy: str | None = None, *, why: str | None = None, by: str | None = None
    ) -> int:
        """Empty what `identity` has used, at all endpoints that this process knows; return how many counters there were.

        Windows and calendar quotas; levels, permits, and what all callers share only by their policy's name. Other
        workers remember a refusal for a second at most. The audit trail keeps `why` and `by`. An unknown policy raises
        `ConfigurationError`, an unavailable store `StoreError`.
        """
        _check_identity(identity)
        await self.start()
        counters, quotas = self.resolver.counters(identity, self.clock(), policy)
        found = await asyncio.gather(*[self.enforcer.delete({*keys}) for keys in counters if len(keys) > 1])
        emptied = sum(map(bool, found)) + await self.enforcer.delete({keys[0] for keys in counters if len(keys) == 1})
        if quotas:  # What was used in the period before stays known.
            used = await self.enforcer.submit(StoreRequest(quotas, Operation.USAGE))
            emptied += sum(units > 0 for units, _, _ in used.readings)
            back = [quota._replace(cost=-NEVER) for quota in quotas]
            await self.enforcer.submit(StoreRequest(back, Operation.ADJUST))
        done = {"policy": policy, "caller": label_of(identity, self.resolver.named), "why": why, "by": by}
        await self.audit.record("reset", "counters", done)
        return emptied

    async def _check_chosen(
        self,
        identity: Identity,
        method: str,
        endpoint: str,
        cost: int,
        policies: Sequence[str] | None,
        *,
        at_most: bool,
        ask_store: bool,
    ) -> Decision:
        charged: Sequence[Charge] = ()

        async def decide(requests: int) -> Decision:
            nonlocal charged
            charged = self._charges(identity, method, endpoint, requests, policies)
            has_permits = any(charge.limit.kind == "concurrency" for charge in charged)
            return await self.decide(charged, acquire=has_permits, ask_store=ask_store)

        async def fits(requests: int) -> bool:
            look = self.look(identity, method=method, endpoint=endpoint, cost=requests, policies=policies)
            return (await look).allowed

        began = self.observer.began()
        decision = await (take_at_most(cost, decide, fits) if at_most else decide(cost))
        self.observer.tally(decision, charged, began)
        if self.observer.hears or decision.unrendered is None:
            self.said(decision, charged, identity, self.resolver.endpoint(method.upper(), endpoint), began)
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


def _check_identity(identity: object) -> None:
    if not isinstance(identity, Identity):
        raise ConfigurationError(f"identity: must be an Identity, got {type(identity).__name__} [RL302]")
