"""Assertions on decisions and on responses, of any client whose responses have `status_code` and `headers`."""

import json
import math
from typing import Any, Final, NamedTuple

from ratelimit.decision import Decision

_FIELDS: Final = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit", "ratelimit-policy")
_REFUSALS: Final = (429, 503)


class _Seen(NamedTuple):
    """What a decision or a response says."""

    status: int
    policy: str | None
    scope: str | None
    remaining: int | None
    retry_after: float | None
    shown: str


def assert_admitted(answer: Any, *, remaining: int | None = None, scope: str | None = None) -> None:
    """Assert that a decision or a response went through; with `remaining` and `scope`, that it says so.

    A response is let through if it is no 429, no 503 and no problem of a quota: the app's own statuses are its own.
    """
    __tracebackhide__ = True
    seen = _seen(answer)
    quota = seen.status == 403 and seen.policy is not None
    _hold(seen.status not in _REFUSALS and not quota, "an admission", seen)
    _equal("remaining", seen.remaining, remaining, seen)
    _equal("scope", seen.scope, scope, seen)


def assert_limited(
    answer: Any, *, policy: str | None = None, scope: str | None = None, retry_after: float | None = None
) -> None:
    """Assert a refusal with 429, by that policy or scope, that tells how long to wait (whole seconds in a response).

    A response also has to be one that clients understand: an integral `Retry-After` of 1 or more, the same in its body,
    nothing remaining, and no caching. Waiting that never helps is `retry_after=math.inf`.
    """
    __tracebackhide__ = True
    seen = _seen(answer)
    _hold(seen.status == 429, "a refusal with 429", seen)
    _equal("policy", seen.policy, policy, seen)
    _equal("scope", seen.scope, scope, seen)
    waits = math.inf if seen.retry_after is None else seen.retry_after
    _equal("retry_after", waits, retry_after, seen)
    if not isinstance(answer, Decision):
        _hold(waits == math.inf or (waits >= 1 and waits == int(waits)), "a Retry-After of 1 or more", seen)
        _hold(seen.remaining in (0, None), "nothing remaining", seen)
        _hold(answer.headers.get("cache-control") == "no-store", "Cache-Control: no-store", seen)
        told = _body(answer).get("retry_after", waits)
        _hold(told is None or told == waits, f"the wait of the body, {told}, in Retry-After", seen)


def assert_quota_exceeded(answer: Any, *, policy: str | None = None) -> None:
    """Assert a refusal with 403, by that quota; a response carries nothing that makes clients try again."""
    __tracebackhide__ = True
    seen = _seen(answer)
    _hold(seen.status == 403 and seen.policy is not None, "a quota that is exceeded (403)", seen)
    _equal("policy", seen.policy, policy, seen)
    if not isinstance(answer, Decision):
        _hold(seen.retry_after is None, "no Retry-After", seen)
        _hold(seen.remaining is None, "no X-RateLimit-Remaining", seen)


def assert_unlimited(response: Any) -> None:
    """Assert that a response says nothing of limits: its endpoint is exempt, or no limit applies."""
    present = [name for name in (*_FIELDS, "retry-after") if name in response.headers]
    assert not present, f"expected no word of limits, but there are {', '.join(present)}"
    assert response.status_code not in _REFUSALS, f"expected no refusal, got {response.status_code}"


def _seen(answer: Any) -> _Seen:
    if isinstance(answer, Decision):
        speaks = answer.binding
        wait = None if answer.allowed else answer.retry_after
        if speaks is None:
            return _Seen(answer.status, None, None, None, wait, repr(answer))
        return _Seen(answer.status, speaks.policy, speaks.scope, speaks.remaining, wait, repr(answer))
    headers, body = answer.headers, _body(answer)
    remaining, wait = headers.get("x-ratelimit-remaining"), headers.get("retry-after")
    shown = {name: headers[name] for name in (*_FIELDS, "retry-after") if name in headers}
    return _Seen(
        answer.status_code,
        body.get("policy"),
        headers.get("x-ratelimit-scope") or body.get("scope"),
        None if remaining is None else int(remaining),
        None if wait is None else float(wait),
        f"{answer.status_code} {shown} {body or ''}".rstrip(),
    )


def _body(response: Any) -> dict[str, Any]:
    if "json" not in response.headers.get("content-type", ""):
        return {}
    try:
        body = json.loads(response.content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) and response.status_code >= 400 else {}


def _hold(holds: object, expected: str, seen: _Seen) -> None:
    __tracebackhide__ = True
    if not holds:
        raise AssertionError(f"expected {expected}, got {seen.shown}")


def _equal(name: str, value: object, expected: object, seen: _Seen) -> None:
    __tracebackhide__ = True
    if expected is not None and value != expected:
        raise AssertionError(f"expected {name} {expected!r}, got {value!r} in {seen.shown}")
