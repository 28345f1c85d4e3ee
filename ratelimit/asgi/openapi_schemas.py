"""What limits add to the responses of an endpoint, in the terms of OpenAPI: statuses, headers and bodies.

The counterpart of `headers.py` and `problem_details.py`, which make the responses themselves.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from ratelimit.config.policies import Limit, Policy, Quota
from ratelimit.config.response_style import ResponseStyle
from ratelimit.model.kinds import GLOBAL

Json = dict[str, Any]
HeaderName = tuple[str, str]
"""The name under which a header is sent, and its usual one."""

_INTEGER: Final = {"type": "integer", "minimum": 0}
_STRING: Final = {"type": "string"}

_HEADERS: Final[dict[str, Json]] = {
    "X-RateLimit-Limit": {"description": "The limit that is closest to its end, in units per window.", **_INTEGER},
    "X-RateLimit-Remaining": {"description": "Units left of it after this request.", **_INTEGER},
    "X-RateLimit-Reset": {"description": "When to try again, or when nothing is used, in epoch seconds.", **_INTEGER},
    "X-RateLimit-Scope": {"description": "What has a counter of its own under this limit.", **_STRING},
    "RateLimit-Policy": {"description": "All limits that apply, as structured fields (RFC 9651).", **_STRING},
    "RateLimit": {"description": "What is left of each limit, as structured fields (RFC 9651).", **_STRING},
    "Retry-After": {"description": "Seconds to wait (RFC 9110 §10.2.3).", "type": "integer", "minimum": 1},
}

_DESCRIPTIONS: Final = {
    403: "Quota exceeded",
    429: "Rate limit exceeded",
    503: "Service temporarily unavailable",
}


class Refusal(NamedTuple):
    """A response that the limiter makes itself: its status, its headers, and the name of its body's schema."""

    status: int
    headers: Sequence[HeaderName]
    media_type: str
    body: str

    @property
    def description(self) -> str:
        """What the status means here."""
        return _DESCRIPTIONS[self.status]


def enforced(policies: Iterable[Policy]) -> list[Policy]:
    """Return the policies that clients can notice: a shadow refuses no request, and no header reports it."""
    return [policy for policy in policies if not policy.shadow]


def header_objects(names: Iterable[HeaderName]) -> dict[str, Json]:
    """Return the Header Objects of these fields; none is required, since a limit may not apply to a caller."""
    return {sent: _header_object(name) for sent, name in names}


def admitted_headers(policies: Sequence[Policy], style: ResponseStyle) -> list[HeaderName]:
    """Return the names of the fields that a served response may have: those of rates, in this style."""
    if not any(policy.kind == "limit" for policy in policies):
        return []
    wait = ["Retry-After"] if style.retry_after == "exhausted" else []
    return _as_sent([*_x_ratelimit(style, "Limit", "Remaining", "Reset", "Scope"), *_ietf(style), *wait], style)


def refusals(policies: Sequence[Policy], style: ResponseStyle) -> list[Refusal]:
    """Return what the limiter may answer by itself where these policies are enforced."""
    found = [_refusal(policy, style) for policy in policies]
    if any(policy.on_store_failure == "deny" for policy in policies):
        found.append(_answer(503, ["Retry-After"], style, "capacity", is_by_policy=False))
    return list(dict.fromkeys(found))


def policy_objects(policies: Sequence[Policy]) -> list[Json]:
    """Return the policies as `x-ratelimit` lists them: what holds for a caller without a rate of its own.

    The capacity of the service is private, as in headers: its numbers are listed only where there is no other rate.
    """
    is_private = any(policy.kind == "limit" and policy.scope != GLOBAL for policy in policies)
    return [
        _policy_object(policy, with_amount=policy.scope != GLOBAL or (policy.kind == "limit" and not is_private))
        for policy in policies
    ]


def body_schema(body: str, version: str) -> Json:
    """Return the schema of a body by its name, for a version of OpenAPI."""
    properties = {name: _for_version(schema, version) for name, schema in _BODIES[body].items()}
    return {"title": BODY_NAMES[body], "type": "object", "properties": properties, "required": list(properties)}


def _header_object(name: str) -> Json:
    schema = dict(_HEADERS[name])
    return {"description": schema.pop("description"), "schema": schema}


def _x_ratelimit(style: ResponseStyle, *fields: str) -> list[str]:
    names = [f"X-RateLimit-{field}" for field in fields if field != "Scope" or style.scope_header]
    return names if "x-ratelimit" in style.headers else []


