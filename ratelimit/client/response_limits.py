"""Reads a server's limits from the headers of a response: what remains, and when to retry.

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

from ratelimit._utils.validation import is_int

_DECIMAL: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)")
_PREFIXES: Final = ("x-ratelimit-", "ratelimit-", "x-rate-limit-")

_MAX_SECONDS: Final = 1e15
"""Seconds: a longer duration in a header is read as this one."""

_MIN_EPOCH_SECONDS: Final = 10**9
"""A reset from this number on is an instant (GitHub's headers), below it a duration (the early IETF drafts)."""

_MIN_EPOCH_MS: Final = 10**11
"""An instant from this number on is in milliseconds, below it in seconds."""

_Numbers = tuple[int | None, int | None, float | None]
"""Limit (units), remaining (units) and reset (seconds) of one limit."""


@dataclass(frozen=True, slots=True)
class ResponseLimits:
    """What one response reports of limits; `None` is a value that it lacks, or that cannot be read.

    `retry_after` and `reset` are seconds from when the response was made, 0.0 or more. `limit` and `remaining` are
    units. `scope` is that of `X-RateLimit-Scope`.
    """

    status: int
    retry_after: float | None = None
    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None
    scope: str | None = None

    @property
    def available_after(self) -> float | None:
        """The seconds until units are available again, where none remain."""
        return self.reset if self.retry_after is None else self.retry_after


def parse_response_limits(status: int, headers: Mapping[str, str], now: float) -> ResponseLimits:
    """Read the limits of a response; no header value raises.

    `now` (epoch seconds) replaces a missing `Date`. If both header families are present, `X-RateLimit-*` gives what
    remains, and `RateLimit`, whose durations are exact, gives the reset.
    """
    date = _http_date(headers.get("date", ""))
    now = math.floor(now) if date is None else date
    retry_after = _retry_after(headers.get("retry-after", ""), now)
    limit, remaining, reset = _prefixed_fields(headers, now)
    tightest = _ratelimit_field(headers)
    if limit is None and remaining is None:
        limit, remaining, reset = tightest
    elif remaining == tightest[1] and tightest[2] is not None:
        reset = tightest[2]
    return ResponseLimits(status, retry_after, limit, remaining, reset, headers.get("x-ratelimit-scope"))


def _retry_after(text: str, now: float) -> float | None:
    if (seconds := _decimal(text)) is not None:
        return seconds
    date = _http_date(text)
    return None if date is None else max(0.0, date - now)


def _prefixed_fields(headers: Mapping[str, str], now: float) -> _Numbers:
    for prefix in _PREFIXES:
        limit, remaining = (_integer(headers.get(f"{prefix}{name}", "")) for name in ("limit", "remaining"))
        if remaining is not None:
            return limit, remaining, _reset(headers.get(f"{prefix}reset", ""), now)
    return None, None, None


def _reset(text: str, now: float) -> float | None:
    value = _decimal(text)
    if value is None or value < _MIN_EPOCH_SECONDS:
        return value
    return max(0.0, (value / 1000 if value >= _MIN_EPOCH_MS else value) - now)


def _ratelimit_field(headers: Mapping[str, str]) -> _Numbers:
    """Return the numbers of the policy with the fewest units left; of several with none, the one with the last reset."""
    quotas = {name: _count(parameters.get("q")) for name, parameters in _list_members(headers, "ratelimit-policy")}
    policies = [
        (remaining, -(_count(parameters.get("t")) or 0), name, parameters)
        for name, parameters in _list_members(headers, "ratelimit")
        if (remaining := _count(parameters.get("r"))) is not None
    ]
    if not policies:
        return None, None, None
    remaining, _, name, parameters = min(policies, key=lambda policy: policy[:2])
    seconds = _count(parameters.get("t"))
    return quotas.get(name), remaining, None if seconds is None else float(seconds)


def _list_members(headers: Mapping[str, str], field: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Return name and parameters of each member of a structured list (RFC 9651); a malformed field has none."""
    try:
        members: Any = http_sf.parse(headers.get(field, "").encode("ascii"), tltype="list")
    except (ValueError, http_sf.StructuredFieldError):
        return
    for member in members:
        if isinstance(member, tuple) and isinstance(member[0], str):
            yield member[0], member[1]
        elif isinstance(member, str):
            yield member, {}


def _count(value: object) -> int | None:
    return value if is_int(value) and value >= 0 else None


def _integer(text: str) -> int | None:
    # The early drafts append parameters to the number: "100, 100;w=60".
    match = re.match(r"\s*([0-9]{1,18})(?![0-9.])", text)
    return int(match[1]) if match else None


def _decimal(text: str) -> float | None:
    match = _DECIMAL.fullmatch(text.rstrip())
    return min(float(match[1]), _MAX_SECONDS) if match else None


def _http_date(text: str) -> float | None:
    """Return the epoch seconds of an HTTP date."""
    try:
        date = parsedate_to_datetime(text)
        # The obsolete formats have no time zone, and are UTC all the same (RFC 9110 §5.6.7).
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
