"""The promise: both published contracts are reproduced by settings alone."""

import asyncio
import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from examples import per_endpoint, quickstart, three_layers
from ratelimit import Limiter, MemoryStore, RateLimitMiddleware, RateLimitSettings
from ratelimit.testing import ManualClock
from tests.support.raw import Call

BASE = "https://docs.example.com/api-errors#"


@contextmanager
def client_of(example: Any, clock: ManualClock, headers: dict[str, str]) -> Iterator[TestClient]:
    """Return a client of an example's own app and settings, counting on the manual clock."""
    limiter = Limiter(example.settings, store=MemoryStore(clock=clock), clock=clock)
    app = example.app
    (declared,) = (one for one in app.user_middleware if one.cls is RateLimitMiddleware)
    before = app.state.limiter
    app.user_middleware[:] = [Middleware(RateLimitMiddleware, limiter=limiter, identify=example.identify)]
    app.state.limiter, app.middleware_stack = limiter, None
    with TestClient(app, headers=headers) as client:
        yield client
    app.user_middleware[:], app.middleware_stack, app.state.limiter = [declared], None, before


@pytest.fixture
def a(clock: ManualClock) -> Iterator[TestClient]:
    with client_of(three_layers, clock, {"authorization": "Bearer tk_acme_team_1"}) as client:
        yield client


@pytest.fixture
def b(clock: ManualClock) -> Iterator[TestClient]:
    with client_of(per_endpoint, clock, {"x-teamspace": "acme-research"}) as client:
        yield client


def spend(client: TestClient, times: int, method: str, path: str, **options: Any) -> httpx2.Response:
    """Send a request so many times, all of which succeed, and return the next answer."""
    for _ in range(times):
        assert client.request(method, path, **options).is_success
    return client.request(method, path, **options)


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


def test_a_used_up_month_is_403_with_a_code_of_its_own(a: TestClient, clock: ManualClock) -> None:
    """No Retry-After and no Remaining, and what the app itself turns away does not count."""
    clock.now = round(datetime(2026, 12, 31, 12, tzinfo=UTC).timestamp()) * 1_000_000
    starter = {"authorization": "Bearer tk_small_starter_1"}
    for _ in range(20):
        assert a.get("/api/agents", headers=starter).is_success
    refused = a.get("/api/agents", headers=starter)
    assert refused.status_code == 403
    assert refused.headers["content-type"] == "application/json"
    assert {"retry-after", "x-ratelimit-remaining"}.isdisjoint(refused.headers)
    assert {name: refused.json()[name] for name in ("type", "code", "scope", "resets_at")} == {
        "type": f"{BASE}monthly_quota_exceeded",
        "code": "monthly_quota_exceeded",
        "scope": "org",
        "resets_at": "2027-01-01T00:00:00Z",
    }
    assert a.get("/api/usage", headers=starter).json() == {"requests": 20}
    clock.advance(seconds=12 * 3600)
    assert a.get("/api/agents", headers=starter).is_success
    assert a.get("/api/usage", headers=starter).json() == {"requests": 1}


def test_a_service_account_is_raised_while_it_is_refused(a: TestClient) -> None:
    """One token's limit rises for this token alone, and only for who has the key."""
    token = {"authorization": "Bearer sa_big_business_1"}
    wanted = {"policy": "token-writes", "token": "sa_big_business_1", "rate": "1000/minute"}
    assert spend(a, 150, "POST", "/api/agents", headers=token).status_code == 429
    assert a.put("/internal/overrides", json=wanted).status_code == 403
    admin = {"x-admin-key": three_layers.ADMIN_KEY}
    assert a.put("/internal/overrides", json={**wanted, "rate": "much"}, headers=admin).status_code == 422
    assert a.put("/internal/overrides", json=wanted, headers=admin).is_success
    assert a.post("/api/agents", headers=token).headers["x-ratelimit-limit"] == "1000"
    assert a.post("/api/agents").headers["x-ratelimit-limit"] == "120"


def test_a_backfill_leaves_half_to_people_and_may_do_more_at_night(a: TestClient, clock: ManualClock) -> None:
    """Half of a trial organization's ten a minute; 60 backfills a minute by day and 3000 at night, Berlin time."""
    trial = [{"authorization": f"Bearer {kind}_tiny_trial_1"} for kind in ("sa", "tk")]
    assert [a.get("/api/agents", headers=trial[0]).status_code for _ in range(6)] == [200] * 5 + [429]
    assert [a.get("/api/agents", headers=trial[1]).status_code for _ in range(6)] == [200] * 5 + [429]
    for hour, tightest in ((12, "60"), (21, "120"), (4, "120"), (5, "60")):
        clock.now = round(datetime(2026, 12, 15, hour, 30, tzinfo=UTC).timestamp()) * 1_000_000
        told = a.post("/api/backfill", headers={"authorization": "Bearer sa_big_business_1"})
        assert told.headers["x-ratelimit-limit"] == tightest, hour


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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are done at once."""
    monkeypatch.setattr(per_endpoint, "ITEM_SECONDS", 0)


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are never done."""
    monkeypatch.setattr(per_endpoint, "ITEM_SECONDS", 1_000_000)


