"""Renders a refusal as a body: problem details (RFC 9457) or the flat legacy JSON."""

import json
import math
from datetime import UTC, datetime
from typing import Any, Final

from ratelimit.asgi.headers import whole_seconds
from ratelimit.config.response_style import ResponseStyle
from ratelimit.enforcement.decision import Decision
from ratelimit.model.service_limit import ServiceLimit

_BLANK: Final = "about:blank"

TYPES: Final = {
    429: "https://iana.org/assignments/http-problem-types#quota-exceeded",
    403: _BLANK,
    503: "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
}
"""Problem types where no `problem_base` is set (draft-ietf-httpapi-ratelimit-headers; its first is a 429 only)."""

TITLES: Final = {
    "rate_limit_exceeded": "Rate limit exceeded",
    "concurrency_exceeded": "Concurrency limit exceeded",
    "quota_exceeded": "Quota exceeded",
    "capacity_exceeded": "Capacity exceeded",
    "blocked": "Blocked",
    "rate_limiter_unavailable": "Service temporarily unavailable",
}

_CODES: Final = {
    "limit": "rate_limit_exceeded",
    "quota": "quota_exceeded",
    "concurrency": "concurrency_exceeded",
}

_UNITS: Final = {1: "sec", 60: "min", 3_600: "hour", 86_400: "day"}
_MITIGATION: Final = "Implement exponential backoff and retry with delays"
_LEGACY_REASON: Final = "Please retry after the current window resets."


Rendered = tuple[int, bytes, bytes]
"""Status, media type and body of a response."""


def render_problem(decision: Decision, style: ResponseStyle) -> Rendered:
    """Return the status, the media type and the body of a refusal."""
    key = shown_in_body(decision)
    rendered = style.rendered.get(key)
    if rendered is None:
        rendered = style.rendered[key] = _render(decision, style)
    return rendered


def shown_in_body(decision: Decision) -> tuple[object, ...]:
    """Return everything that a body shows of a decision."""
    wait, binding = decision.retry_after, decision.binding
    seconds = wait if math.isinf(wait) else whole_seconds(wait)
    if binding is None:
        return decision.status, decision.is_blocked or seconds
    numbers = binding.limit, binding.window, seconds, round(binding.reset_at) if binding.period else None
    words = binding.policy, binding.kind, binding.scope, binding.code, binding.detail, binding.status, binding.unit
    return (*words, binding.period, *numbers, tuple([limit.policy for limit in decision.violated]))


def _render(decision: Decision, style: ResponseStyle) -> Rendered:
    status = style.capacity_status if _is_capacity(decision) else decision.status
    if style.problem == "legacy":
        return status, b"application/json", _json(_legacy(decision, status, style))
    return status, style.media_type.encode(), _json(_rfc9457(decision, status, style))


def _is_capacity(decision: Decision) -> bool:
    return decision.binding is not None and decision.binding.is_capacity


def _rfc9457(decision: Decision, status: int, style: ResponseStyle) -> dict[str, Any]:
    code = _code(decision)
    default = TYPES[503] if _is_capacity(decision) else TYPES[status]
    kind = default if style.problem_base is None else style.problem_base + code
    return {
        "type": kind,
        # A blank type means no more than the status, whose phrase is its title (RFC 9457 §4.2.1).
        "title": "Forbidden" if kind == _BLANK and code not in style.titles else _title(code, style),
        "status": status,
        "detail": _detail(decision),
        **(_extensions(decision, code) if style.members == "all" else _documented(decision, style)),
    }


def _documented(decision: Decision, style: ResponseStyle) -> dict[str, Any]:
    """Return the one extension that goes with `X-RateLimit-Scope`."""
    return {"scope": decision.binding.scope} if style.scope_header and decision.binding is not None else {}


