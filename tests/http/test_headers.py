"""Header fields and bodies, from decisions made by hand."""

import json
import math
from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Decision, ResponseStyle, ServiceLimit
from ratelimit.http.headers import RATE_LIMIT_EXPOSE_HEADERS, admitted, refused, whole_seconds
from ratelimit.http.problems import problem

IETF = ResponseStyle(headers=["x-ratelimit", "ietf"])
EXHAUSTED = ResponseStyle(retry_after="exhausted")


def limit_of(policy: str = "token", remaining: int = 7, wait: float = 0.0, **more: Any) -> ServiceLimit:
    fields: dict[str, Any] = {"limit": 600, "window": 60, "scope": "token", "reset_after": wait or 9.5, **more}
    return ServiceLimit(
        policy=policy,
        kind="limit",
        remaining=remaining,
        reset_at=1_700_000_000.25 + fields["reset_after"],
        retry_after=wait,
        **fields,
    )


def fields_of(decision: Decision, style: ResponseStyle = IETF, status: int = 200) -> dict[str, str]:
    made = admitted(decision, style, status, []) if decision.allowed else refused(decision, style)
    assert len({name for name, _ in made}) == len(made)
    return {name.decode(): value.decode() for name, value in made}


def body_of(decision: Decision, style: ResponseStyle = IETF) -> Any:
    return json.loads(problem(decision, style)[2])


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [(0.001, "1"), (0.999, "1"), (12.0, "12"), (12.0001, "13"), (60.001, "61"), (86_400.0, "86400")],
)
def test_retry_after_is_rounded_up_and_never_zero(wait: float, seconds: str) -> None:
    """An integer of seconds, at least 1, and the same number in `detail` and body."""
    decision = Decision.of([limit_of(remaining=0, wait=wait)])
    assert fields_of(decision)["retry-after"] == seconds
    told = body_of(decision)
    assert told["retry_after"] == int(seconds)
    plural = "" if seconds == "1" else "s"
    assert told["detail"].endswith(f"Try again in {seconds} second{plural}.")


@given(wait=st.floats(0.001, 1e9))
def test_reset_and_retry_after_agree(wait: float) -> None:
    """`X-RateLimit-Reset` is within a second of now + `Retry-After`."""
    told = fields_of(Decision.of([limit_of(remaining=0, wait=wait)]))
    assert abs(int(told["x-ratelimit-reset"]) - (1_700_000_000 + int(told["retry-after"]))) <= 1


def test_reset_is_what_date_and_retry_after_add_up_to() -> None:
    """A server keeps its `Date` for a second: the sum is off by one at most, whenever in the second it is."""
    for tenths in range(10):
        now = 1_700_000_000 + tenths / 10
        for wait in (0.001, 0.95, 1.0, 1.05, 59.999):
            told = fields_of(Decision.of([limit_of(remaining=0, wait=wait)._replace(reset_at=now + wait)]))
            for date in (1_700_000_000, 1_699_999_999):
                assert abs(int(told["x-ratelimit-reset"]) - date - int(told["retry-after"])) <= 1


def test_a_wait_is_at_least_a_second() -> None:
    """Never 0, whatever was computed."""
    assert [whole_seconds(wait) for wait in (0.0, -1.0, 0.5)] == [1, 1, 1]


def test_an_infinite_wait_has_no_retry_after() -> None:
    """Who can never be admitted is not told to wait."""
    decision = Decision.of([limit_of(remaining=3, wait=math.inf, reset_after=4.0)])
    told = fields_of(decision)
    assert "retry-after" not in told
    assert told["ratelimit"] == '"token";r=0'
    assert (told["x-ratelimit-remaining"], told["x-ratelimit-reset"]) == ("0", "1700000060")
    assert body_of(decision)["retry_after"] is None
    legacy = body_of(decision, ResponseStyle(problem="legacy"))
    assert legacy["retryable"] is False
    assert "can ever admit" in legacy["details"]["reason"]


def test_the_legacy_body_without_a_window_speaks_of_none() -> None:
    """A store that is away, and capacity, have no window that resets."""
    for decision in (Decision.unavailable(), Decision.of([limit_of("all", 0, 3.5, scope="global")])):
        reason = body_of(decision, ResponseStyle(problem="legacy"))["details"]["reason"]
        assert "window" not in reason
        assert "Try again in" in reason


def test_refused_fields_describe_the_longest_wait() -> None:
    """Limit, Remaining, Reset and Scope are of the limit that binds; the IETF fields list all that are violated."""
    short, long = limit_of(remaining=0, wait=1.5), limit_of("org", 0, 9.25, limit=6000, scope="org")
    assert fields_of(Decision.of([short, limit_of("free"), long])) == {
        "cache-control": "no-store",
        "retry-after": "10",
        "x-ratelimit-limit": "6000",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": "1700000010",
        "x-ratelimit-scope": "org",
        "ratelimit-policy": '"token";q=600;w=60, "org";q=6000;w=60',
        "ratelimit": '"token";r=0;t=2, "org";r=0;t=10',
    }