def check_batch_problem(refused: httpx2.Response | Call, policy: str, code: str, detail: str) -> dict[str, Any]:
    """Check the shape that all four rules of the batch endpoints have in common, and return the body."""
    told: dict[str, Any] = json.loads(refused.body if isinstance(refused, Call) else refused.content)
    status = refused.status if isinstance(refused, Call) else refused.status_code
    assert status == told["status"] == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert (told["title"], told["code"], told["detail"]) == ("Rate Limit Exceeded", code, detail)
    assert int(refused.headers["retry-after"]) >= 1
    assert told.get("policy", policy) == policy
    return told


@pytest.mark.usefixtures("quick")
def test_b_batch_paths_answer_with_problem_details(b: TestClient) -> None:
    """RFC 9457 with the IETF fields on batch paths, naming the rule's reason; legacy elsewhere in the same app."""
    refused = spend(b, 10, "POST", "/v1/batches", json={"items": [1, 2]})
    reason = "Too many batches were created. Wait before you create the next one."
    told = check_batch_problem(refused, "batch-create", "rate_limit_exceeded", reason)
    assert told["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert refused.headers["ratelimit-policy"] == '"batch-create";q=10;w=60'
    assert refused.headers["ratelimit"] == f'"batch-create";r=0;t={refused.headers["retry-after"]}'


@pytest.mark.usefixtures("quick")
def test_b_items_wait_until_they_are_done(b: TestClient) -> None:
    """A batch that would put too much into the queue is refused; what was done or was no batch makes room again."""
    refused = b.post("/v1/batches", json={"items": list(range(1001))})
    reason = "Too many items of this organization are waiting. Wait until some are done."
    assert json.loads(refused.content)["detail"] == reason
    assert b.post("/v1/batches", content=b"{no json").status_code == 400
    for _ in range(3):
        assert b.post("/v1/batches", json={"items": list(range(900))}).status_code == 202


@pytest.mark.usefixtures("quick")
def test_b_capacity_is_told_without_numbers(b: TestClient) -> None:
    """When the service takes no more batches, every organization hears the same, and no number of it."""
    for n in range(30):
        assert b.post("/v1/batches", json={"items": []}, headers={"x-teamspace": f"org{n % 6}-a"}).status_code == 202
    refused = b.post("/v1/batches", json={"items": []}, headers={"x-teamspace": "other-a"})
    reason = "Batches are temporarily limited for everybody. Try again later."
    told = check_batch_problem(refused, "", "capacity_exceeded", reason)
    assert told.keys() == {"type", "title", "status", "detail", "code"}
    assert not [name for name in refused.headers if "ratelimit" in name]


@pytest.mark.usefixtures("b", "stuck")
async def test_b_an_organization_runs_three_batches_and_queues_a_thousand_items() -> None:
    """While three run, a fourth is refused; and one whose items would not fit, whoever sent the others."""
    tasks = [asyncio.create_task(batch(f"acme-{n}", 200).run()) for n in range(3)]
    for _ in range(50):
        await asyncio.sleep(0)
    fourth = await batch("acme-4", 1).run()
    reason = "Too many batches of this organization are running. Wait until one has ended."
    check_batch_problem(fourth, "batch-runs", "concurrency_exceeded", reason)
    assert fourth.headers["ratelimit-policy"] == '"batch-runs";q=3;qu="concurrent-requests"'
    tasks.pop().cancel()
    for _ in range(50):
        await asyncio.sleep(0)
    large = await batch("acme-5", 401).run()
    reason = "Too many items of this organization are waiting. Wait until some are done."
    check_batch_problem(large, "batch-items", "quota_exceeded", reason)
    assert large.headers["ratelimit"] == '"batch-items";r=0;t=1'
    tasks.append(asyncio.create_task(batch("other-1", 1000).run()))
    for _ in range(50):
        await asyncio.sleep(0)
    for task in tasks:
        assert not task.done()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def batch(teamspace: str, items: int) -> Call:
    body = json.dumps({"items": list(range(items))}).encode()
    return Call(per_endpoint.app, "/v1/batches", method="POST", headers={"x-teamspace": teamspace}, body=body)


def test_b_batch_successes_carry_both_kinds_of_headers(b: TestClient) -> None:
    """Every rate but that of the service is told on batch paths, and the tightest speaks in X-RateLimit-*."""
    response = b.post("/v1/batches", json={"items": []})
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
