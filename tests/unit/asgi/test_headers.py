"""Headers of decisions: which fields a response gets, and what they say."""

import json
import math
from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Decision, ResponseStyle, ServiceLimit
from ratelimit.asgi.headers import RATE_LIMIT_EXPOSE_HEADERS, rejection_headers, response_headers, whole_seconds
from ratelimit.asgi.problem_details import render_problem

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
    made = response_headers(decision, style, status, []) if decision.allowed else rejection_headers(decision, style)
    assert len({name for name, _ in made}) == len(made)
    return {name.decode(): value.decode() for name, value in made}


def body_of(decision: Decision, style: ResponseStyle = IETF) -> Any:
    return json.loads(render_problem(decision, style)[2])


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [(0.001, "1"), (0.999, "1"), (12.0, "12"), (12.0001, "13"), (60.001, "61"), (86_400.0, "86400")],
)
def test_retry_after_is_rounded_up_and_never_zero(wait: float, seconds: str) -> None:
    """`Retry-After` is a whole number of seconds, at least 1, and the same number in the body and its `detail`."""
    decision = Decision.from_limits([limit_of(remaining=0, wait=wait)])
    assert fields_of(decision)["retry-after"] == seconds
    body = body_of(decision)
    assert body["retry_after"] == int(seconds)
    plural = "" if seconds == "1" else "s"
    assert body["detail"].endswith(f"Try again in {seconds} second{plural}.")