def _ietf(style: ResponseStyle) -> list[str]:
    return ["RateLimit-Policy", "RateLimit"] if "ietf" in style.headers else []


def _refusal(policy: Policy, style: ResponseStyle) -> Refusal:
    if policy.scope == GLOBAL:
        return _answer(style.capacity_status, ["Retry-After", *_x_ratelimit(style, "Scope")], style, "capacity")
    if isinstance(policy, Quota) and policy.status == 403:
        reset = ["Reset"] if policy.period else []
        return _answer(403, _x_ratelimit(style, "Limit", *reset, "Scope"), style, "quota")
    fields = [*_x_ratelimit(style, "Limit", "Remaining", "Reset", "Scope"), *_ietf(style)]
    return _answer(429, ["Retry-After", *fields], style, "rate")


def _answer(
    status: int, headers: Sequence[str], style: ResponseStyle, body: str, *, is_by_policy: bool = True
) -> Refusal:
    names = tuple(_as_sent(headers, style))
    if style.problem == "legacy":
        return Refusal(status, names, "application/json", "legacy")
    if style.members == "documented":
        body = "scoped" if style.scope_header and is_by_policy else "documented"
    return Refusal(status, names, style.media_type, body)


def _as_sent(names: Iterable[str], style: ResponseStyle) -> list[HeaderName]:
    own = {name.lower(): sent for name, sent in style.header_names.items()}
    return [(own.get(name.lower(), name), name) for name in names]


def _policy_object(policy: Policy, *, with_amount: bool) -> Json:
    described: Json = {"name": policy.name, "kind": policy.kind, "per": list(policy.per), "scope": policy.scope}
    if not with_amount:
        return described
    if isinstance(policy, Limit):
        described |= {"rate": str(policy.rate), "burst": policy.burst}
    else:
        described |= {"limit": policy.amount}
    if isinstance(policy, Quota):
        described |= {"period": policy.period}
    unit, cost = getattr(policy, "unit", "requests"), policy.cost
    described |= {"unit": unit} if unit != "requests" else {}
    return described | ({"cost": cost} if isinstance(cost, int) and cost != 1 else {})


def _for_version(schema: Json, version: str) -> Json:
    """Return a schema of OpenAPI 3.1 as OpenAPI 3.0 writes it: there is no type `null` in it."""
    kind = schema.get("type")
    if not isinstance(kind, list) or not version.startswith("3.0"):
        return schema
    return {**schema, "type": kind[0], "nullable": True}


_PROBLEM: Final[dict[str, Json]] = {
    "type": {"type": "string", "format": "uri-reference"},
    "title": _STRING,
    "status": {"type": "integer"},
    "detail": _STRING,
}
_INSTANCE: Final[dict[str, Json]] = {
    "instance": {"type": "string", "format": "uri-reference", "description": "The request's id, for a report."}
}
_CODE: Final = {"type": "string", "description": "What was exceeded, for programs."}
_OF_POLICY: Final[dict[str, Json]] = {"scope": _STRING, "code": _CODE, "policy": _STRING}

_BODIES: Final[dict[str, dict[str, Json]]] = {
    "rate": {
        **_PROBLEM,
        **_INSTANCE,
        **_OF_POLICY,
        "limit": _INTEGER,
        "remaining": _INTEGER,
        "retry_after": {"type": ["integer", "null"], "description": "Seconds; null where waiting does not help."},
        "violated-policies": {"type": "array", "items": _STRING},
    },
    "quota": {
        **_PROBLEM,
        **_INSTANCE,
        **_OF_POLICY,
        "period": {"type": ["string", "null"]},
        "resets_at": {"type": ["string", "null"], "format": "date-time"},
    },
    "capacity": {**_PROBLEM, **_INSTANCE, "code": _CODE},
    "documented": _PROBLEM,
    "scoped": {**_PROBLEM, "scope": _STRING},
    "legacy": {
        "status_code": {"type": "integer"},
        "statusCode": {"type": "integer"},
        "error": _CODE,
        "message": _STRING,
        "mitigation": _STRING,
        "retryable": {"type": "boolean"},
        "details": {"type": "object", "properties": {"reason": _STRING}, "required": ["reason"]},
    },
}

BODY_NAMES: Final = {
    "rate": "RateLimitProblem",
    "quota": "RateLimitQuotaProblem",
    "capacity": "RateLimitCapacityProblem",
    "documented": "RateLimitShortProblem",
    "scoped": "RateLimitScopedProblem",
    "legacy": "RateLimitLegacyError",
}
"""The names of the schemas among the components of a document."""
