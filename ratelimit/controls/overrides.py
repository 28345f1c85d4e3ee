"""Overrides: rates of single callers, of plans or of all callers, changed while the app runs, in every worker."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from ratelimit._utils.validation import is_int
from ratelimit.clock import Clock
from ratelimit.config.fields import UNLIMITED
from ratelimit.config.policies import Limit
from ratelimit.controls.shared_entries import (
    CONTROL,
    SharedEntries,
    check_unicode,
    checked_instant,
    checked_text,
    instant_of,
    readable,
    text_of,
)
from ratelimit.errors import ConfigurationError
from ratelimit.model.override import Override
from ratelimit.model.rate import Rate
from ratelimit.resolver.compiled_policy import EVERYBODY, plan_counter
from ratelimit.resolver.keys import escape
from ratelimit.resolver.named_policies import HASH_SUFFIX
from ratelimit.resolver.resolver import PolicyResolver

__all__ = ["Override", "Overrides"]

logger = logging.getLogger("ratelimit")

_NOT_ONE: Final = "key: say who: key={'token': …} for one caller, plan='pro' for a plan, key={} for all callers [RL306]"


class Overrides:
    """Keeps other rates than the settings say: in the store, so that all workers use them.

    The limiter reads changes once a second in the background; requests never wait for it. What an identity was granted
    (`Identity.rates`) wins over an override, and an override over schedules, plans and the policy's own rate. An override
    of one caller wins over that of its plan, and this over that of all callers.
    """

    def __init__(self, resolver: PolicyResolver, entries: SharedEntries, clock: Clock) -> None:
        self._resolver, self._entries, self._clock = resolver, entries, clock
        self._known: dict[str, Override] = {}
        self._logged: set[tuple[str, bytes]] = set()
        self.unreadable = 0
        """The stored overrides that cannot be read, and have no effect."""
        entries.subscribe(self._apply)

    def __len__(self) -> int:
        return len(self._known)

    def counts(self) -> dict[str, int]:
        """Return how many overrides hold in this worker, by policy."""
        return dict(Counter(each.policy for each in self._known.values() if not each.is_over(self._clock())))

    async def set(
        self,
        *,
        policy: str,
        key: Mapping[str, str] | None = None,
        plan: str | None = None,
        rate: Rate | str | int,
        until: datetime | None = None,
        why: str | None = None,
        by: str | None = None,
        dry_run: bool = False,
    ) -> Override | None:
        """Let `rate` hold for one value of a policy's dimensions, for a plan or for all, until then or until it is deleted.

        `key` gives a value for each dimension in the policy's `per`: `{"token": "…"}`, which is hashed before it
        leaves the process (or `{"token_hash": "…"}`, as `list` shows it); `{}` means all callers. `plan` means all callers
        of that plan instead. `rate` is a rate or its text for limits, and a number for quotas and concurrency;
        `"unlimited"` lifts the policy. `until` is an aware `datetime`. `why` and `by` are kept with it. It holds here at
        once, and in other workers within 2 seconds. Returns the override that it replaces. With `dry_run` all is checked, and
        nothing written. A wrong value raises `ConfigurationError`, an unavailable store `StoreError`.
        """
        for dimension, value in (key or {}).items():
            check_unicode(f"key: {dimension}", str(value))
        entry = {
            "policy": policy,
            "key": self._shown_key(policy, key or {}),
            "plan": plan,
            "rate": self._checked_rate(policy, rate),
            "until": checked_instant(until, self._clock),
            "why": checked_text("why", why),
            "by": checked_text("by", by),
        }
        name = self._entry_name(policy, key, plan)
        await self.refresh()
        replaced = self._known.get(name)
        if replaced is not None and replaced.is_over(self._clock()):
            replaced = None
        if dry_run:
            return replaced
        await self._entries.put(name, entry)
        for old in [old for old, override in self._known.items() if override.is_over(self._clock())]:
            await self._entries.remove_expired(old)
        return replaced

    async def list(self) -> list[Override]:
        """Return all overrides that hold, sorted by policy, plan and key; raises `StoreError`."""
        await self.refresh()
        holding = [override for override in self._known.values() if not override.is_over(self._clock())]
        return sorted(holding, key=lambda each: (each.policy, each.plan or "", sorted(each.key.items())))

    async def delete(
        self,
        *,
        policy: str,
        key: Mapping[str, str] | None = None,
        plan: str | None = None,
        why: str | None = None,
        by: str | None = None,
    ) -> bool:
        """Remove an override and return whether there was one; raises what `set` raises."""
        reason = {"why": checked_text("why", why), "by": checked_text("by", by)}
        name = self._entry_name(policy, key, plan)
        await self.refresh()
        existed = name in self._known
        await self._entries.put(name, None, removed=reason if existed else None)
        return existed

    async def refresh(self, *, force: bool = False) -> None:
        """Read what has changed (with `force`, everything); raises `StoreError`."""
        await self._entries.refresh(force=force)

    def _apply(self, entries: Mapping[str, bytes]) -> None:
        own = {name: value for name, value in entries.items() if not name.startswith(CONTROL)}
        self._known = dict(self._readable(own))
        self.unreadable = len(own) - len(self._known)
        by_policy: dict[str, dict[str, Override]] = {}
        for name, override in self._known.items():
            by_policy.setdefault(override.policy, {})[name.partition(":")[2]] = override
        self._resolver.set_overrides(by_policy)

    def _readable(self, values: Mapping[str, bytes]) -> Iterator[tuple[str, Override]]:
        """Yield the entries that can be read; each of the others is logged once, and stays in the store."""
        logged, self._logged = self._logged, set()
        for name, value in values.items():
            try:
                yield name, _override(json.loads(value))
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError, RecursionError):
                if (name, value) not in logged:
                    logger.exception("override %r cannot be read and has no effect [RL508]", name)
                self._logged.add((name, value))

    def _entry_name(self, policy: str, key: Mapping[str, str] | None, plan: str | None) -> str:
        return f"{escape(policy)}:{self._counter(policy, key, plan)}"

    def _counter(self, policy: str, key: Mapping[str, str] | None, plan: str | None) -> str:
        """Return the counter, or the group of counters, that an override is for."""
        per = self._resolver.named.get(policy).per
        if (key is None) == (plan is None):
            raise ConfigurationError(_NOT_ONE)
        if plan is not None:
            if not checked_text("plan", plan):
                raise ConfigurationError("plan: is empty [RL306]")
            return plan_counter(plan)
        return self._resolver.named.counter_name(policy, key or {}) if key or not per else EVERYBODY

    def _shown_key(self, policy: str, key: Mapping[str, str]) -> dict[str, str]:
        names = self._resolver.named.get(policy).per
        values = dict(zip(names, self._resolver.named.counter_name(policy, key).split(":"), strict=True)) if key else {}
        hashed = {name for name in key if self._resolver.named.is_hashed(name)}
        shown = {f"{name}{HASH_SUFFIX}": values[name] for name in names if name in hashed}
        return {**shown, **{name: str(value) for name, value in key.items() if name not in hashed}}

    def _checked_rate(self, policy: str, rate: Rate | str | int) -> int | str | Sequence[int]:
        compiled = self._resolver.named.get(policy)
        is_limit = isinstance(compiled.policy, Limit)
        if rate == UNLIMITED:
            return UNLIMITED
        if not is_int(rate) and not (is_limit and isinstance(rate, (Rate, str))):
            wanted = "a rate or a whole number" if is_limit else "a whole number"
            raise ConfigurationError(f"rate: {policy!r} needs {wanted}, got {rate!r} [RL308]")
        given = Rate.parse(rate) if isinstance(rate, str) else rate if isinstance(rate, Rate) else Rate(rate, 1).limit
        coerced = compiled.coerce_rate(given)
        return [coerced.limit, coerced.period] if isinstance(coerced, Rate) else coerced


def _override(entry: Any) -> Override:
    rate = entry["rate"]
    return Override(
        policy=str(entry["policy"]),
        key={readable(str(dimension)): readable(str(given)) for dimension, given in entry["key"].items()},
        plan=text_of(entry.get("plan")),
        rate=None if rate == UNLIMITED else Rate(*rate) if isinstance(rate, list) else Rate(int(rate), 1).limit,
        until=instant_of(entry["until"]),
        why=text_of(entry.get("why")),
        by=text_of(entry.get("by")),
    )
