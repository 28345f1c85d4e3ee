"""The promise: settings alone reproduce both published contracts."""

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

from examples.server import per_endpoint, quickstart, three_layers
from ratelimit import Limiter, MemoryStore, RateLimitMiddleware, RateLimitSettings
from ratelimit.testing import ManualClock
from tests.support.asgi import needs_client_address
from tests.support.raw_http import Call

BASE = "https://docs.example.com/api-errors#"


@contextmanager
def client_of(example: Any, clock: ManualClock, headers: dict[str, str]) -> Iterator[TestClient]:
    """Return a client of an example's own app and settings, which counts by the manual clock."""
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
    """Send a request `times` times, assert that all succeed, and return the response to one more."""
    for _ in range(times):
        assert client.request(method, path, **options).is_success
    return client.request(method, path, **options)


def rate_headers(response: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if "ratelimit" in name or name == "retry-after"}


# Contract A


def test_a_every_success_carries_four_headers(a: TestClient, clock: ManualClock) -> None:
    """Each success has Limit, Remaining, Reset (epoch seconds) and Scope, and no Retry-After."""
    assert rate_headers(a.get("/api/agents")) == {
        "x-ratelimit-limit": "600",
        "x-ratelimit-remaining": "599",
        "x-ratelimit-reset": str(clock.now // 1_000_000 + 61),
        "x-ratelimit-scope": "token",
    }


def test_a_429_is_the_documented_body(a: TestClient) -> None:
    """After 600 reads and a burst of a quarter more, a read gets the documented problem, as application/json."""
    refused = spend(a, 750, "GET", "/api/agents")
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/json"
    assert refused.headers["cache-control"] == "no-store"
    wait = refused.headers["retry-after"]
    detail = f"You've exceeded the per-token limit (600/min). Try again in {wait} seconds."
    assert refused.text == (
        f'{{"type":"{BASE}rate_limit_exceeded","title":"Rate limit exceeded","status":429,'
        f'"detail":"{detail}","scope":"token"}}'
    )
    assert rate_headers(refused)["x-ratelimit-remaining"] == "0"


def test_a_reads_and_writes_are_counted_apart(a: TestClient) -> None:
    """Writes do not count against the limit of reads."""
    assert spend(a, 150, "POST", "/api/agents").headers["x-ratelimit-limit"] == "120"
    assert a.get("/api/agents").headers["x-ratelimit-remaining"] == "599"


@pytest.mark.parametrize(
    ("path", "times"),
    [("/api/handler/answer", 60), ("/api/orchestrator/orchestrations/{}/runs", 30)],
)
def test_a_single_endpoints_are_limited_per_token(a: TestClient, path: str, times: int) -> None:
    """The decorated routes refuse with scope `endpoint`, whatever the value of the path parameter."""
    for n in range(times):
        assert a.post(path.format(n)).is_success
    assert a.post(path.format("other")).json()["scope"] == "endpoint"
    assert a.post(path.format("x"), headers={"authorization": "Bearer tk_acme_team_2"}).is_success


def test_a_exports_are_shared_by_the_organization(a: TestClient, clock: ManualClock) -> None:
    """All tokens of an organization share one export an hour."""
    assert a.get("/api/exports/full").is_success
    refused = a.get("/api/exports/full", headers={"authorization": "Bearer tk_acme_team_2"})
    assert (refused.status_code, refused.json()["scope"]) == (429, "endpoint")
    assert "(1/hour)" in refused.json()["detail"]
    assert a.get("/api/exports/full", headers={"authorization": "Bearer tk_other_team_1"}).is_success
    clock.advance(seconds=int(refused.headers["retry-after"]))
    assert a.get("/api/exports/full").is_success


def test_a_organizations_are_limited_by_plan(a: TestClient) -> None:
    """All tokens of a trial organization share ten requests a minute."""
    tokens = [{"authorization": f"Bearer tk_tiny_trial_{n}"} for n in range(11)]
    assert [a.get("/api/agents", headers=token).status_code for token in tokens] == [200] * 10 + [429]


def test_a_an_exhausted_monthly_quota_is_403_with_a_code_of_its_own(a: TestClient, clock: ManualClock) -> None:
    """It has neither Retry-After nor Remaining; requests that the app itself turns away do not count."""
    clock.now = round(datetime(2026, 12, 31, 12, tzinfo=UTC).timestamp()) * 1_000_000
    starter = {"authorization": "Bearer tk_small_starter_1"}
    for _ in range(20):
        assert a.get("/api/agents", headers=starter).is_success
    refused = a.get("/api/agents", headers=starter)
    assert refused.status_code == 403
    assert refused.headers["content-type"] == "application/json"
    assert {"retry-after", "x-ratelimit-remaining"}.isdisjoint(refused.headers)
    body = refused.json()
    assert (body["type"], body["scope"]) == (f"{BASE}monthly_quota_exceeded", "org")
    assert body.keys() == {"type", "title", "status", "detail", "scope"}
    assert "2027-01-01T00:00:00Z" in body["detail"]
    assert a.get("/api/usage", headers=starter).json() == {"requests": 20}
    clock.advance(seconds=12 * 3600)
    assert a.get("/api/agents", headers=starter).is_success
    assert a.get("/api/usage", headers=starter).json() == {"requests": 1}


def test_a_the_limit_of_a_service_account_is_raised_while_it_is_refused(a: TestClient) -> None:
    """Raising one token's limit changes no other token's, and takes the admin key."""
    token = {"authorization": "Bearer sa_big_business_1"}
    wanted = {"policy": "token-writes", "token": "sa_big_business_1", "rate": "1000/minute"}
    assert spend(a, 150, "POST", "/api/agents", headers=token).status_code == 429
    assert a.put("/internal/overrides", json=wanted).status_code == 403
    admin = {"x-admin-key": three_layers.ADMIN_KEY}
    assert a.put("/internal/overrides", json={**wanted, "rate": "much"}, headers=admin).status_code == 422
    assert a.put("/internal/overrides", json=wanted, headers=admin).is_success
    assert a.post("/api/agents", headers=token).headers["x-ratelimit-limit"] == "1000"
    assert a.post("/api/agents").headers["x-ratelimit-limit"] == "120"


def test_a_backfill_leaves_half_to_others_and_has_a_higher_limit_at_night(a: TestClient, clock: ManualClock) -> None:
    """Backfill uses half of a trial organization's ten a minute; it may send 60 a minute by day, 3000 by night (Berlin)."""
    trial = [{"authorization": f"Bearer {kind}_tiny_trial_1"} for kind in ("sa", "tk")]
    assert [a.get("/api/agents", headers=trial[0]).status_code for _ in range(6)] == [200] * 5 + [429]
    assert [a.get("/api/agents", headers=trial[1]).status_code for _ in range(6)] == [200] * 5 + [429]
    for hour, tightest in ((12, "60"), (21, "120"), (4, "120"), (5, "60")):
        clock.now = round(datetime(2026, 12, 15, hour, 30, tzinfo=UTC).timestamp()) * 1_000_000
        response = a.post("/api/backfill", headers={"authorization": "Bearer sa_big_business_1"})
        assert response.headers["x-ratelimit-limit"] == tightest, hour


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/version"])
def test_a_exempt_endpoints_are_not_counted(a: TestClient, path: str) -> None:
    """Health checks are not counted and get no rate-limit header, even if the organization is at its limit."""
    exhausted = {"authorization": "Bearer tk_tiny_trial_1"}
    while a.get("/api/agents", headers=exhausted).is_success:
        pass
    response = a.get(path, headers=exhausted)
    assert response.is_success
    assert rate_headers(response) == {}


# Contract B


def test_b_every_response_carries_three_headers(b: TestClient, clock: ManualClock) -> None:
    """Each response has Limit, Remaining and Reset, and no Scope."""
    assert rate_headers(b.get("/v1/jobs")) == {
        "x-ratelimit-limit": "200",
        "x-ratelimit-remaining": "199",
        "x-ratelimit-reset": str(clock.now // 1_000_000 + 61),
    }


def test_b_the_last_success_carries_retry_after_too(b: TestClient) -> None:
    """`Retry-After` is sent whenever Remaining is 0, also with status 200."""
    last = spend(b, 199, "GET", "/v1/jobs")
    assert last.status_code == 200
    assert last.headers["x-ratelimit-remaining"] == "0"
    assert int(last.headers["retry-after"]) >= 60


def test_b_429_is_the_legacy_body(b: TestClient) -> None:
    """A refusal has the documented flat JSON, field by field."""
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
    """Each teamspace, path and method has a counter of its own; all job ids share one."""
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
    """Let batches be done at once."""
    monkeypatch.setattr(per_endpoint, "ITEM_SECONDS", 0)


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let batches never be done."""
    monkeypatch.setattr(per_endpoint, "ITEM_SECONDS", 1_000_000)


def check_batch_problem(refused: httpx2.Response | Call, policy: str, code: str, detail: str) -> dict[str, Any]:
    """Check what the refusals of all four policies of the batch endpoints have in common, and return the body."""
    text = (refused.body if isinstance(refused, Call) else refused.content).decode()
    problem: dict[str, Any] = json.loads(text)
    status = refused.status if isinstance(refused, Call) else refused.status_code
    assert status == problem["status"] == 429
    assert refused.headers["content-type"] == "application/problem+json"
    kind = "temporary-reduced-capacity" if code == "capacity_exceeded" else "quota-exceeded"
    assert text == (
        f'{{"type":"https://iana.org/assignments/http-problem-types#{kind}","title":"Rate Limit Exceeded",'
        f'"status":429,"detail":"{detail}"}}'
    )
    assert int(refused.headers["retry-after"]) >= 1
    return problem


@pytest.mark.usefixtures("quick")
def test_b_batch_paths_answer_with_problem_details(b: TestClient) -> None:
    """Batch paths refuse with RFC 9457, the policy's own reason and the IETF fields; other paths use the legacy shape."""
    refused = spend(b, 10, "POST", "/v1/batches", json={"items": [1, 2]})
    reason = "Too many batches were created. Wait before you create the next one."
    problem = check_batch_problem(refused, "batch-create", "rate_limit_exceeded", reason)
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert refused.headers["ratelimit-policy"] == '"batch-create";q=10;w=60'
    assert refused.headers["ratelimit"] == f'"batch-create";r=0;t={refused.headers["retry-after"]}'


@pytest.mark.usefixtures("quick")
def test_b_queued_items_count_until_they_are_done(b: TestClient) -> None:
    """A batch whose items would overfill the queue is refused; done batches and invalid requests free their items."""
    refused = b.post("/v1/batches", json={"items": list(range(1001))})
    reason = "Too many items of this organization are waiting. Wait until some are done."
    assert json.loads(refused.content)["detail"] == reason
    assert b.post("/v1/batches", content=b"{no json").status_code == 400
    for _ in range(3):
        assert b.post("/v1/batches", json={"items": list(range(900))}).status_code == 202


@pytest.mark.usefixtures("quick")
def test_b_capacity_is_reported_without_numbers(b: TestClient) -> None:
    """When the service is at its capacity, every organization gets the same refusal, without its numbers."""
    for n in range(30):
        assert b.post("/v1/batches", json={"items": []}, headers={"x-teamspace": f"org{n % 6}-a"}).status_code == 202
    refused = b.post("/v1/batches", json={"items": []}, headers={"x-teamspace": "other-a"})
    reason = "Batches are temporarily limited for everybody. Try again later."
    problem = check_batch_problem(refused, "", "capacity_exceeded", reason)
    assert problem.keys() == {"type", "title", "status", "detail"}
    assert not [name for name in refused.headers if "ratelimit" in name]


@pytest.mark.usefixtures("b", "stuck")
async def test_b_an_organization_runs_three_batches_and_queues_a_thousand_items() -> None:
    """While three batches run, a fourth is refused; so is a batch whose items do not fit into the organization's queue."""
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


def test_b_batch_successes_carry_both_header_styles(b: TestClient) -> None:
    """The IETF fields list every rate but the service's capacity, and X-RateLimit-* describes the tightest one."""
    response = b.post("/v1/batches", json={"items": []})
    assert response.headers["ratelimit-policy"] == '"requests";q=200;w=60, "batch-create";q=10;w=60'
    assert response.headers["ratelimit"] == '"requests";r=199;t=61, "batch-create";r=9;t=61'
    assert response.headers["x-ratelimit-limit"] == "10"


# The settings of the examples


@pytest.mark.parametrize("name", ["three_layers", "per_endpoint"])
def test_settings_files_survive_a_round_trip(name: str) -> None:
    """Settings that are written as JSON and read again are the same."""
    path = Path(f"examples/server/{name}.toml")
    settings = RateLimitSettings.from_file(path)
    assert RateLimitSettings.model_validate(json.loads(settings.model_dump_json())) == settings
    assert len(tomllib.loads(path.read_text())["limits"]) == len(settings.limits)


@needs_client_address
def test_the_quickstart_limits_by_address() -> None:
    """The quickstart admits five requests a minute for each client address."""
    client = TestClient(quickstart.app, client=("192.0.2.7", 1))
    assert [client.get("/hello").status_code for _ in range(6)] == [200] * 5 + [429]
    assert TestClient(quickstart.app, client=("192.0.2.8", 1)).get("/hello").is_success
