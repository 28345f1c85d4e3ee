"""Renders a decision as header fields.

Sources: RFC 9110 §10.2.3 (`Retry-After`), RFC 9651 (structured fields), draft-ietf-httpapi-ratelimit-headers
(`RateLimit`, `RateLimit-Policy`), and the common `X-RateLimit-*`.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from ratelimit.config.response_style import RATE_LIMIT_HEADERS, ResponseStyle
from ratelimit.enforcement.decision import Decision
from ratelimit.model.service_limit import ServiceLimit

RATE_LIMIT_EXPOSE_HEADERS: Final = RATE_LIMIT_HEADERS
"""Headers that a browser's script can read only if the app lists them in `Access-Control-Expose-Headers` (CORS)."""

_INITIALS: Final = frozenset((b"x", b"X", b"r", b"R"))
"""The first bytes of the names of all these fields."""

_NO_WINDOW_RESET_S: Final = 60
"""Seconds until `X-RateLimit-Reset` where waiting does not help and the limit has no window."""

_REGISTERED_UNITS: Final = frozenset({"content-bytes", "concurrent-requests"})
"""Quota units of the draft's registry, apart from the default (draft-ietf-httpapi-ratelimit-headers §6.3)."""

_MAX_TEXTS: Final = 2048
"""Texts that are kept: they depend on the settings and on what was granted to callers, not on what is left."""

Header = tuple[bytes, bytes]
Headers = list[Header]


def response_headers(decision: Decision, style: ResponseStyle, status: int, present: Iterable[Header]) -> Headers:
    """Return the fields to add to the app's own response with this status and these fields; none is ever doubled.

    An accepted WebSocket has the status 101.
    """
    binding = decision.binding
    if binding is None:
        return []
    # If the app sets a field of a family, none of that family is added: a mixture would mislead.
    own = [name[:11].lower() for name, _ in present if name[:1] in _INITIALS]
    if style.renamed and {name.lower() for name, _ in present} & {*style.renamed.values()}:
        return []
    redirect = 300 <= status < 400
    is_last = style.retry_after == "exhausted" and binding.exhausted and status >= 200 and not redirect
    headers: Headers = []
    retry_after = _own_retry_after(present) if b"retry-after" in own else None
    if "x-ratelimit" in style.headers and b"x-ratelimit" not in own:
        headers += _x_ratelimit(binding, style, binding.remaining)
    if is_last and b"retry-after" not in own:
        retry_after = whole_seconds(binding.reset_after)
        headers.append((b"retry-after", _integer(retry_after)))
    if "ietf" in style.headers and b"ratelimit" not in own and b"ratelimit-p" not in own:
        headers += _ietf_admitted(decision, retry_after, redirect=redirect)
    return _renamed(headers, style)


def rejection_headers(decision: Decision, style: ResponseStyle) -> Headers:
    """Return the fields of a response that the limiter makes itself, apart from those of its body."""
    return _renamed(_rejection_headers(decision, style), style)


def shown_in_headers(decision: Decision, style: ResponseStyle) -> tuple[object, ...]:
    """Return what the fields of a refusal show beside what its body shows."""
    binding = decision.binding
    if binding is None:
        return ()
    reset = _reset_second(binding)
    if "ietf" not in style.headers:
        return (reset,)
    return reset, tuple([(each.policy, each.limit, each.window, _reset(each)) for each in decision.violated])


def _rejection_headers(decision: Decision, style: ResponseStyle) -> Headers:
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
        violated = [limit for limit in decision.violated if not limit.is_capacity and limit.status == 429]
        headers += _ietf(violated, [(limit, 0) for limit in violated])
    return headers


def whole_seconds(wait: float) -> int:
    """Return a wait in whole seconds: rounded up, and at least 1."""
    return max(1, math.ceil(wait))


