"""Problem details: the body of a refusal, in its two shapes, and the cache of rendered bodies."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Decision, ResponseStyle, ServiceLimit
from ratelimit.asgi.headers import rejection_headers
from ratelimit.asgi.problem_details import render_problem
from ratelimit.model.kinds import Kind

STYLES = [
    ResponseStyle(),
    ResponseStyle(problem="legacy"),
    ResponseStyle(problem_base="https://x/#", capacity_status=503, media_type="application/json"),
    ResponseStyle(titles={"quota_exceeded": "Used up"}),
]


def limit_of(policy: str = "token", wait: float = 0.0, **more: Any) -> ServiceLimit:
    fields: dict[str, Any] = {"limit": 600, "window": 60, "scope": "token", "reset_after": wait or 9.5, **more}
    return ServiceLimit(
        policy=policy,
        kind="limit",
        remaining=0,
        reset_at=1_700_000_000.25 + fields["reset_after"],
        retry_after=wait,
        **fields,
    )


def body_of(decision: Decision, style: ResponseStyle = STYLES[0]) -> Any:
    return json.loads(render_problem(decision, style)[2])


def test_the_legacy_body_mentions_a_window_only_where_there_is_one() -> None:
    """An unavailable store and the capacity of the service have no window that resets."""
    for decision in (Decision.unavailable(), Decision.from_limits([limit_of("all", 3.5, scope="global")])):
        reason = body_of(decision, ResponseStyle(problem="legacy"))["details"]["reason"]
        assert "window" not in reason
        assert "Try again in" in reason


def test_problem_types_and_titles() -> None:
    """The type is `problem_base` plus the code, or that of the draft; titles are chosen by code."""
    decision = Decision.from_limits([limit_of(wait=2)])
    assert body_of(decision)["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    style = ResponseStyle(problem_base="https://e.org/errors/", titles={"rate_limit_exceeded": "Slow down"})
    body = body_of(decision, style)
    assert (body["type"], body["title"]) == ("https://e.org/errors/rate_limit_exceeded", "Slow down")
    assert list(body) == [
        *("type", "title", "status", "detail", "scope", "code"),
        *("policy", "limit", "remaining", "retry_after", "violated-policies"),
    ]


@pytest.mark.parametrize(
    ("window", "scope", "expected"),
    [
        (1, "token", "per-token limit (600/sec)"),
        (60, "token", "per-token limit (600/min)"),
        (3600, "org", "per-org limit (600/hour)"),
        (86_400, "endpoint", "per-endpoint limit (600/day)"),
        (30, "token", "per-token limit (600/30s)"),
        (604_800, "ip", "per-ip limit (600/604800s)"),
    ],
)
def test_detail_says_the_rate_in_words(window: int, scope: str, expected: str) -> None:
    """A period of one unit is named by its word, any other one in seconds."""
    decision = Decision.from_limits([limit_of(wait=2, window=window, scope=scope)])
    assert body_of(decision)["detail"] == f"You've exceeded the {expected}. Try again in 2 seconds."


@pytest.mark.parametrize("status", [429, 503])
def test_capacity_is_refused_without_numbers(status: Any) -> None:
    """A policy of scope `global` refuses with a wait and a code, and reveals nothing of the capacity."""
    style = ResponseStyle(headers=["x-ratelimit", "ietf"], capacity_status=status)
    decision = Decision.from_limits([limit_of(), limit_of("all", 3.5, scope="global")])
    assert dict(rejection_headers(decision, style)) == {
        b"cache-control": b"no-store",
        b"retry-after": b"4",
        b"x-ratelimit-scope": b"global",
    }
    assert render_problem(decision, style)[0] == status
    assert body_of(decision, style) == {
        "type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        "title": "Capacity exceeded",
        "status": status,
        "detail": "The service is at its capacity. Try again in 4 seconds.",
        "code": "capacity_exceeded",
    }


@st.composite
def refusals(draw: st.DrawFn) -> ServiceLimit:
    kinds: list[Kind] = ["limit", "quota", "concurrency"]
    kind = draw(st.sampled_from(kinds))
    return ServiceLimit(
        policy=draw(st.sampled_from(["a", "b"])),
        kind=kind,
        scope=draw(st.sampled_from(["token", "global"])),
        limit=draw(st.sampled_from([0, 10])),
        remaining=draw(st.integers(0, 2)),
        window=draw(st.sampled_from([1, 60, 7])),
        reset_at=draw(st.sampled_from([1e9, 1e9 + 0.4, 1e9 + 60])),
        retry_after=draw(st.sampled_from([0.001, 1.0, 1.5, 61.0, math.inf])),
        cost=draw(st.integers(1, 2)),
        code=draw(st.sampled_from([None, "own"])),
        detail=draw(st.sampled_from([None, "Own."])),
        status=draw(st.sampled_from([403, 429])) if kind == "quota" else 429,
        unit=draw(st.sampled_from(["requests", "tokens"])),
        period=draw(st.sampled_from([None, "month"])) if kind == "quota" else None,
    )


decisions = st.one_of(
    st.lists(refusals(), min_size=1, max_size=3).map(Decision.from_limits),
    st.sampled_from([1.0, 2.5]).map(Decision.unavailable),
)


@given(st.lists(st.tuples(decisions, st.sampled_from(STYLES)), min_size=2, max_size=12))
def test_a_cached_body_is_the_one_that_would_be_rendered(several: list[tuple[Decision, ResponseStyle]]) -> None:
    """Status, media type and body are those of this decision in this style, whatever was rendered before."""
    for decision, style in several:
        with_empty_cache = style.model_copy()
        assert render_problem(decision, style) == render_problem(decision, with_empty_cache)


def test_the_cache_has_a_bound() -> None:
    """A style caches at most 512 bodies, however many are rendered."""
    style = ResponseStyle()
    for n in range(2000):
        render_problem(Decision.unavailable(retry_after=n + 1), style)
    assert 0 < len(style.rendered) <= 512