@given(now=st.integers(1_700_000_000_000_000, 1_700_000_001_000_000), wait_ms=st.integers(1, 10**10))
def test_reset_is_never_early_and_close_to_retry_after(now: int, wait_ms: int) -> None:
    """A client that sleeps until it is served; it is within two seconds of `Date`, cached for a second, + `Retry-After`."""
    limit = limit_of(remaining=0, wait=wait_ms / 1000)._replace(reset_at=(now + wait_ms * 1000) / 1e6)
    fields = fields_of(Decision.from_limits([limit]))
    reset = int(fields["x-ratelimit-reset"])
    assert reset * 1_000_000 >= now + wait_ms * 1000
    for date in (now // 1_000_000, now // 1_000_000 - 1):
        assert abs(reset - date - int(fields["retry-after"])) <= 2


def test_a_wait_is_at_least_a_second() -> None:
    """`Retry-After: 0` would make clients retry at once."""
    assert [whole_seconds(wait) for wait in (0.0, -1.0, 0.5)] == [1, 1, 1]


def test_an_infinite_wait_has_no_retry_after() -> None:
    """A request that can never be admitted gets no `Retry-After`; its reset is a window away."""
    decision = Decision.from_limits([limit_of(remaining=3, wait=math.inf, reset_after=4.0)])
    fields = fields_of(decision)
    assert "retry-after" not in fields
    assert fields["ratelimit"] == '"token";r=0'
    assert (fields["x-ratelimit-remaining"], fields["x-ratelimit-reset"]) == ("0", "1700000061")
    assert body_of(decision)["retry_after"] is None
    legacy = body_of(decision, ResponseStyle(problem="legacy"))
    assert legacy["retryable"] is False
    assert "can ever admit" in legacy["details"]["reason"]


def test_refused_fields_describe_the_longest_wait() -> None:
    """`X-RateLimit-*` describe the binding limit; the IETF fields list all violated limits."""
    short, long = limit_of(remaining=0, wait=1.5), limit_of("org", 0, 9.25, limit=6000, scope="org")
    assert fields_of(Decision.from_limits([short, limit_of("free"), long])) == {
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
    """An admitted response names all enforcing limits and no shadow, and may be cached."""
    decision = Decision.from_limits(
        [limit_of(), limit_of("org", 70, reset_after=0.0), limit_of("shadow", 0, shadow=True)]
    )
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
    """With `exhausted`, `Retry-After` is sent once the burst is spent too, and not on redirects."""
    decision = Decision.from_limits([limit_of(remaining=0, exhausted=exhausted)])
    assert fields_of(decision, EXHAUSTED, status).get("retry-after") == expected
    assert "retry-after" not in fields_of(decision, IETF, status)


BOTH = ResponseStyle(headers=["x-ratelimit", "ietf"], retry_after="exhausted")


def test_t_is_when_more_remains_and_never_later_than_retry_after() -> None:
    """With something left it is not when the window is empty; a limit that gets more later than that is left out."""
    soon, late = limit_of(more_after=2.5), limit_of("org", 70, more_after=30.2, reset_after=60.0)
    assert fields_of(Decision.from_limits([soon, late]))["ratelimit"] == '"token";r=7;t=3, "org";r=70;t=31'
    last = limit_of(remaining=0, exhausted=True)
    fields = fields_of(Decision.from_limits([last, soon._replace(policy="soon"), late]), BOTH)
    assert (fields["retry-after"], fields["ratelimit"]) == ("10", '"token";r=0;t=10, "soon";r=7;t=3')
    for own, services in (
        (b"5", b'"token";r=7;t=3'),
        (b"Fri, 31 Dec 1999 23:59:59 GMT", b'"token";r=7;t=3, "org";r=70;t=31'),
    ):
        present = [(b"Retry-After", own)]
        assert (b"ratelimit", services) in response_headers(Decision.from_limits([soon, late]), IETF, 503, present)


def test_fields_are_sent_under_the_names_that_the_style_gives_them() -> None:
    """Also of refusals; where the app sends one of these names itself, none is added."""
    names = {"X-RateLimit-Limit": "X-Quota-Limit", "x-ratelimit-scope": "X-Scope", "Retry-After": "X-Wait"}
    style = ResponseStyle(header_names=names)
    admitted = fields_of(Decision.from_limits([limit_of()]), style)
    assert set(admitted) == {"x-quota-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "x-scope"}
    refused = fields_of(Decision.from_limits([limit_of(remaining=0, wait=5)]), style)
    assert (refused["x-wait"], refused["x-quota-limit"]) == ("5", "600")
    present = [(b"X-Quota-Limit", b"1")]
    assert response_headers(Decision.from_limits([limit_of()]), style, 200, present) == []


def test_families_of_fields_are_chosen() -> None:
    """`headers` and `scope_header` decide which fields are sent."""
    decision = Decision.from_limits([limit_of()])
    assert set(fields_of(decision, ResponseStyle(headers=["ietf"]))) == {"ratelimit", "ratelimit-policy"}
    without = fields_of(decision, ResponseStyle(scope_header=False))
    assert set(without) == {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}
    assert response_headers(Decision(allowed=True), IETF, 200, []) == []


def test_exposed_headers_are_all_that_are_ever_sent() -> None:
    """The constant for CORS names every field that the limiter adds, except `Cache-Control`."""
    refused, admitted = limit_of(remaining=0, wait=1), limit_of()
    names = {*fields_of(Decision.from_limits([refused])), *fields_of(Decision.from_limits([admitted]))}
    assert {name.lower() for name in RATE_LIMIT_EXPOSE_HEADERS} == names - {"cache-control"}


printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=40)
counts = st.integers(0, 999_999_999_999_999)


@given(members=st.lists(st.tuples(printable, counts, counts, st.floats(0, 1e6)), min_size=1, max_size=5))
def test_structured_fields_are_canonical(members: list[tuple[str, int, int, float]]) -> None:
    """A library for RFC 9651 reads the fields, and would write them in the same way."""
    limits = [limit_of(name, left, limit=limit, reset_after=reset) for name, limit, left, reset in members]
    fields = fields_of(Decision.from_limits(limits), ResponseStyle(headers=["ietf"]))
    for name in ("ratelimit", "ratelimit-policy"):
        parsed: Any = http_sf.parse(fields[name].encode(), tltype="list")
        assert http_sf.ser(parsed) == fields[name]
        assert [item for item, _ in parsed] == [policy for policy, *_ in members]


def test_capacity_is_only_named_where_another_limit_binds() -> None:
    """Where a limit with a longer wait binds, the capacity's numbers stay out of the IETF fields too."""
    decision = Decision.from_limits([limit_of(remaining=0, wait=9), limit_of("all", 0, 3.5, scope="global", limit=77)])
    fields = fields_of(decision)
    assert (fields["ratelimit-policy"], fields["ratelimit"]) == ('"token";q=600;w=60', '"token";r=0;t=9')
    assert body_of(decision)["violated-policies"] == ["token", "all"]


@pytest.mark.parametrize(
    ("unit", "shown"), [("requests", ""), ("content-bytes", ';qu="content-bytes"'), ("tokens", "")]
)
def test_only_units_of_the_registry_are_sent(unit: str, shown: str) -> None:
    """A unit of the app's own would not be understood, and the default is left out."""
    fields = fields_of(Decision.from_limits([limit_of(unit=unit)]))
    assert fields["ratelimit-policy"] == f'"token";q=600;w=60{shown}'
