"""The promise: if limiters are mounted twice or nested, each policy is charged once and the tightest is reported."""

from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from ratelimit import Limiter, MemoryStore, RateLimitMiddleware, RateLimitSettings
from ratelimit.testing import ManualClock
from tests.support.asgi import Checked, by_headers, limiter_for, ok

WIDE = {"name": "wide", "rate": "100/minute", "per": ["token"]}
NARROW = {"name": "narrow", "rate": "3/minute", "per": ["token"]}


def nested(clock: ManualClock, outer: dict[str, Any], inner: dict[str, Any]) -> TestClient:
    """Return a client of an app with a limiter, which mounts a sub-application with another limiter."""

    def stack(settings: dict[str, Any]) -> list[Middleware]:
        limiter = limiter_for(settings, clock)
        return [Middleware(Checked), Middleware(RateLimitMiddleware, limiter=limiter, identify=by_headers)]

    sub = Starlette(routes=[Route("/x", ok)], middleware=stack(inner))
    app = Starlette(routes=[Mount("/sub", app=sub), Route("/x", ok)], middleware=stack(outer))
    return TestClient(app, headers={"x-token": "t"})


def test_the_same_settings_twice_charge_once(clock: ManualClock) -> None:
    """Two middlewares with equal settings, each with its own store, count each request once."""
    settings = RateLimitSettings.model_validate({"limits": [NARROW]})
    app = Starlette(routes=[Route("/", ok)])
    for _ in range(2):
        app.add_middleware(RateLimitMiddleware, settings=settings, identify=by_headers)
    with TestClient(app, headers={"x-token": "t"}) as client:
        assert [client.get("/").status_code for _ in range(4)] == [200] * 3 + [429]


def test_nested_limiters_report_one_limit(clock: ManualClock) -> None:
    """The headers describe the inner, tighter limit, and each of them appears once."""
    client = nested(clock, {"limits": [WIDE]}, {"limits": [NARROW]})
    with client:
        inside, outside = client.get("/sub/x"), client.get("/x")
    assert (inside.headers["x-ratelimit-limit"], outside.headers["x-ratelimit-limit"]) == ("3", "100")
    assert outside.headers["x-ratelimit-remaining"] == "98"


def test_an_outer_limit_that_is_tighter_is_reported(clock: ManualClock) -> None:
    """The headers describe the outer limiter's limit if it is the tighter one."""
    with nested(clock, {"limits": [NARROW]}, {"limits": [WIDE]}) as client:
        assert client.get("/sub/x").headers["x-ratelimit-limit"] == "3"


def test_a_refusal_by_the_inner_limiter_has_its_own_headers(clock: ManualClock) -> None:
    """A refusal by the inner limiter carries that limiter's headers alone, each once."""
    with nested(clock, {"limits": [WIDE]}, {"limits": [NARROW]}) as client:
        for _ in range(3):
            client.get("/sub/x")
        refused = client.get("/sub/x")
    assert (refused.status_code, refused.headers["x-ratelimit-limit"]) == (429, "3")
    assert refused.json()["violated-policies"] == ["narrow"]


def test_three_limiters_charge_a_policy_once(clock: ManualClock) -> None:
    """No inner limiter charges a policy that an outer one has charged, whichever of the outer ones it was."""
    app = Starlette(routes=[Route("/", ok)])
    store = MemoryStore(clock=clock)
    for limits in ([NARROW, WIDE], [NARROW, WIDE], [WIDE]):
        limiter = Limiter(RateLimitSettings.model_validate({"limits": limits}), store, clock)
        app.add_middleware(RateLimitMiddleware, limiter=limiter, identify=by_headers)
    with TestClient(app, headers={"x-token": "t"}) as client:
        assert [client.get("/").status_code for _ in range(4)] == [200] * 3 + [429]


def test_a_policy_of_both_limiters_is_charged_by_the_outer_one(clock: ManualClock) -> None:
    """A policy that both limiters have is charged by the outer one alone."""
    with nested(clock, {"limits": [WIDE, NARROW]}, {"limits": [NARROW]}) as client:
        assert [client.get("/sub/x").status_code for _ in range(4)] == [200] * 3 + [429]
