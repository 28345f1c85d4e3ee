"""The promise: both published contracts are reproduced by settings alone."""

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from examples import per_endpoint, quickstart, three_layers
from ratelimit import Limiter, MemoryStore, RateLimitMiddleware, RateLimitSettings
from tests.support.clock import ManualClock

BASE = "https://docs.example.com/api-errors#"


@contextmanager
def client_of(example: Any, clock: ManualClock, headers: dict[str, str]) -> Iterator[TestClient]:
    """Return a client of an example's own app and settings, counting on the manual clock."""
    limiter = Limiter(example.settings, store=MemoryStore(clock=clock), clock=clock)
    (declared,) = (one for one in example.app.user_middleware if one.cls is RateLimitMiddleware)
    example.app.user_middleware[:] = [Middleware(RateLimitMiddleware, limiter=limiter, identify=example.identify)]
    example.app.middleware_stack = None
    with TestClient(example.app, headers=headers) as client:
        yield client
    example.app.user_middleware[:], example.app.middleware_stack = [declared], None


@pytest.fixture
def a(clock: ManualClock) -> Iterator[TestClient]:
    with client_of(three_layers, clock, {"authorization": "Bearer tk_acme_team_1"}) as client:
        yield client


@pytest.fixture
def b(clock: ManualClock) -> Iterator[TestClient]:
    with client_of(per_endpoint, clock, {"x-teamspace": "acme-research"}) as client:
        yield client


def spend(client: TestClient, times: int, method: str, path: str) -> httpx2.Response:
    """Send a request so many times, all of which succeed, and return the next answer."""
    for _ in range(times):
        assert client.request(method, path).is_success
    return client.request(method, path)


def rate_headers(response: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if "ratelimit" in name or name == "retry-after"}


# Contract A


