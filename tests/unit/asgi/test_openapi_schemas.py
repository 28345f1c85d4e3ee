"""What limits add to responses, as OpenAPI: which statuses, headers and bodies each kind of policy and style means."""

from typing import Any

import pytest

from ratelimit import Concurrency, Limit, Quota, ResponseStyle
from ratelimit.asgi.openapi_schemas import (
    admitted_headers,
    body_schema,
    enforced,
    header_objects,
    policy_objects,
    refusals,
)
from ratelimit.config.policies import Policy

RATE = Limit(name="rate", rate="5/minute", per="token")
SHARED = Limit(name="shared", rate="50/minute")
MONTH = Quota(name="month", limit=9, period="month", per="org")
LEVEL = Quota(name="level", limit=9, per="org")
DRAINED = Quota(name="drained", limit=9, per="org", status=429)
RUNS = Concurrency(name="runs", limit=2, per="org")

X = ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "X-RateLimit-Scope"]
IETF = ["RateLimit-Policy", "RateLimit"]
BOTH = ResponseStyle(headers=["x-ratelimit", "ietf"])


@pytest.mark.parametrize(
    ("policies", "style", "names"),
    [
        ([RATE], ResponseStyle(), X),
        ([RATE, MONTH], BOTH, X + IETF),
        ([RATE], ResponseStyle(headers=["ietf"]), IETF),
        ([RATE], ResponseStyle(headers=[]), []),
        ([RATE], ResponseStyle(scope_header=False, retry_after="exhausted"), [*X[:3], "Retry-After"]),
        ([MONTH, RUNS], ResponseStyle(retry_after="exhausted"), []),
        ([], ResponseStyle(), []),
    ],
)
def test_served_responses_have_the_headers_of_rates(
    policies: list[Policy], style: ResponseStyle, names: list[str]
) -> None:
    """In the style; quotas and permits appear in refusals only."""
    assert admitted_headers(policies, style) == [(name, name) for name in names]


@pytest.mark.parametrize(
    ("policy", "style", "status", "headers", "body"),
    [
        (RATE, ResponseStyle(), 429, ["Retry-After", *X], "rate"),
        (RUNS, BOTH, 429, ["Retry-After", *X, *IETF], "rate"),
        (DRAINED, ResponseStyle(scope_header=False), 429, ["Retry-After", *X[:3]], "rate"),
        (MONTH, BOTH, 403, [X[0], X[2], X[3]], "quota"),
        (LEVEL, BOTH, 403, [X[0], X[3]], "quota"),
        (MONTH, ResponseStyle(headers=["ietf"]), 403, [], "quota"),
        (SHARED, BOTH, 429, ["Retry-After", X[3]], "capacity"),
        (SHARED, ResponseStyle(capacity_status=503, headers=[]), 503, ["Retry-After"], "capacity"),
        (RATE, ResponseStyle(problem="legacy", headers=[]), 429, ["Retry-After"], "legacy"),
    ],
)
def test_each_kind_of_refusal_has_its_status_headers_and_body(
    policy: Policy, style: ResponseStyle, status: int, headers: list[str], body: str
) -> None:
    """As docs/answers.md has them."""
    (found,) = refusals([policy], style)
    assert (found.status, [name for name, _ in found.headers], found.body) == (status, headers, body)


def test_an_unavailable_store_is_a_503_where_a_policy_denies() -> None:
    """Without numbers; and each refusal is named once."""
    denying = Limit(name="denying", rate="5/minute", per="token", on_store_failure="deny")
    found = refusals([RATE, denying], ResponseStyle())
    assert [(each.status, each.body) for each in found] == [(429, "rate"), (503, "capacity")]
    assert found[1].headers == (("Retry-After", "Retry-After"),)


def test_the_documented_members_are_fewer() -> None:
    """Four, and the scope where its header is sent; an unavailable store has none."""
    denying = Limit(name="denying", rate="5/minute", per="token", on_store_failure="deny")
    for scope_header, bodies in ((True, ["scoped", "documented"]), (False, ["documented"] * 2)):
        style = ResponseStyle(members="documented", scope_header=scope_header)
        assert [each.body for each in refusals([denying], style)] == bodies


def test_the_media_type_is_that_of_the_style() -> None:
    """The legacy body is always plain JSON."""
    plain = ResponseStyle(media_type="application/json")
    styles = [ResponseStyle(), plain, ResponseStyle(problem="legacy")]
    found = [refusals([RATE], style)[0].media_type for style in styles]
    assert found == ["application/problem+json", "application/json", "application/json"]


def test_a_shadow_is_not_noticed_by_clients() -> None:
    """It refuses no request and is in no header, so a document does not give it away."""
    shadow = Limit(name="shadow", rate="5/minute", per="token", shadow=True)
    assert enforced([RATE, shadow]) == [RATE]


def test_policies_are_listed_with_what_they_admit() -> None:
    """A rate, or a limit with its period, by whom it is counted, and a unit or cost that is not the usual one."""
    tokens = Quota(name="tokens", limit=90, period="day", per="org", unit="tokens", cost=lambda request: 1)
    heavy = Limit(name="heavy", rate="10/2s", per=["org", "endpoint"], burst=0.5, cost=5)
    listed = {each.pop("name"): each for each in policy_objects([RATE, heavy, tokens, LEVEL, RUNS])}
    assert listed == {
        "rate": {"kind": "limit", "per": ["token"], "scope": "token", "rate": "5/minute", "burst": 0.0},
        "heavy": {
            "kind": "limit",
            "per": ["org", "endpoint"],
            "scope": "endpoint",
            "rate": "10/2 seconds",
            "burst": 0.5,
            "cost": 5,
        },
        "tokens": {"kind": "quota", "per": ["org"], "scope": "org", "limit": 90, "period": "day", "unit": "tokens"},
        "level": {"kind": "quota", "per": ["org"], "scope": "org", "limit": 9, "period": None},
        "runs": {"kind": "concurrency", "per": ["org"], "scope": "org", "limit": 2},
    }


def test_the_capacity_of_the_service_stays_private() -> None:
    """As in headers: its numbers appear only where there is no other rate."""
    private = {"name": "shared", "kind": "limit", "per": [], "scope": "global"}
    assert policy_objects([RATE, SHARED])[1] == private
    assert policy_objects([SHARED, MONTH])[0] == {**private, "rate": "50/minute", "burst": 0.0}
    assert "limit" not in policy_objects([Quota(name="all", limit=9, period="day")])[0]


def test_no_header_is_required() -> None:
    """A limit may not apply to a caller, and a wait may have no end."""
    found: dict[str, Any] = header_objects((name, name) for name in [*X, *IETF, "Retry-After"])
    assert len(found) == 7
    assert all("required" not in header and header["description"] for header in found.values())
    assert {name: header["schema"]["type"] for name, header in found.items()} == {
        **dict.fromkeys([*X[:3], "Retry-After"], "integer"),
        **dict.fromkeys([X[3], *IETF], "string"),
    }


def test_what_may_be_null_is_written_for_the_version() -> None:
    """OpenAPI 3.0 has no type `null`."""
    new, old = (body_schema("quota", version)["properties"]["period"] for version in ("3.1.0", "3.0.3"))
    assert (new, old) == ({"type": ["string", "null"]}, {"type": "string", "nullable": True})
