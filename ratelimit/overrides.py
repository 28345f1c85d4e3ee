"""Overrides: limits of single callers, raised or lowered while the app runs, in every worker."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

from ratelimit._utils.validation import is_int
from ratelimit.clock import Clock
from ratelimit.config.policies import Limit
from ratelimit.errors import ConfigurationError
from ratelimit.model.override import Override
from ratelimit.model.rate import Rate
from ratelimit.resolver.keys import escape
from ratelimit.resolver.resolver import HASH_SUFFIX, PolicyResolver
from ratelimit.stores.base import Store

__all__ = ["Override", "Overrides"]

logger = logging.getLogger("ratelimit")

_LAST_INSTANT_US: Final = 250_000_000_000_000_000
"""Microseconds since the epoch up to which `datetime` goes, some 8,000 years."""


class Overrides:
    """Keeps, for single callers, other rates than the settings say: in the store, so that all workers use them.

    The limiter reads changes once a second in the background; requests never wait for it. What an identity was granted
    (`Identity.rates`) wins over an override, and an override over schedules, plans and the policy's own rate.
    """

    def __init__(self, resolver: PolicyResolver, store: Store, clock: Clock) -> None:
        self._resolver, self._store, self._clock = resolver, store, clock
        self._map = f"{resolver.settings.key_prefix}:{{overrides}}"
        self._seen: int | None = None
        self._known: dict[str, Override] = {}
        self._refreshes, self._applied = count(), -1

    def __len__(self) -> int:
        return len(self._known)

    @property
    def is_loaded(self) -> bool:
        """Whether the store's overrides were read at least once."""
        return self._seen is not None

    async def set(
        self, *, policy: str, key: Mapping[str, str], rate: Rate | str | int, until: datetime | None = None
    ) -> None:
        """Let `rate` hold for one value of a policy's dimensions, until then or until it is deleted.

        `key` gives a value for each dimension in the policy's `per`: `{"token": "…"}`, which is hashed before it
        leaves the process (or `{"token_hash": "…"}`, as `list` shows it). `rate` is a rate or its text for limits, and
        a number for quotas and concurrency. `until` is an aware `datetime`. It holds here at once, and in other
        workers within 2 seconds. A wrong value raises `ConfigurationError`, an unavailable store `StoreError`.
        """
        name = self._entry_name(policy, key)
        entry = {
            "policy": policy,
            "key": self._shown_key(policy, key),
            "rate": self._checked_rate(policy, rate),
            "until": None if until is None else self._checked_instant(until),
        }
        await self._store.put_entry(self._map, name, json.dumps(entry).encode())
        await self.refresh()
        for old in [old for old, override in self._known.items() if override.is_over(self._clock())]:
            await self._store.put_entry(self._map, old, None)

    async def list(self) -> list[Override]:
        """Return all overrides that hold, sorted by policy and key; raises `StoreError`."""
        await self.refresh()
        holding = [override for override in self._known.values() if not override.is_over(self._clock())]
        return sorted(holding, key=lambda override: (override.policy, sorted(override.key.items())))

    async def delete(self, *, policy: str, key: Mapping[str, str]) -> bool:
        """Remove an override and return whether there was one; raises what `set` raises."""
        name = self._entry_name(policy, key)
        await self.refresh()
        existed = name in self._known
        await self._store.put_entry(self._map, name, None)
        await self.refresh()
        return existed

    async def refresh(self, *, force: bool = False) -> None:
        """Read what has changed (with `force`, everything); raises `StoreError`.

        If refreshes overlap, the most recently started one wins.
        """
        began = next(self._refreshes)
        found = await self._store.read_map(self._map, None if force else self._seen)
        if found is not None and began > self._applied:
            self._known = dict(_readable(found.values))
            self._resolver.set_overrides(self._by_policy())
            self._seen, self._applied = found.version, began

    def _entry_name(self, policy: str, key: Mapping[str, str]) -> str:
        return f"{escape(policy)}:{self._resolver.counter_name(policy, key)}"

    def _shown_key(self, policy: str, key: Mapping[str, str]) -> dict[str, str]:
        names = self._resolver.policy_named(policy).per
        values = dict(zip(names, self._resolver.counter_name(policy, key).split(":"), strict=True)) if key else {}
        hashed = {name for name in key if self._resolver.is_hashed(name)}
        shown = {f"{name}{HASH_SUFFIX}": values[name] for name in names if name in hashed}
        return {**shown, **{name: str(value) for name, value in key.items() if name not in hashed}}

    def _checked_rate(self, policy: str, rate: Rate | str | int) -> int | Sequence[int]:
        compiled = self._resolver.policy_named(policy)
        is_limit = isinstance(compiled.policy, Limit)
        if not is_int(rate) and not (is_limit and isinstance(rate, (Rate, str))):
            wanted = "a rate or a whole number" if is_limit else "a whole number"
            raise ConfigurationError(f"rate: {policy!r} needs {wanted}, got {rate!r}")
        given = Rate.parse(rate) if isinstance(rate, str) else rate if isinstance(rate, Rate) else Rate(rate, 1).limit
        coerced = compiled.coerce_rate(given)
        return [coerced.limit, coerced.period] if isinstance(coerced, Rate) else coerced

    def _checked_instant(self, until: Any) -> int:
        if not isinstance(until, datetime) or until.tzinfo is None:
            raise ConfigurationError(f"until: {until!r} is not an instant: write datetime(…, tzinfo=UTC)")
        instant = round(until.timestamp() * 1_000_000)
        if not self._clock() < instant < _LAST_INSTANT_US:
            raise ConfigurationError(f"until: {until.isoformat()} is past or too far away; leave it out for no end")
        return instant

    def _by_policy(self) -> dict[str, dict[str, Override]]:
        found: dict[str, dict[str, Override]] = {}
        for name, override in self._known.items():
            _, _, counter = name.partition(":")
            found.setdefault(override.policy, {})[counter] = override
        return found


def _readable(values: Mapping[str, bytes]) -> Iterator[tuple[str, Override]]:
    """Yield the entries that can be read; the others are logged and stay in the store."""
    for name, value in values.items():
        try:
            entry: Any = json.loads(value)
            rate = Rate(*entry["rate"]) if isinstance(entry["rate"], list) else Rate(int(entry["rate"]), 1).limit
            until = None if entry["until"] is None else datetime.fromtimestamp(entry["until"] / 1_000_000, UTC)
            key = {str(dimension): str(given) for dimension, given in entry["key"].items()}
            yield name, Override(policy=str(entry["policy"]), key=key, rate=rate, until=until)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError, RecursionError):
            logger.exception("override %r cannot be read and has no effect", name)
