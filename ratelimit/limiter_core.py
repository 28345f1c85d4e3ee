"""The parts of a limiter, and how they work together: it starts, decides charges, says what it decided, and closes."""

import logging
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, Final, Literal, Self

from ratelimit._utils.poller import Poller
from ratelimit.clock import Clock, monotonic, system_clock
from ratelimit.config.settings import RateLimitSettings, StatisticsSettings
from ratelimit.config.settings_hash import settings_hash
from ratelimit.controls.allowed_callers import AllowedCallers
from ratelimit.controls.audit_trail import AuditTrail
from ratelimit.controls.blocks import Blocks
from ratelimit.controls.fleet_switches import FleetSwitches
from ratelimit.controls.overrides import Overrides
from ratelimit.controls.settings_reload import SettingsReload
from ratelimit.controls.shared_entries import SharedEntries
from ratelimit.enforcement.background_polls import BackgroundPolls
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.enforcer import Enforcer
from ratelimit.enforcement.events import CorrectionEvent, DecisionEvent, OverrideEvent, ReloadEvent, result_of
from ratelimit.enforcement.failure_modes import decision_of
from ratelimit.enforcement.health import Health, check_health
from ratelimit.enforcement.listeners import Listener, Listeners
from ratelimit.enforcement.observer import Observer
from ratelimit.enforcement.prefetch import PrefetchPool
from ratelimit.enforcement.statistics import Statistics
from ratelimit.errors import ConfigurationError, StoreError
from ratelimit.model.charge import Charge
from ratelimit.model.identity import Identity
from ratelimit.resolver.endpoint import Endpoint
from ratelimit.resolver.keys import escape
from ratelimit.resolver.labels import CounterLabels, key_of_caller, label_of
from ratelimit.resolver.resolver import PolicyResolver
from ratelimit.stores.base import Store
from ratelimit.stores.messages import Operation, new_request
from ratelimit.stores.urls import open_store

logger = logging.getLogger("ratelimit")

_HEALTH_AGE_S: Final = 1.0
POLL_INTERVAL: Final = 1.0
"""Seconds between two background polls of a worker: two small calls, for overrides and the worker registry."""


