"""Overrides: rates of single callers, of plans or of all callers, changed while the app runs, in every worker."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from ratelimit._utils.texts import text_of
from ratelimit._utils.validation import is_int
from ratelimit.clock import Clock
from ratelimit.config.fields import UNLIMITED
from ratelimit.config.policies import Limit
from ratelimit.controls.control_entries import ControlEntries
from ratelimit.controls.shared_entries import (
    SharedEntries,
    check_unicode,
    checked_ending,
    checked_text,
    ending_of,
    key_of,
)
from ratelimit.errors import ConfigurationError
from ratelimit.model.override import Override
from ratelimit.model.rate import Rate
from ratelimit.resolver.compiled_policy import EVERYBODY, plan_counter
from ratelimit.resolver.keys import escape
from ratelimit.resolver.named_policies import HASH_SUFFIX
from ratelimit.resolver.resolver import PolicyResolver

__all__ = ["Override", "Overrides"]

_NOT_ONE: Final = "key: say who: key={'token': …} for one caller, plan='pro' for a plan, key={} for all callers [RL306]"


class Overrides:
    """Keeps other rates than the settings say: in the store, so that all workers use them.

    The limiter reads changes once a second in the background; requests never wait for it. What an identity was granted
    (`Identity.rates`) wins over an override, and an override over schedules, plans and the policy's own rate. An override
    of one caller wins over that of its plan, and this over that of all callers.
    """

    def __init__(self, resolver: PolicyResolver, entries: SharedEntries, clock: Clock) -> None:
        self._resolver, self._clock = resolver, clock
        self._entries = ControlEntries(entries, "override", _override, clock, self._apply)

    def __len__(self) -> int:
        return len(self._entries.known)

    @property
    def unreadable(self) -> int:
        """The number of stored overrides that cannot be read, and have no effect."""
        return self._entries.unreadable

    def counts(self) -> dict[str, int]:
        """Return how many overrides hold in this worker, by policy."""
        return dict(Counter(each.policy for each in self._entries.holding().values()))

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
            "set_at": self._clock() // 1000,
            **checked_ending(until, why, by, self._clock),
        }
        name = self._entry_name(policy, key, plan)
        await self.refresh()
        replaced = self._entries.holding().get(name)
        if not dry_run:
            await self._entries.put(name, entry)
        return replaced

    async def list(self) -> list[Override]:
        """Return all overrides that hold, sorted by policy, plan and key; raises `StoreError`."""
        await self.refresh()
        holding = self._entries.holding().values()
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
        return await self._entries.delete(self._entry_name(policy, key, plan), why, by)

    async def refresh(self, *, force: bool = False) -> None:
        """Read what has changed (with `force`, everything); raises `StoreError`."""
        await self._entries.refresh(force=force)

    def _apply(self) -> None:
        by_policy: dict[str, dict[str, Override]] = {}
        for name, override in self._entries.known.items():
            by_policy.setdefault(override.policy, {})[name.partition(":")[2]] = override
        self._resolver.set_overrides(by_policy)

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
        key=key_of(entry),
        plan=text_of(entry.get("plan")),
        rate=None if rate == UNLIMITED else Rate(*rate) if isinstance(rate, list) else Rate(int(rate), 1).limit,
        set_at_ms=int(entry.get("set_at", 0)),
        **ending_of(entry),
    )
