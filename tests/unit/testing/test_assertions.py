"""The assertions: what they let pass, and what they say."""

import math
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from ratelimit import Concurrency, Decision, Identity, Limit, Limiter, Quota
from ratelimit.testing import assert_admitted, assert_limited, assert_quota_exceeded, assert_unlimited

GOOD = {
    "retry-after": "12",
    "x-ratelimit-limit": "5",
    "x-ratelimit-remaining": "0",
    "x-ratelimit-reset": "1700000012",
    "x-ratelimit-scope": "token",
    "cache-control": "no-store",
}
BODY = {"status": 429, "policy": "p", "scope": "token", "retry_after": 12}
QUOTA = {"cache-control": "no-store", "x-ratelimit-limit": "5"}


def response(status: int, headers: dict[str, str] | None = None, body: Any = None) -> httpx2.Response:
    return httpx2.Response(status, headers=headers or {}, json=body)


def without(name: str) -> dict[str, str]:
    return {each: value for each, value in GOOD.items() if each != name}


@pytest.mark.parametrize(
    "holds",
    [
        lambda: assert_limited(response(429, GOOD, BODY), policy="p", scope="token", retry_after=12),
        lambda: assert_limited(response(429, {"cache-control": "no-store"}, {}), retry_after=math.inf),
        lambda: assert_quota_exceeded(response(403, QUOTA, {"policy": "q"}), policy="q"),
        lambda: assert_admitted(response(404, {"x-ratelimit-remaining": "3"}), remaining=3),
        lambda: assert_admitted(response(403, GOOD)),
        lambda: assert_unlimited(response(200)),
    ],
)
def test_what_holds_says_nothing(holds: Callable[[], None]) -> None:
    """Good answers pass."""
    holds()


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        (lambda: assert_limited(response(200)), "expected a refusal with 429, got 200"),
        (lambda: assert_limited(response(429, GOOD, BODY), policy="q"), "expected policy 'q', got 'p'"),
        (lambda: assert_limited(response(429, GOOD, BODY), scope="org"), "expected scope 'org', got 'token'"),
        (lambda: assert_limited(response(429, GOOD, BODY), retry_after=3), "expected retry_after 3, got 12.0"),
        (lambda: assert_limited(response(429, GOOD | {"retry-after": "0"}, BODY)), "a Retry-After of 1 or more"),
        (lambda: assert_limited(response(429, GOOD | {"retry-after": "1.5"}, BODY)), "a Retry-After of 1 or more"),
        (lambda: assert_limited(response(429, GOOD | {"retry-after": "3"}, BODY)), "the wait of the body, 12"),
        (lambda: assert_limited(response(429, without("cache-control"), BODY)), "Cache-Control: no-store"),
        (lambda: assert_limited(response(429, GOOD | {"x-ratelimit-remaining": "2"}, BODY)), "nothing remaining"),
        (lambda: assert_quota_exceeded(response(403)), "a quota that is exceeded"),
        (lambda: assert_quota_exceeded(response(403, GOOD, {"policy": "q"})), "no Retry-After"),
        (
            lambda: assert_quota_exceeded(response(403, {"x-ratelimit-remaining": "0"}, {"policy": "q"})),
            "no X-RateLimit-Remaining",
        ),
        (lambda: assert_quota_exceeded(response(403, QUOTA, {"policy": "q"}), policy="r"), "expected policy 'r'"),
        (lambda: assert_admitted(response(429, GOOD, BODY)), "expected an admission, got 429"),
        (lambda: assert_admitted(response(403, QUOTA, {"policy": "q"})), "expected an admission"),
        (lambda: assert_admitted(response(503)), "expected an admission"),
        (lambda: assert_admitted(response(200, GOOD), remaining=4), "expected remaining 4, got 0"),
        (lambda: assert_unlimited(response(200, GOOD)), "x-ratelimit-limit, x-ratelimit-remaining"),
        (lambda: assert_unlimited(response(429)), "expected no refusal, got 429"),
        (lambda: assert_limited(Decision(True)), "expected a refusal with 429, got Decision"),
        (lambda: assert_admitted(Decision.unavailable()), "expected an admission"),
    ],
)
def test_what_does_not_hold_says_why(fails: Callable[[], None], said: str) -> None:
    """What was expected and what was there, in one line."""
    with pytest.raises(AssertionError) as failed:
        fails()
    assert said in str(failed.value)


async def test_decisions_are_read_as_responses_are(make_limiter: Callable[..., Limiter]) -> None:
    """The same words for both."""
    limiter = make_limiter(
        Limit(name="one", rate="1/second", per="org"),
        Quota(name="some", limit=1, period="day", per="token"),
        Concurrency(name="slots", limit=1, per="ip"),
    )
    for identity in (Identity(org="o"), Identity(token="t"), Identity(ip="i")):
        assert_admitted(await limiter.check(identity))
    assert_limited(await limiter.check(Identity(org="o")), policy="one", scope="org")
    assert_quota_exceeded(await limiter.check(Identity(token="t")), policy="some")
    assert_limited(await limiter.check(Identity(ip="i")), policy="slots", retry_after=1)
