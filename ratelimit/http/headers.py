"""A decision, rendered as header fields.

Sources: RFC 9110 §10.2.3 (`Retry-After`), RFC 9651 (structured fields), draft-ietf-httpapi-ratelimit-headers
(`RateLimit`, `RateLimit-Policy`), and the common `X-RateLimit-*`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from ratelimit.decision import Decision, ServiceLimit
from ratelimit.style import ResponseStyle

RATE_LIMIT_EXPOSE_HEADERS: Final = (
    "Retry-After",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-RateLimit-Scope",
    "RateLimit",
    "RateLimit-Policy",
)
"""What a browser's script may read only if the app names it in `Access-Control-Expose-Headers` (CORS)."""

_INITIALS: Final = frozenset((b"x", b"X", b"r", b"R"))
"""What the names of all these fields begin with."""

_AWAY: Final = 60
"""Seconds that `X-RateLimit-Reset` is away where waiting does not help and no window says more."""

Header = tuple[bytes, bytes]
Headers = list[Header]


def admitted(decision: Decision, style: ResponseStyle, status: int, present: Iterable[Header]) -> Headers:
    """Return the fields to add to the app's own response, whose status and fields are given; none is ever doubled.

    A WebSocket that is accepted has the status 101.
    """
    binding = decision.binding
    if binding is None:
        return []
    # The app's own fields of a family keep the rest of the family away: half of each would tell nothing.
    own = [name[:11].lower() for name, _ in present if name[:1] in _INITIALS]
    redirect = 300 <= status < 400
    last = style.retry_after == "exhausted" and binding.exhausted and status >= 200 and not redirect
    headers: Headers = []
    if "x-ratelimit" in style.headers and b"x-ratelimit" not in own:
        headers += _x_ratelimit(binding, style, binding.remaining)
    if "ietf" in style.headers and b"ratelimit" not in own and b"ratelimit-p" not in own:
        headers += _ietf_admitted(decision, redirect=redirect)
    if last and b"retry-after" not in own:
        headers.append((b"retry-after", _integer(whole_seconds(binding.reset_after))))
    return headers


def refused(decision: Decision, style: ResponseStyle) -> Headers:
    """Return the fields of a response that the limiter makes itself, apart from those of its body."""
    headers: Headers = [(b"cache-control", b"no-store")]
    binding = decision.binding
    if decision.status != 403 and math.isfinite(decision.retry_after):
        headers.append((b"retry-after", _integer(whole_seconds(decision.retry_after))))
    if binding is None:
        return headers
    if "x-ratelimit" in style.headers:
        left = None if decision.status == 403 else 0
        headers += _x_ratelimit(binding, style, left) if not binding.is_capacity else _scope(binding, style)
    if "ietf" in style.headers and not binding.is_capacity and decision.status == 429:
        told = [limit for limit in decision.violated if not limit.is_capacity and limit.status == 429]
        headers += _ietf(told, [(limit, 0) for limit in told])
    return headers


def whole_seconds(wait: float) -> int:
    """Return the integer of seconds to say for a wait: rounded up, and never 0."""
    return max(1, math.ceil(wait))


def _x_ratelimit(binding: ServiceLimit, style: ResponseStyle, remaining: int | None) -> Headers:
    headers: Headers = [(b"x-ratelimit-limit", b"%d" % binding.limit)]
    # Clients come back where they read that nothing remains: not so where that does not help.
    if remaining is not None:
        headers.append((b"x-ratelimit-remaining", _integer(remaining)))
    if remaining is not None or binding.period is not None:
        headers.append((b"x-ratelimit-reset", _integer(_reset_second(binding))))
    headers += _scope(binding, style)
    return headers


def _reset_second(binding: ServiceLimit) -> int:
    """Return the epoch second of now plus the whole seconds of the wait: what `Date` and `Retry-After` add up to.

    Where waiting cannot help a rate it is a window away, so that nobody comes back at once.

    The wait is rounded up and the moment from which it counts down, so the second may begin up to one before the
    wait is over. Rounding up both would say up to two seconds more than `Date` and `Retry-After` do, since servers
    keep a `Date` for a second.
    """
    never = math.isinf(binding.retry_after) and binding.period is None
    wait = (binding.window or _AWAY) if never else math.ceil(binding.reset_after)
    return math.floor(binding.reset_at - binding.reset_after) + wait


def _scope(binding: ServiceLimit, style: ResponseStyle) -> Headers:
    return [(b"x-ratelimit-scope", binding.scope.encode("ascii"))] if style.scope_header else []


def _ietf_admitted(decision: Decision, *, redirect: bool) -> Headers:
    every = [limit for limit in decision.limits if limit.kind == "limit" and not limit.shadow]
    limits = [limit for limit in every if not limit.is_capacity] or every
    # A redirect that said "nothing left" would make clients wait before they follow it.
    left = [(limit, limit.remaining) for limit in limits if limit.remaining or not redirect]
    return _ietf(limits, left)


def _ietf(limits: Sequence[ServiceLimit], left: Sequence[tuple[ServiceLimit, int]]) -> Headers:
    policies = ", ".join(f"{_string(limit.policy)};q={limit.limit}{_window(limit)}{_unit(limit)}" for limit in limits)
    services = ", ".join(f"{_string(limit.policy)};r={remaining}{_reset(limit)}" for limit, remaining in left)
    headers = [(b"ratelimit-policy", policies.encode("ascii"))] if policies else []
    return [*headers, (b"ratelimit", services.encode("ascii"))] if services else headers


def _reset(limit: ServiceLimit) -> str:
    return f";t={math.ceil(limit.reset_after)}" if math.isfinite(limit.retry_after) else ""


def _window(limit: ServiceLimit) -> str:
    return f";w={limit.window}" if limit.kind == "limit" else ""


def _unit(limit: ServiceLimit) -> str:
    return "" if limit.unit == "requests" else f";qu={_string(limit.unit)}"


def _string(text: str) -> str:
    """Return a structured-field string (RFC 9651 §4.1.6); the settings allow printable ASCII only."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _integer(value: int) -> bytes:
    return b"%d" % value