def _extensions(decision: Decision, code: str) -> dict[str, Any]:
    binding = decision.binding
    if binding is None or binding.is_capacity:
        return {"code": code}
    if decision.status == 403:
        return {
            "scope": binding.scope,
            "code": code,
            "policy": binding.policy,
            "period": binding.period,
            "resets_at": _date(binding) if binding.period else None,
        }
    return {
        "scope": binding.scope,
        "code": code,
        "policy": binding.policy,
        "limit": binding.limit,
        "remaining": 0,
        "retry_after": whole_seconds(binding.retry_after) if math.isfinite(binding.retry_after) else None,
        "violated-policies": [limit.policy for limit in decision.violated],
    }


def _legacy(decision: Decision, status: int, style: ResponseStyle) -> dict[str, Any]:
    code = _code(decision)
    title = _title(code, style)
    return {
        "status_code": status,
        "statusCode": status,
        "error": code,
        "message": title,
        "mitigation": _MITIGATION,
        "retryable": status != 403 and math.isfinite(decision.retry_after),
        "details": {"reason": f"{title}. {_LEGACY_REASON}" if _has_legacy_reason(decision) else _detail(decision)},
    }


def _has_legacy_reason(decision: Decision) -> bool:
    binding = decision.binding
    is_rate = binding is not None and binding.kind == "limit" and binding.detail is None and not binding.is_capacity
    return is_rate and math.isfinite(decision.retry_after)


def _code(decision: Decision) -> str:
    if decision.binding is None:
        return "blocked" if decision.is_blocked else "rate_limiter_unavailable"
    default = "capacity_exceeded" if _is_capacity(decision) else _CODES[decision.binding.kind]
    return decision.binding.code or default


def _title(code: str, style: ResponseStyle) -> str:
    return style.titles.get(code) or TITLES.get(code) or code.replace("_", " ").capitalize()


def _detail(decision: Decision) -> str:
    binding = decision.binding
    if own := _own_detail(decision):
        return own
    if decision.is_blocked:
        return "This caller is blocked."
    if binding is None:
        return f"The service runs at reduced capacity. {_try_again(decision.retry_after)}"
    if binding.kind == "quota" and not binding.is_capacity:
        return _quota_detail(binding)
    name = "capacity of the service" if binding.is_capacity else f"per-{binding.scope} limit ({_rate(binding)})"
    if math.isinf(binding.retry_after):
        is_concurrency = binding.kind == "concurrency"
        return (
            f"The {name} admits none." if is_concurrency else f"This request costs more than the {name} can ever admit."
        )
    exceeded = "The service is at its capacity." if binding.is_capacity else f"You've exceeded the {name}."
    return f"{exceeded} {_try_again(binding.retry_after)}"


def _quota_detail(quota: ServiceLimit) -> str:
    period = f" per {quota.period}" if quota.period else ""
    name = f"per-{quota.scope} quota ({quota.limit} {quota.unit}{period})"
    if math.isinf(quota.retry_after) and (quota.period or quota.status != 403):
        return f"This request costs more than the {name} can ever admit."
    if quota.status != 403:
        return f"You've exceeded the {name}. {_try_again(quota.retry_after)}"
    return f"You've exceeded the {name}." + (f" It resets at {_date(quota)}." if quota.period else "")


def _date(quota: ServiceLimit) -> str:
    """Return the instant at which a quota resets, in the form of RFC 3339."""
    return datetime.fromtimestamp(round(quota.reset_at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _own_detail(decision: Decision) -> str | None:
    return decision.binding.detail if decision.binding else None


def _try_again(wait: float) -> str:
    seconds = whole_seconds(wait)
    return f"Try again in {seconds} second{'' if seconds == 1 else 's'}."


def _rate(limit: ServiceLimit) -> str:
    if limit.kind == "concurrency":
        return f"{limit.limit} at a time"
    amount = str(limit.limit) if limit.unit == "requests" else f"{limit.limit} {limit.unit}"
    return f"{amount}/{_UNITS.get(limit.window, f'{limit.window}s')}"


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