def test_a_every_success_carries_four_headers(a: TestClient, clock: ManualClock) -> None:
    """Limit, Remaining, Reset (epoch seconds) and Scope stand on each success, and Retry-After does not."""
    assert rate_headers(a.get("/api/agents")) == {
        "x-ratelimit-limit": "600",
        "x-ratelimit-remaining": "599",
        "x-ratelimit-reset": str(clock.now // 1_000_000 + 61),
        "x-ratelimit-scope": "token",
    }


def test_a_429_is_the_documented_body(a: TestClient) -> None:
    """600 reads a minute and a quarter more at once; then the problem of the document, as application/json."""
    refused = spend(a, 750, "GET", "/api/agents")
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/json"
    assert refused.headers["cache-control"] == "no-store"
    wait = refused.headers["retry-after"]
    told = refused.json()
    assert {name: told[name] for name in ("type", "title", "status", "detail", "scope")} == {
        "type": f"{BASE}rate_limit_exceeded",
        "title": "Rate limit exceeded",
        "status": 429,
        "detail": f"You've exceeded the per-token limit (600/min). Try again in {wait} seconds.",
        "scope": "token",
    }
    assert told["violated-policies"] == ["token-reads"]
    assert rate_headers(refused)["x-ratelimit-remaining"] == "0"


def test_a_reads_and_writes_have_budgets_of_their_own(a: TestClient) -> None:
    """Writes do not take from reads."""
    assert spend(a, 150, "POST", "/api/agents").headers["x-ratelimit-limit"] == "120"
    assert a.get("/api/agents").headers["x-ratelimit-remaining"] == "599"


@pytest.mark.parametrize(
    ("path", "times"),
    [("/api/handler/answer", 60), ("/api/orchestrator/orchestrations/{}/runs", 30)],
)
def test_a_single_endpoints_are_limited_per_token(a: TestClient, path: str, times: int) -> None:
    """The decorated routes refuse with scope `endpoint`, whatever stands in the path parameter."""
    for n in range(times):
        assert a.post(path.format(n)).is_success
    assert a.post(path.format("other")).json()["scope"] == "endpoint"
    assert a.post(path.format("x"), headers={"authorization": "Bearer tk_acme_team_2"}).is_success


def test_a_exports_are_shared_by_the_organization(a: TestClient, clock: ManualClock) -> None:
    """One export an hour for all tokens of an organization."""
    assert a.get("/api/exports/full").is_success
    refused = a.get("/api/exports/full", headers={"authorization": "Bearer tk_acme_team_2"})
    assert (refused.status_code, refused.json()["policy"]) == (429, "export")
    assert "(1/hour)" in refused.json()["detail"]
    assert a.get("/api/exports/full", headers={"authorization": "Bearer tk_other_team_1"}).is_success
    clock.advance(seconds=int(refused.headers["retry-after"]))
    assert a.get("/api/exports/full").is_success


def test_a_organizations_are_limited_by_plan(a: TestClient) -> None:
    """A trial organization has ten requests a minute over all of its tokens."""
    tokens = [{"authorization": f"Bearer tk_tiny_trial_{n}"} for n in range(11)]
    assert [a.get("/api/agents", headers=token).status_code for token in tokens] == [200] * 10 + [429]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/version"])
def test_a_exempt_endpoints_are_free(a: TestClient, path: str) -> None:
    """Health checks are never counted and get no rate-limit header, even where the organization has used up all."""
    spent = {"authorization": "Bearer tk_tiny_trial_1"}
    while a.get("/api/agents", headers=spent).is_success:
        pass
    response = a.get(path, headers=spent)
    assert response.is_success
    assert rate_headers(response) == {}


# Contract B


def test_b_every_response_carries_three_headers(b: TestClient, clock: ManualClock) -> None:
    """Limit, Remaining and Reset, without Scope."""
    assert rate_headers(b.get("/v1/jobs")) == {
        "x-ratelimit-limit": "200",
        "x-ratelimit-remaining": "199",
        "x-ratelimit-reset": str(clock.now // 1_000_000 + 61),
    }


def test_b_retry_after_stands_on_the_last_success_too(b: TestClient) -> None:
    """`Retry-After` whenever Remaining is 0, also with 200."""
    last = spend(b, 199, "GET", "/v1/jobs")
    assert last.status_code == 200
    assert last.headers["x-ratelimit-remaining"] == "0"
    assert int(last.headers["retry-after"]) >= 60


def test_b_429_is_the_legacy_body(b: TestClient) -> None:
    """The flat JSON of the document, field by field."""
    refused = spend(b, 200, "GET", "/v1/jobs")
    assert refused.headers["content-type"] == "application/json"
    assert refused.json() == {
        "status_code": 429,
        "statusCode": 429,
        "error": "rate_limit_exceeded",
        "message": "Rate limit exceeded",
        "mitigation": "Implement exponential backoff and retry with delays",
        "retryable": True,
        "details": {"reason": "Rate limit exceeded. Please retry after the current window resets."},
    }


def test_b_counts_by_teamspace_path_and_method(b: TestClient) -> None:
    """Another teamspace, path or method has a counter of its own; another job id has not."""
    spend(b, 200, "GET", "/v1/jobs")
    others = [
        b.get("/v1/jobs", headers={"x-teamspace": "acme-other"}),
        b.post("/v1/jobs"),
        b.get("/v1/jobs/1"),
    ]
    assert [other.headers["x-ratelimit-remaining"] for other in others] == ["199"] * 3
    assert b.get("/v1/jobs/2").headers["x-ratelimit-remaining"] == "198"


def test_b_batch_paths_answer_with_problem_details(b: TestClient) -> None:
    """RFC 9457 with the IETF fields on batch paths, naming the rule's reason; legacy elsewhere in the same app."""
    refused = spend(b, 10, "POST", "/v1/batches")
    told = refused.json()
    assert refused.headers["content-type"] == "application/problem+json"
    assert (told["title"], told["status"], told["policy"]) == ("Rate Limit Exceeded", 429, "batch-create")
    assert told["detail"] == "Too many batches were created. Wait before you create the next one."
    assert told["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert refused.headers["ratelimit-policy"] == '"batch-create";q=10;w=60'
    assert refused.headers["ratelimit"] == f'"batch-create";r=0;t={refused.headers["retry-after"]}'


def test_b_batch_successes_carry_both_kinds_of_headers(b: TestClient) -> None:
    """Every policy that applies is told on batch paths, and the tightest speaks in X-RateLimit-*."""
    response = b.post("/v1/batches")
    assert response.headers["ratelimit-policy"] == '"requests";q=200;w=60, "batch-create";q=10;w=60'
    assert response.headers["ratelimit"] == '"requests";r=199;t=61, "batch-create";r=9;t=61'
    assert response.headers["x-ratelimit-limit"] == "10"


# The settings of the examples


@pytest.mark.parametrize("name", ["three_layers", "per_endpoint"])
def test_settings_files_mean_what_they_say(name: str) -> None:
    """Settings survive being written out and read back."""
    path = Path(f"examples/{name}.toml")
    settings = RateLimitSettings.from_file(path)
    assert RateLimitSettings.model_validate(json.loads(settings.model_dump_json())) == settings
    assert len(tomllib.loads(path.read_text())["limits"]) == len(settings.limits)


def test_the_quickstart_limits_by_address() -> None:
    """Ten lines: five requests a minute for each client address."""
    client = TestClient(quickstart.app, client=("192.0.2.7", 1))
    assert [client.get("/hello").status_code for _ in range(6)] == [200] * 5 + [429]
    assert TestClient(quickstart.app, client=("192.0.2.8", 1)).get("/hello").is_success