class LimiterCore:
    """Has the settings, the store and the parts; decides charges that are made already.

    `overrides` change rates while the app runs, `blocks` refuse callers and `allowed` exempts them, `fleet` puts policies into shadow
    or pauses them, and `audit` knows who has done what of these; `statistics` are there where the settings want
    them. `resolver`, `store`, `enforcer` and `observer` are its parts.
    """

    def __init__(
        self,
        settings: RateLimitSettings,
        store: Store | None = None,
        clock: Clock | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        if not isinstance(settings, RateLimitSettings):
            raise ConfigurationError(f"settings: must be RateLimitSettings, got {settings!r:.100} [RL122]")
        self.resolver = PolicyResolver(settings)
        self.clock: Clock = clock or system_clock
        if store is None:
            store = open_store(settings.store, clock=clock, timeout=settings.store_timeout, max_keys=settings.max_keys)
        self.store = store
        self.observer = Observer(Listeners(listeners))
        self.enforcer = Enforcer(
            store,
            self.clock,
            self.resolver.settleable,
            prefetch=any(limit.prefetch for limit in settings.limits),
            key_prefix=escape(settings.key_prefix),
            observer=self.observer,
        )
        self.enforcer.workers.config = lambda: settings_hash(self.settings)
        self.statistics = self._statistics(settings.statistics)
        self._add_controls()
        self._health: tuple[float, Health | None] = 0.0, None
        self._holding = OverrideEvent(overrides=0, blocks=0)
        breaker = self.enforcer.circuit_breaker
        actions = [self._entries.poll, self.fleet.end_those_over, self._reload.poll, self.observer.flush]
        actions.append(self.enforcer.workers.heartbeat)
        actions += [] if self.statistics is None else [self.statistics.flush_all]
        self.poller = Poller(BackgroundPolls(store, actions, lambda: breaker.has_failures).run, POLL_INTERVAL)
        for listener in listeners:
            listener.attach(self)

    def _add_controls(self) -> None:
        """Make what operators change while the app runs, all of it in one shared map of the store."""
        shared = f"{self.settings.key_prefix}:{{overrides}}"
        self.audit = AuditTrail(self.store, f"{shared}:audit", self.clock)
        self._entries = SharedEntries(self.store, shared, self.audit, lambda: self.enforcer.workers.is_onlooker)
        self.overrides = Overrides(self.resolver, self._entries, self.clock)
        self.blocks = Blocks(self.resolver, self._entries, self.clock)
        self.allowed = AllowedCallers(self.resolver, self._entries, self.clock)
        self.fleet = FleetSwitches(self.resolver, self._entries, self.clock)
        self.has_listed = False
        """Whether any caller is blocked, or is allowed whatever it does."""
        self._entries.subscribe(self._say_what_holds)
        self._reload = SettingsReload(self.resolver, self.clock, self._reloaded)

    @property
    def settings(self) -> RateLimitSettings:
        """The settings that hold now."""
        return self.resolver.settings

    async def reload(self, settings: RateLimitSettings) -> bool:
        """Let other settings hold from now on in this worker, and return whether they differ.

        They are checked first and take effect in one step: what is under way finishes under the rules that it began with, and
        counters go on whose policy keeps its name (those of a quota, its period too). Where they cannot hold, or change `store`, `key_prefix`,
        `hash_key` or another field that needs a restart, `ConfigurationError` names the field, and the settings before stay.
        """
        return self._reload.apply(settings)

    @property
    def is_started(self) -> bool:
        """Whether the limiter polls in the running event loop."""
        return self.poller.is_running

    def decide(
        self,
        charges: Sequence[Charge],
        *,
        acquire: bool = False,
        ask_store: bool = True,
        operation: Operation | None = None,
    ) -> Coroutine[Any, Any, Decision]:
        """Decide pre-built charges, as `resolver` makes them; `acquire` where there may be permits among them.

        `ask_store` is what `start` has returned: without it the policies' failure modes decide. Nothing is said of it:
        that is for `said`, by which the caller also says where and for whom it was.
        """
        if not charges:
            return _admit()
        chosen = operation or (Operation.ACQUIRE if acquire else Operation.CHARGE)
        return self.enforcer.decide(charges, chosen, ask_store=ask_store)

    def decide_now(self, charges: Sequence[Charge], *, acquire: bool = False) -> Decision | None:
        """Do as `decide` where nothing has to be waited for; `None` where it may."""
        if not charges:
            return Decision(True)
        if not self.store.is_immediate:
            return None
        request = new_request(charges, Operation.ACQUIRE if acquire else Operation.CHARGE)
        reply = self.store.submit_nowait(request)
        return None if reply is None else decision_of(request, reply, self.enforcer.target)

    async def decide_and_say(
        self,
        charges: Sequence[Charge],
        operation: Operation,
        *,
        ask_store: bool,
        identity: Identity,
        method: str,
        endpoint: str,
    ) -> Decision:
        """Decide charges, and let the log and the listeners know; units that were already spent are a correction."""
        began = monotonic() if self.observer.is_timing else 0.0
        decision = await self.enforcer.decide(charges, operation, ask_store=ask_store) if charges else Decision(True)
        if operation == Operation.ADJUST:
            for charge in charges:
                self.observer.corrected(CorrectionEvent(policy=charge.limit.policy, action="forced", units=charge.cost))
        else:
            self.observer.tally(decision, charges, began)
        if operation != Operation.ADJUST and (self.observer.hears or decision.unrendered is None):
            place = self.resolver.endpoint(method.upper(), endpoint)
            self.said(decision, charges, identity, place, began)
        return decision

    def said(  # noqa: PLR0917 - on the path of each request
        self,
        decision: Decision,
        charges: Sequence[Charge],
        identity: Identity,
        endpoint: Endpoint,
        began: float,
        request_id: str | None = None,
    ) -> None:
        """Let the log and the listeners know of a decision; `began` is by `clock.monotonic`."""
        observer = self.observer
        seconds = monotonic() - began if began else 0.0
        if not decision.allowed or observer.listeners.hears_decisions or decision.refused_in_shadow:
            event = partial(self._event, decision, charges, identity, endpoint, seconds, request_id)
            observer.decided(decision, hash((identity.token, identity.org, identity.ip)), event)

    def _event(  # noqa: PLR0917
        self,
        decision: Decision,
        charges: Sequence[Charge],
        identity: Identity,
        endpoint: Endpoint,
        seconds: float,
        request_id: str | None,
    ) -> DecisionEvent:
        return DecisionEvent(
            result=result_of(decision, charges),
            decision=decision,
            charges=charges,
            source=decision.source,
            method=endpoint.method,
            route=endpoint.template,
            label=label_of(identity, self.resolver.named),
            caller=key_of_caller(identity, self.resolver.named),
            seconds=seconds,
            request_id=request_id,
        )

    def listed(self, identity: Identity) -> Decision | None:
        """Return the decision on a caller that is blocked or allowed whatever its limits say, else `None`."""
        if not self.has_listed:
            return None
        if self.allowed.find(identity) is not None:
            return Decision(True)
        block = self.blocks.find(identity)
        return None if block is None else Decision.blocked(block.seconds_left(self.clock()))

    async def block(
        self, key: Mapping[str, str], *, until: datetime | None = None, why: str | None = None, by: str | None = None
    ) -> None:
        """Refuse all requests of callers with these values: 403, with the code `blocked`; as `blocks.set`."""
        await self.blocks.set(key, until=until, why=why, by=by)

    async def health(self) -> Health:
        """Return how the limiter and its store are; asks the store at most once a second, and never fails."""
        await self.start()
        checked_at, health = self._health
        if health is None or monotonic() - checked_at >= _HEALTH_AGE_S:
            health = await check_health(self.enforcer)
            self._health = monotonic(), health
        return health

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
        self.observer.refusal_log.flush(all_of_them=True)
        try:
            with suppress(StoreError):
                await self.enforcer.workers.sign_off()
                if self.statistics is not None:
                    await self.statistics.flush_all()
        finally:
            await self.enforcer.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def _statistics(self, wanted: object) -> Statistics | None:
        if not isinstance(wanted, StatisticsSettings):
            return None
        statistics = Statistics(
            self.store,
            self.observer.count(measures=False),
            self.clock,
            escape(self.settings.key_prefix),
            minutes_kept=wanted.minutes_kept,
            hours_kept=wanted.hours_kept,
            names=CounterLabels(lambda: self.resolver.named),
        )
        self.observer.refusals = statistics.refusals
        return statistics

    def _reloaded(self, result: Literal["applied", "unchanged", "rejected"], error: str | None) -> None:
        if self.enforcer.prefetch_pool is None and any(limit.prefetch for limit in self.settings.limits):
            self.enforcer.prefetch_pool = PrefetchPool()
        self.observer.reloaded(ReloadEvent(result=result, error=error))

    def _say_what_holds(self, _: Mapping[str, bytes]) -> None:
        self.has_listed = len(self.blocks) + len(self.allowed) > 0
        event = OverrideEvent(overrides=len(self.overrides), blocks=len(self.blocks))
        if event != self._holding:
            logger.info("%d overrides and %d blocks hold", event.overrides, event.blocks)
        self._holding = event
        self.observer.listeners.override(event)


async def _admit() -> Decision:
    return Decision(True)
