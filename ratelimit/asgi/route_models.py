"""What the routers of `routers.py` take and return, as pydantic models that OpenAPI describes."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from ratelimit.config.fields import UNLIMITED
from ratelimit.model.block import Block
from ratelimit.model.identity import Identity
from ratelimit.model.override import Override
from ratelimit.model.quota_usage import QuotaUsage
from ratelimit.model.service_limit import ServiceLimit


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RateLimitStatus(BaseModel):
    """One limit of a caller as it stands: units, seconds, and when it resets."""

    policy: str
    kind: str
    scope: str
    unit: str
    limit: int
    remaining: int
    window: int = Field(description="seconds; 0 for concurrency and levels")
    resets_at: datetime

    @classmethod
    def of(cls, limit: ServiceLimit) -> Self:
        """Return the model of a service limit."""
        return cls(
            policy=limit.policy,
            kind=limit.kind,
            scope=limit.scope,
            unit=limit.unit,
            limit=limit.limit,
            remaining=limit.remaining,
            window=limit.window,
            resets_at=_instant(limit.reset_at),
        )


class QuotaStatus(BaseModel):
    """What a caller has used of one quota, and when its period ends (levels: never)."""

    policy: str
    unit: str
    period: str | None
    limit: int
    used: int
    remaining: int
    resets_at: datetime | None
    used_last_period: int

    @classmethod
    def of(cls, quota: QuotaUsage) -> Self:
        """Return the model of a quota's usage."""
        return cls(
            policy=quota.policy,
            unit=quota.unit,
            period=quota.period,
            limit=quota.limit,
            used=quota.used,
            remaining=quota.remaining,
            resets_at=None if quota.resets_at is None else _instant(quota.resets_at),
            used_last_period=quota.last,
        )


class CallerStatus(BaseModel):
    """All limits and quotas of one caller."""

    limits: list[RateLimitStatus]
    quotas: list[QuotaStatus]


class Caller(_Request):
    """Who a caller is, as `identify` would tell; fields that are left out are unknown."""

    token: str | None = None
    org: str | None = None
    ip: str | None = None
    plan: str | None = None
    priority: str | None = None
    dimensions: Mapping[str, str] = Field(default_factory=dict)

    def identity(self) -> Identity:
        """Return the identity."""
        return Identity(**self.model_dump())


class ResetRequest(_Request):
    """Whose counters are emptied, and of which policy; without one, all windows and calendar quotas."""

    caller: Caller
    policy: str | None = None


class ResetResult(BaseModel):
    """How many counters were not empty."""

    emptied: int


class OverrideRequest(_Request):
    """Another rate for one caller (`key`), for a plan, or for all callers (`key` is `{}`)."""

    policy: str
    key: Mapping[str, str] | None = None
    plan: str | None = None
    rate: StrictInt | StrictStr = Field(description="a rate, '600/minute', a number, or 'unlimited'")
    until: datetime | None = Field(default=None, description="with a time zone; without it, it does not end")
    why: str | None = None


class OverrideStatus(BaseModel):
    """An override that holds; a token stands as its hash."""

    policy: str
    key: Mapping[str, str]
    plan: str | None
    rate: str | int
    until: datetime | None
    why: str | None
    by: str | None

    @classmethod
    def of(cls, override: Override) -> Self:
        """Return the model of an override."""
        rate: Any = override.rate
        shown = UNLIMITED if rate is None else rate if isinstance(rate, int) else str(rate)
        return cls(
            policy=override.policy,
            key=dict(override.key),
            plan=override.plan,
            rate=shown,
            until=override.until,
            why=override.why,
            by=override.by,
        )


class BlockRequest(_Request):
    """Who is blocked: all callers with these values."""

    key: Mapping[str, str]
    until: datetime | None = Field(default=None, description="with a time zone; without it, it does not end")
    why: str | None = None


class BlockStatus(BaseModel):
    """A block that holds; a token stands as its hash."""

    key: Mapping[str, str]
    until: datetime | None
    why: str | None
    by: str | None

    @classmethod
    def of(cls, block: Block) -> Self:
        """Return the model of a block."""
        return cls(key=dict(block.key), until=block.until, why=block.why, by=block.by)


class HealthStatus(BaseModel):
    """How the limiter and its store are: seconds of a round trip, corrections that wait, workers that share the limits."""

    ok: bool
    store: str
    round_trip: float | None
    breaker: str
    pending: int
    workers: int
    error: str | None


class Removed(BaseModel):
    """Whether there was something to remove."""

    removed: bool


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(math.ceil(seconds), UTC)
