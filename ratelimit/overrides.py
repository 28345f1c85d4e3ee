"""Overrides: limits of single callers, raised or lowered while the app runs, and felt by every worker."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final
from weakref import ref

import msgpack

from ratelimit.clock import Clock
from ratelimit.errors import ConfigurationError
from ratelimit.keys import escape
from ratelimit.plan import Plan
from ratelimit.policy import Limit
from ratelimit.rate import Rate
from ratelimit.rules import Raised
from ratelimit.stores import Store

logger = logging.getLogger("ratelimit")

PAUSE: Final = 1.0
"""Seconds between two looks at the store: one small call, from the background of each worker."""


_END_OF_TIME: Final = 250_000_000_000_000_000
"""Microseconds since the epoch up to which dates can be told, some 8,000 years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """What one override says: `rate` is a number for quotas and concurrency; in `key` a token stands as its hash."""

    policy: str
    key: Mapping[str, str]
    rate: Rate | int
    until: datetime | None = None


class Overrides:
    """Keeps, for single callers, other rates than the settings say: in the store, so that all workers feel them.

    A worker looks for changes once a second in the background, and does what is to be done `beside` that; requests
    never wait for it. What an identity was
    granted itself (`Identity.rates`) wins over an override, and an override over schedules, plans and rates.
    """

    def __init__(
        self, plan: Plan, store: Store, clock: Clock, *, beside: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._plan, self._store, self._clock, self._beside = plan, store, clock, beside
        self._book = f"{plan.settings.key_prefix}:{{overrides}}"
        self._seen: int | None = None
        self._known: dict[str, Override] = {}
        self._timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}
        self._first: asyncio.Task[None] | None = None
        self._looks, self._applied = count(), -1
        self._latest: asyncio.AbstractEventLoop | None = None
        self._looking: set[asyncio.Task[None]] = set()
        self._deaf = False

    async def set(
        self, *, policy: str, key: Mapping[str, str], rate: Rate | str | int, until: datetime | None = None
    ) -> None:
        """Let `rate` hold for one value of a policy's dimensions, until then or until it is deleted.

        `key` gives a value for each dimension in the policy's `per`: `{"token": "…"}`, which is hashed before it
        leaves the process (or `{"token_hash": "…"}`, as `list` shows it). `rate` is a rate or its text for limits, and
        a number for quotas and concurrency. `until` is an aware `datetime`. It holds here at once, and in other
        workers within 2 seconds. A wrong value raises `ConfigurationError`, a store that is away `StoreError`.
        """
        name = self._name(policy, key)
        entry = {
            "policy": policy,
            "key": self._shown(policy, key),
            "rate": self._amount(policy, rate),
            "until": None if until is None else self._instant(until),
        }
        await self._store.note(self._book, name, msgpack.packb(entry))
        await self.refresh()
        for old in [old for old, override in self._known.items() if self._is_over(override)]:
            await self._store.note(self._book, old, None)

    async def list(self) -> list[Override]:
        """Return all overrides that hold, sorted by policy and key; raises `StoreError`."""
        await self.refresh()
        holding = [override for override in self._known.values() if not self._is_over(override)]
        return sorted(holding, key=lambda override: (override.policy, sorted(override.key.items())))

    async def delete(self, *, policy: str, key: Mapping[str, str]) -> bool:
        """Remove an override and say whether there was one; raises as `set` does."""
        name = self._name(policy, key)
        await self.refresh()
        was_there = name in self._known
        await self._store.note(self._book, name, None)
        await self.refresh()
        return was_there

    async def refresh(self) -> None:
        """Read what has changed; raises `StoreError`. Of several at a time, the one that began last counts."""
        began = next(self._looks)
        notes = await self._store.notes(self._book, self._seen)
        if notes is not None and began > self._applied:
            self._known = dict(_readable(notes.values))
            self._plan.override(self._by_policy())
            self._seen, self._applied = notes.version, began

    @property
    def watching(self) -> bool:
        """Whether changes are looked for in this event loop."""
        return asyncio.get_running_loop() is self._latest

    async def watch(self) -> None:
        """Look for changes from now on as long as this event loop runs.

        The first look of a process is waited for, but no longer than a call to the store may take.
        """
        loop = asyncio.get_running_loop()
        if loop not in self._timers:
            self._timers = {each: timer for each, timer in self._timers.items() if not each.is_closed()}
            self._first = self._begin(loop)
        if self._seen is None and self._first is not None and self._first.get_loop() is loop:
            # Whoever is cancelled here does not end the look.
            await asyncio.wait([self._first], timeout=self._plan.settings.store_timeout)
        self._latest = loop

    def stop(self) -> None:
        """Look for changes no more in this event loop."""
        self._latest = None
        timer = self._timers.pop(asyncio.get_running_loop(), None)
        if timer is not None:
            timer.cancel()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> "asyncio.Task[None]":
        """Look once in the background, and again after the pause."""
        # A limiter that nobody holds any more is not kept alive by looking.
        self._timers[loop] = loop.call_later(PAUSE, _begin_again, ref(self), loop)
        look = loop.create_task(self._look())
        self._looking.add(look)
        look.add_done_callback(self._looking.discard)
        return look

    async def _look(self) -> None:
        try:
            await self.refresh()
            if self._beside is not None:
                await self._beside()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look may succeed
            if not self._deaf:
                logger.warning("overrides cannot be read (%s): those that are known go on", error)
            self._deaf = True
        else:
            self._deaf = False

    def _name(self, policy: str, key: Mapping[str, str]) -> str:
        return f"{escape(policy)}:{self._plan.place(policy, key)}"

    def _shown(self, policy: str, key: Mapping[str, str]) -> dict[str, str]:
        if "token" not in key:
            return {name: str(value) for name, value in key.items()}
        hashed = self._plan.place(policy, key).split(":")[self._plan.rule(policy).per.index("token")]
        rest = {name: str(value) for name, value in key.items() if name != "token"}
        return {"token_hash": hashed, **rest}

    def _amount(self, policy: str, rate: Rate | str | int) -> int | Sequence[int]:
        rule = self._plan.rule(policy)
        number = isinstance(rate, int) and not isinstance(rate, bool)
        if not number and not (isinstance(rule.policy, Limit) and isinstance(rate, (Rate, str))):
            wanted = "a rate or a whole number" if isinstance(rule.policy, Limit) else "a whole number"
            raise ConfigurationError(f"rate: {policy!r} needs {wanted}, got {rate!r}")
        given = Rate.parse(rate) if isinstance(rate, str) else rate if isinstance(rate, Rate) else Rate(rate, 1).limit
        fitting = rule.fitting(given)
        return [fitting.limit, fitting.period] if isinstance(fitting, Rate) else fitting

    def _instant(self, until: Any) -> int:
        if not isinstance(until, datetime) or until.tzinfo is None:
            raise ConfigurationError(f"until: {until!r} is no moment; write datetime(…, tzinfo=UTC)")
        instant = round(until.timestamp() * 1_000_000)
        if not self._clock() < instant < _END_OF_TIME:
            raise ConfigurationError(f"until: {until.isoformat()} is over or too far away; leave it out for ever")
        return instant

    def _is_over(self, override: Override) -> bool:
        return override.until is not None and override.until.timestamp() * 1_000_000 <= self._clock()

    def _by_policy(self) -> dict[str, dict[str, Raised]]:
        found: dict[str, dict[str, Raised]] = {}
        for name, override in self._known.items():
            until = None if override.until is None else round(override.until.timestamp() * 1_000_000)
            found.setdefault(override.policy, {})[name.partition(":")[2]] = override.rate, until
        return found


def _begin_again(overrides: "ref[Overrides]", loop: asyncio.AbstractEventLoop) -> None:
    if (found := overrides()) is not None and loop in found._timers:  # noqa: SLF001 - of the class above
        found._begin(loop)  # noqa: SLF001


def _readable(values: Mapping[str, bytes]) -> Iterator[tuple[str, Override]]:
    """Yield what can be read; what cannot is logged and left where it is."""
    for name, value in values.items():
        try:
            entry: Any = msgpack.unpackb(value)
            rate = Rate(*entry["rate"]) if isinstance(entry["rate"], list) else Rate(int(entry["rate"]), 1).limit
            until = None if entry["until"] is None else datetime.fromtimestamp(entry["until"] / 1_000_000, UTC)
            key = {str(dimension): str(told) for dimension, told in entry["key"].items()}
            yield name, Override(policy=str(entry["policy"]), key=key, rate=rate, until=until)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError, msgpack.UnpackException):
            logger.exception("override %r cannot be read and has no effect", name)