def _x_ratelimit(binding: ServiceLimit, style: ResponseStyle, remaining: int | None) -> Headers:
    headers: Headers = [(b"x-ratelimit-limit", b"%d" % binding.limit)]
    # Many clients retry after a response with `Remaining: 0`, so it is left out where a retry does not help.
    if remaining is not None:
        headers.append((b"x-ratelimit-remaining", _integer(remaining)))
    if remaining is not None or binding.period is not None:
        headers.append((b"x-ratelimit-reset", _integer(_reset_second(binding))))
    headers += _scope(binding, style)
    return headers


def _reset_second(binding: ServiceLimit) -> int:
    """Return the epoch second until which a client has to wait, by this process's clock: rounded up, never early.

    A client that sleeps until it exactly is served. It lies within two seconds of `Date` + `Retry-After`, since servers
    cache `Date` for a second. Where waiting does not help a rate, it is a window away, so that clients do not retry at
    once. Calendar periods end on the second; what is beyond it is how long the store's reply took.
    """
    if binding.period is not None:
        return round(binding.reset_at)
    if math.isinf(binding.retry_after):
        return math.ceil(binding.reset_at - binding.reset_after + (binding.window or _NO_WINDOW_RESET_S))
    return math.ceil(binding.reset_at)


def _scope(binding: ServiceLimit, style: ResponseStyle) -> Headers:
    return [(b"x-ratelimit-scope", binding.scope.encode("ascii"))] if style.scope_header else []


def _own_retry_after(present: Iterable[Header]) -> int | None:
    """Return the seconds of the app's own `Retry-After`; a date is not compared."""
    value = next((value for name, value in present if name.lower() == b"retry-after"), b"")
    return int(value) if value.isdigit() else None


def _renamed(headers: Headers, style: ResponseStyle) -> Headers:
    """Return the fields under the names that the style gives them."""
    names = style.renamed
    return [(names.get(name, name), value) for name, value in headers] if names else headers


def _ietf_admitted(decision: Decision, retry_after: int | None, *, redirect: bool) -> Headers:
    every = [limit for limit in decision.limits if limit.kind == "limit" and not limit.shadow]
    limits = [limit for limit in every if not limit.is_capacity] or every
    # Clients would wait before they follow a redirect that says "nothing left".
    shown = [limit for limit in limits if limit.remaining or not redirect]
    if retry_after is not None:  # The draft's `t` is never later.
        shown = [limit for limit in shown if _more_after(limit) <= retry_after]
    return _ietf(limits, [(limit, limit.remaining) for limit in shown])


def _ietf(limits: Sequence[ServiceLimit], left: Sequence[tuple[ServiceLimit, int]]) -> Headers:
    policies = ", ".join(
        [
            _policy_item(each.policy, each.limit, each.window if each.kind == "limit" else None, each.unit)
            for each in limits
        ]
    )
    services = ", ".join([f"{_string(limit.policy)};r={remaining}{_reset(limit)}" for limit, remaining in left])
    headers = [(b"ratelimit-policy", policies.encode("ascii"))] if policies else []
    return [*headers, (b"ratelimit", services.encode("ascii"))] if services else headers


@lru_cache(_MAX_TEXTS)
def _policy_item(policy: str, limit: int, window: int | None, unit: str) -> str:
    """Return an item of `RateLimit-Policy`, with the quota unit where the draft's registry has it and it is no default."""
    quota_unit = f";qu={_string(unit)}" if unit in _REGISTERED_UNITS else ""
    return f"{_string(policy)};q={limit}{'' if window is None else f';w={window}'}{quota_unit}"


def _reset(limit: ServiceLimit) -> str:
    return f";t={_more_after(limit)}" if math.isfinite(limit.retry_after) else ""


def _more_after(limit: ServiceLimit) -> int:
    """Return the whole seconds until more remains than now, the draft's `t`."""
    return math.ceil(limit.reset_after if limit.more_after is None else limit.more_after)


@lru_cache(_MAX_TEXTS)
def _string(text: str) -> str:
    """Return a structured-field string (RFC 9651 §4.1.6); the settings allow printable ASCII only."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _integer(value: int) -> bytes:
    return b"%d" % value
