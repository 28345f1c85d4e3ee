"""What a response says of limits: how they stand, and when to come again.

Sources: RFC 9110 §10.2.3 (`Retry-After`) and §6.6.1 (`Date`), draft-ietf-httpapi-ratelimit-headers (`RateLimit` and
`RateLimit-Policy`; up to its version 6 `RateLimit-Limit` and so on), and the common `X-RateLimit-*`.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

import http_sf

_NUMBER: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)")
_FAMILIES: Final = ("x-ratelimit-", "ratelimit-", "x-rate-limit-")

_ENDLESS: Final = 1e15
"""Seconds beyond which no more is told apart."""

_EPOCH: Final = 10**9
"""A reset from this number on is an instant, below it a duration: GitHub's way and that of the early drafts."""

_MILLISECONDS: Final = 10**11
"""An instant from this number on is in milliseconds."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What one response said; `None` is what it did not say, or not so that it could be read.

    `retry_after` and `reset` are seconds from when the response was made, 0.0 or more; `limit` and `remaining` are
    units; `scope` is that of `X-RateLimit-Scope`.
    """

    status: int
    retry_after: float | None = None
    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None
    scope: str | None = None

    @property
    def opens(self) -> float | None:
        """The seconds after which there is something again, where nothing remains."""
        return self.reset if self.retry_after is None else self.retry_after


def read(status: int, headers: Mapping[str, str], now: float) -> Advice:
    """Read a response's headers; `now` (epoch seconds) counts where it has no `Date`. Nothing that it says raises.

    Where both families speak, `X-RateLimit-*` says what remains, and the other, which is exact, when there is more.
    """
    date = _instant(headers.get("date", ""))
    now = math.floor(now) if date is None else date
    retry_after = _retry_after(headers.get("retry-after", ""), now)
    limit, remaining, reset = _x_ratelimit(headers, now)
    tightest = _ietf(headers)
    if limit is None and remaining is None:
        limit, remaining, reset = tightest
    elif remaining == tightest[1] and tightest[2] is not None:
        reset = tightest[2]
    return Advice(status, retry_after, limit, remaining, reset, headers.get("x-ratelimit-scope"))


def _retry_after(text: str, now: float) -> float | None:
    if (seconds := _number(text)) is not None:
        return seconds
    at = _instant(text)
    return None if at is None else max(0.0, at - now)


def _x_ratelimit(headers: Mapping[str, str], now: float) -> tuple[int | None, int | None, float | None]:
    for family in _FAMILIES:
        limit, remaining = (_whole(headers.get(f"{family}{name}", "")) for name in ("limit", "remaining"))
        if remaining is not None:
            return limit, remaining, _reset(headers.get(f"{family}reset", ""), now)
    return None, None, None


def _reset(text: str, now: float) -> float | None:
    value = _number(text)
    if value is None or value < _EPOCH:
        return value
    return max(0.0, (value / 1000 if value >= _MILLISECONDS else value) - now)


def _ietf(headers: Mapping[str, str]) -> tuple[int | None, int | None, float | None]:
    """Return limit, remaining and reset of the policy with the fewest left; of several with none, the last to open."""
    quotas = {name: _integer(parameters.get("q")) for name, parameters in _members(headers, "ratelimit-policy")}
    told = [
        (remaining, -(_integer(parameters.get("t")) or 0), name, parameters)
        for name, parameters in _members(headers, "ratelimit")
        if (remaining := _integer(parameters.get("r"))) is not None
    ]
    if not told:
        return None, None, None
    remaining, _, name, parameters = min(told, key=lambda each: each[:2])
    seconds = _integer(parameters.get("t"))
    return quotas.get(name), remaining, None if seconds is None else float(seconds)


def _members(headers: Mapping[str, str], field: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        members: Any = http_sf.parse(headers.get(field, "").encode("ascii"), tltype="list")
    except (ValueError, http_sf.StructuredFieldError):
        return
    for member in members:
        if isinstance(member, tuple) and isinstance(member[0], str):
            yield member[0], member[1]
        elif isinstance(member, str):
            yield member, {}


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _whole(text: str) -> int | None:
    # The early drafts have more behind the number: "100, 100;w=60".
    match = re.match(r"\s*([0-9]{1,18})(?![0-9.])", text)
    return int(match[1]) if match else None


def _number(text: str) -> float | None:
    match = _NUMBER.fullmatch(text.rstrip())
    return min(float(match[1]), _ENDLESS) if match else None


def _instant(text: str) -> float | None:
    try:
        at = parsedate_to_datetime(text)
        # The obsolete forms name no zone, and are UTC all the same (RFC 9110 §5.6.7).
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
