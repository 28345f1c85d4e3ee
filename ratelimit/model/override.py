"""Overrides: limits of single callers that differ from the settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ratelimit.model.rate import Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One stored override: the rate that holds for one counter of a policy, for a plan, or for all callers.

    `rate` is a number for quotas and concurrency, and `None` where the policy does not apply (`"unlimited"`). `key` gives
    the value of each dimension of the policy; a token stands as its hash, under `token_hash`. `plan` is the plan that it
    holds for; without either it holds for all callers. `until` is when it ends (`None`: it does not). `why` and `by` are for operators.
    `set_at_ms` is when it was set (ms since the epoch; 0: unknown).
    """

    policy: str
    key: Mapping[str, str]
    rate: Rate | int | None
    plan: str | None = None
    until: datetime | None = None
    why: str | None = None
    by: str | None = None
    set_at_ms: int = field(default=0, compare=False, repr=False)

    def is_over(self, now: int) -> bool:
        """Say whether the override has ended at `now` (epoch microseconds)."""
        return self.until is not None and self.until.timestamp() * 1_000_000 <= now
