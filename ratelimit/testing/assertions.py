"""Assertions on decisions, and on responses of any client whose responses have `status_code` and `headers`."""

import json
import math
from typing import Any, Final, NamedTuple

from ratelimit.enforcement.decision import Decision

_FIELDS: Final = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit", "ratelimit-policy")
_REFUSAL_STATUSES: Final = (429, 503)


class _Observation(NamedTuple):
    """The values of a decision or a response that assertions compare; `shown` is its text in failure messages."""

    status: int
    policy: str | None
    scope: str | None
    remaining: int | None
    retry_after: float | None
    shown: str


def assert_admitted(answer: Any, *, remaining: int | None = None, scope: str | None = None) -> None:
    """Assert that a decision or a response was admitted, with these values where they are given.

    A response is admitted unless it is a 429, a 503 or the problem of a quota: any other status is the app's own.
    """
    __tracebackhide__ = True
    seen = _observe(answer)
    is_quota_problem = seen.status == 403 and seen.policy is not None
    _require(seen.status not in _REFUSAL_STATUSES and not is_quota_problem, "an admission", seen)
    _require_equal("remaining", seen.remaining, remaining, seen)
    _require_equal("scope", seen.scope, scope, seen)


def assert_limited(
    answer: Any, *, policy: str | None = None, scope: str | None = None, retry_after: float | None = None
) -> None:
    """Assert a refusal with 429, by this policy, scope and wait where they are given.

    `retry_after` is in seconds: whole ones in a response, `math.inf` where waiting does not help. A response also has to
    be correct for clients: an integral `Retry-After` of 1 or more, the same wait in its body, nothing remaining, and
    `Cache-Control: no-store`.
    """
    __tracebackhide__ = True
    seen = _observe(answer)
    _require(seen.status == 429, "a refusal with 429", seen)
    _require_equal("policy", seen.policy, policy, seen)
    _require_equal("scope", seen.scope, scope, seen)
    wait = math.inf if seen.retry_after is None else seen.retry_after
    _require_equal("retry_after", wait, retry_after, seen)
    if not isinstance(answer, Decision):
        _require(wait == math.inf or (wait >= 1 and wait == int(wait)), "a Retry-After of 1 or more", seen)
        _require(seen.remaining in (0, None), "nothing remaining", seen)
        _require(answer.headers.get("cache-control") == "no-store", "Cache-Control: no-store", seen)
        body_wait = _problem(answer).get("retry_after", wait)
        _require(body_wait is None or body_wait == wait, f"the wait of the body, {body_wait}, in Retry-After", seen)


def assert_quota_exceeded(answer: Any, *, policy: str | None = None) -> None:
    """Assert a refusal with 403, by this quota where it is given; a response has no field that makes clients retry."""
    __tracebackhide__ = True
    seen = _observe(answer)
    _require(seen.status == 403 and seen.policy is not None, "a quota that is exceeded (403)", seen)
    _require_equal("policy", seen.policy, policy, seen)
    if not isinstance(answer, Decision):
        _require(seen.retry_after is None, "no Retry-After", seen)
        _require(seen.remaining is None, "no X-RateLimit-Remaining", seen)


def assert_unlimited(response: Any) -> None:
    """Assert that a response has no rate limit fields: its endpoint is exempt, or no limit applies."""
    present = [name for name in (*_FIELDS, "retry-after") if name in response.headers]
    assert not present, f"expected no rate limit fields, got {', '.join(present)}"
    assert response.status_code not in _REFUSAL_STATUSES, f"expected no refusal, got {response.status_code}"


def _observe(answer: Any) -> _Observation:
    return _observe_decision(answer) if isinstance(answer, Decision) else _observe_response(answer)


def _observe_decision(decision: Decision) -> _Observation:
    binding = decision.binding
    wait = None if decision.allowed else decision.retry_after
    if binding is None:
        return _Observation(decision.status, None, None, None, wait, repr(decision))
    return _Observation(decision.status, binding.policy, binding.scope, binding.remaining, wait, repr(decision))


def _observe_response(response: Any) -> _Observation:
    headers, problem = response.headers, _problem(response)
    remaining, wait = headers.get("x-ratelimit-remaining"), headers.get("retry-after")
    shown = {name: headers[name] for name in (*_FIELDS, "retry-after") if name in headers}
    return _Observation(
        response.status_code,
        problem.get("policy"),
        headers.get("x-ratelimit-scope") or problem.get("scope"),
        None if remaining is None else int(remaining),
        None if wait is None else float(wait),
        f"{response.status_code} {shown} {problem or ''}".rstrip(),
    )


def _problem(response: Any) -> dict[str, Any]:
    """Return the JSON object in the body of an error response, empty where there is none."""
    if "json" not in response.headers.get("content-type", ""):
        return {}
    try:
        body = json.loads(response.content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) and response.status_code >= 400 else {}


def _require(holds: object, expected: str, seen: _Observation) -> None:
    __tracebackhide__ = True
    if not holds:
        raise AssertionError(f"expected {expected}, got {seen.shown}")


def _require_equal(name: str, value: object, expected: object, seen: _Observation) -> None:
    __tracebackhide__ = True
    if expected is not None and value != expected:
        raise AssertionError(f"expected {name} {expected!r}, got {value!r} in {seen.shown}")