def test_admitted_fields() -> None:
    """All enforcing limits are told; shadows are not; nothing that forbids caching is added."""
    decision = Decision.of([limit_of(), limit_of("org", 70, reset_after=0.0), limit_of("shadow", 0, shadow=True)])
    assert fields_of(decision) == {
        "x-ratelimit-limit": "600",
        "x-ratelimit-remaining": "7",
        "x-ratelimit-reset": "1700000010",
        "x-ratelimit-scope": "token",
        "ratelimit-policy": '"token";q=600;w=60, "org";q=600;w=60',
        "ratelimit": '"token";r=7;t=10, "org";r=70;t=0',
    }


@pytest.mark.parametrize(
    ("status", "exhausted", "present", "expected"),
    [(200, True, [], "10"), (404, True, [], "10"), (302, True, [], None), (200, False, [], None)],
)
def test_retry_after_with_the_last_success(
    status: int, present: list[Any], expected: str | None, *, exhausted: bool
) -> None:
    """`exhausted`: only once the burst is spent too, and not on redirects."""
    decision = Decision.of([limit_of(remaining=0, exhausted=exhausted)])
    assert fields_of(decision, EXHAUSTED, status).get("retry-after") == expected
    assert "retry-after" not in fields_of(decision, IETF, status)


def test_families_of_fields_are_chosen() -> None:
    """`headers` and `scope_header` decide what is sent."""
    decision = Decision.of([limit_of()])
    assert set(fields_of(decision, ResponseStyle(headers=["ietf"]))) == {"ratelimit", "ratelimit-policy"}
    without = fields_of(decision, ResponseStyle(scope_header=False))
    assert set(without) == {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}
    assert admitted(Decision(allowed=True), IETF, 200, []) == []


def test_exposed_headers_are_all_that_are_ever_sent() -> None:
    """The constant for CORS names every field that the limiter adds, apart from those of any response."""
    names = {*fields_of(Decision.of([limit_of(remaining=0, wait=1)])), *fields_of(Decision.of([limit_of()]))}
    assert {name.lower() for name in RATE_LIMIT_EXPOSE_HEADERS} == names - {"cache-control"}


printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=40)
counts = st.integers(0, 999_999_999_999_999)


@given(members=st.lists(st.tuples(printable, counts, counts, st.floats(0, 1e6)), min_size=1, max_size=5))
def test_structured_fields_are_canonical(members: list[tuple[str, int, int, float]]) -> None:
    """What is written reads back, by a library made for RFC 9651, and is what that library writes."""
    limits = [limit_of(name, left, limit=limit, reset_after=reset) for name, limit, left, reset in members]
    told = fields_of(Decision.of(limits), ResponseStyle(headers=["ietf"]))
    for name in ("ratelimit", "ratelimit-policy"):
        parsed: Any = http_sf.parse(told[name].encode(), tltype="list")
        assert http_sf.ser(parsed) == told[name]
        assert [item for item, _ in parsed] == [policy for policy, *_ in members]


def test_problem_types_and_titles() -> None:
    """Base plus code, or the draft's types; titles by code."""
    decision = Decision.of([limit_of(remaining=0, wait=2)])
    assert body_of(decision)["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    style = ResponseStyle(problem_base="https://e.org/errors/", titles={"rate_limit_exceeded": "Slow down"})
    told = body_of(decision, style)
    assert (told["type"], told["title"]) == ("https://e.org/errors/rate_limit_exceeded", "Slow down")
    assert list(told) == [
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
    """One unit by its word, other periods in seconds."""
    decision = Decision.of([limit_of(remaining=0, wait=2, window=window, scope=scope)])
    assert body_of(decision)["detail"] == f"You've exceeded the {expected}. Try again in 2 seconds."


@pytest.mark.parametrize("status", [429, 503])
def test_capacity_is_told_without_numbers(status: Any) -> None:
    """A policy for everybody refuses with a wait and a code, and gives away nothing of the capacity."""
    style = ResponseStyle(headers=["x-ratelimit", "ietf"], capacity_status=status)
    decision = Decision.of([limit_of(), limit_of("all", 0, 3.5, scope="global")])
    assert fields_of(decision, style) == {
        "cache-control": "no-store",
        "retry-after": "4",
        "x-ratelimit-scope": "global",
    }
    assert problem(decision, style)[0] == status
    assert body_of(decision, style) == {
        "type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        "title": "Capacity exceeded",
        "status": status,
        "detail": "The service is at its capacity. Try again in 4 seconds.",
        "code": "capacity_exceeded",
    }


def test_capacity_beside_a_longer_wait_is_only_named() -> None:
    """Where another limit speaks, the capacity's numbers stay out of the IETF fields too."""
    decision = Decision.of([limit_of(remaining=0, wait=9), limit_of("all", 0, 3.5, scope="global", limit=77)])
    told = fields_of(decision)
    assert (told["ratelimit-policy"], told["ratelimit"]) == ('"token";q=600;w=60', '"token";r=0;t=9')
    assert body_of(decision)["violated-policies"] == ["token", "all"]
