"""A refusal, rendered as a body: problem details (RFC 9457) or the flat legacy JSON."""

import json
import math
from typing import Any, Final

from ratelimit.decision import Decision, ServiceLimit
from ratelimit.http.headers import whole_seconds
from ratelimit.rate import Rate
from ratelimit.settings import ResponseStyle

TYPES: Final = {
    429: "https://iana.org/assignments/http-problem-types#quota-exceeded",
    403: "about:blank",
    503: "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
}
"""Problem types where no `problem_base` is set (draft-ietf-httpapi-ratelimit-headers; its first is a 429 only)."""

TITLES: Final = {
    "rate_limit_exceeded": "Rate limit exceeded",
    "capacity_exceeded": "Capacity exceeded",
    "rate_limiter_unavailable": "Service temporarily unavailable",
}

_UNITS: Final = {1: "sec", 60: "min", 3_600: "hour", 86_400: "day"}
_MITIGATION: Final = "Implement exponential backoff and retry with delays"
_LEGACY_REASON: Final = "Please retry after the current window resets."


def problem(decision: Decision, style: ResponseStyle) -> tuple[int, bytes, bytes]:
    """Return the status, the media type and the body of a refusal."""
    status = style.capacity_status if _is_capacity(decision) else decision.status
    if style.problem == "legacy":
        return status, b"application/json", _json(_legacy(decision, status, style))
    return status, style.media_type.encode(), _json(_rfc9457(decision, status, style))


def _is_capacity(decision: Decision) -> bool:
    return decision.binding is not None and decision.binding.is_capacity


def _rfc9457(decision: Decision, status: int, style: ResponseStyle) -> dict[str, Any]:
    code = _code(decision)
    reduced = TYPES[503] if _is_capacity(decision) else TYPES[status]
    return {
        "type": reduced if style.problem_base is None else style.problem_base + code,
        "title": _title(code, style),
        "status": status,
        "detail": _detail(decision),
        **_extensions(decision, code),
    }


def _extensions(decision: Decision, code: str) -> dict[str, Any]:
    binding = decision.binding
    if binding is None or binding.is_capacity:
        return {"code": code}
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
        "retryable": math.isfinite(decision.retry_after),
        "details": {"reason": f"{title}. {_LEGACY_REASON}" if _is_usual(decision) else _detail(decision)},
    }


def _is_usual(decision: Decision) -> bool:
    binding = decision.binding
    usual = binding is not None and binding.detail is None and not binding.is_capacity
    return usual and math.isfinite(decision.retry_after)


def _code(decision: Decision) -> str:
    if decision.binding is None:
        return "rate_limiter_unavailable"
    return decision.binding.code or ("capacity_exceeded" if _is_capacity(decision) else "rate_limit_exceeded")


def _title(code: str, style: ResponseStyle) -> str:
    return style.titles.get(code) or TITLES.get(code) or code.replace("_", " ").capitalize()


def _detail(decision: Decision) -> str:
    binding = decision.binding
    if own := _own_detail(decision):
        return own
    if binding is None:
        return f"The service runs at reduced capacity. {_try_again(decision.retry_after)}"
    name = "capacity of the service" if binding.is_capacity else f"per-{binding.scope} limit ({_rate(binding)})"
    if math.isinf(binding.retry_after):
        return f"This request costs more than the {name} can ever admit."
    if binding.is_capacity:
        return f"The service is at its capacity. {_try_again(binding.retry_after)}"
    return f"You've exceeded the {name}. {_try_again(binding.retry_after)}"


def _own_detail(decision: Decision) -> str | None:
    return decision.binding.detail if decision.binding else None


def _try_again(wait: float) -> str:
    seconds = whole_seconds(wait)
    return f"Try again in {seconds} second{'' if seconds == 1 else 's'}."


def _rate(limit: ServiceLimit) -> str:
    rate = Rate(limit.limit, limit.window)
    unit = _UNITS.get(rate.period)
    return f"{rate.limit}/{unit}" if unit else f"{rate.limit}/{rate.period}s"


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
