"""The promise: a caller reads what it has left, and an operator changes it, by routes that are never charged."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from starlette.requests import Request

from ratelimit import (
    Concurrency,
    ConfigurationError,
    Identity,
    Limit,
    Limiter,
    Quota,
    RateLimitMiddleware,
    RateLimitSettings,
    limit,
)
from ratelimit.asgi import admin_routes, usage_routes
from ratelimit.errors import StoreUnavailable
from ratelimit.stores.base import Store
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.messages import SharedMap, StoreReply, StoreRequest
from ratelimit.testing import ManualClock
from tests.support.asgi import by_headers

SETTINGS = RateLimitSettings(
    limits=[
        Limit(name="token", rate="3/minute", per="token"),
        Limit(name="place", rate="2/minute", per=["endpoint", "token"]),
        Limit(name="shadow", rate="1/minute", per="token", shadow=True),
        Limit(name="service", rate="1000/minute"),
    ],
    quotas=[
        Quota(name="month", limit=10, period="month", per="org"),
        Quota(name="stored", limit=5, per="org", unit="gb"),
    ],
    concurrency=[Concurrency(name="runs", limit=2, per="org")],
)
CALLER = {"x-token": "t", "x-org": "o"}
OPERATOR = {"x-operator": "ada"}


async def authorize(request: Request) -> str | None:
    return request.headers.get("x-operator")


def app_of(limiter: Limiter, authorize: Any = authorize) -> FastAPI:
    app = FastAPI()

    @app.get("/agents")
    @limit("2/minute", per="token", name="agents")
    async def agents() -> list[str]:
        return []

    app.include_router(usage_routes(), prefix="/v1")
    app.include_router(admin_routes(limiter, authorize=authorize), prefix="/internal")
    app.add_middleware(RateLimitMiddleware, limiter=limiter, identify=by_headers)
    return app


def client_of(app: FastAPI, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x", headers=headers)


@pytest.fixture
async def limiter(store: Store, clock: ManualClock) -> AsyncIterator[Limiter]:
    async with Limiter(SETTINGS, store, clock) as limiter:
        yield limiter


@pytest.fixture
async def client(limiter: Limiter) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app_of(limiter), **CALLER) as client:
        yield client


def left(limits: list[dict[str, Any]]) -> dict[str, int]:
    return {limit["policy"]: limit["remaining"] for limit in limits}


async def test_a_caller_reads_what_it_has_left(client: httpx.AsyncClient) -> None:
    """Also when it is refused elsewhere; nothing is charged, and shadows and the service's capacity are not shown."""
    assert left((await client.get("/v1/rate-limits")).json()) == {"token": 3, "runs": 2}
    for _ in range(2):
        assert (await client.get("/agents")).status_code == 200
    assert (await client.get("/agents")).status_code == 429
    for _ in range(5):
        response = await client.get("/v1/rate-limits")
        assert (response.status_code, left(response.json())) == (200, {"token": 1, "runs": 2})
        assert not [name for name in response.headers if "ratelimit" in name]
    here = await client.get("/v1/rate-limits", params={"endpoint": "/agents"})
    assert left(here.json()) == {"token": 1, "place": 0, "agents": 0, "runs": 2}
    (token, *_) = here.json()
    assert token == {
        "policy": "token",
        "kind": "limit",
        "scope": "token",
        "unit": "requests",
        "limit": 3,
        "remaining": 1,
        "window": 60,
        "resets_at": token["resets_at"],
    }


async def test_a_caller_reads_what_it_has_used(client: httpx.AsyncClient, limiter: Limiter) -> None:
    """Of each quota, with the period's end."""
    await client.get("/agents")
    await limiter.consume("stored", Identity(org="o"), 2)
    month, stored = (await client.get("/v1/quotas")).json()
    assert (month["used"], month["remaining"], month["period"]) == (1, 9, "month")
    assert month["resets_at"].endswith("-01T00:00:00Z")
    assert stored == {
        "policy": "stored",
        "unit": "gb",
        "period": None,
        "limit": 5,
        "used": 3,
        "remaining": 2,
        "resets_at": None,
        "used_last_period": 0,
    }


async def test_an_unknown_caller_has_no_limits(limiter: Limiter) -> None:
    """There is nothing to tell."""
    async with client_of(app_of(limiter)) as client:
        assert (await client.get("/v1/rate-limits")).json() == (await client.get("/v1/quotas")).json() == []


async def test_an_operator_overrides_a_rate(client: httpx.AsyncClient) -> None:
    """For one caller, a plan or all; who did it is kept, and a token is shown as its hash."""
    wanted = {"policy": "token", "key": {"token": "t"}, "rate": "9/minute", "why": "ticket 7"}
    (shown,) = (await client.put("/internal/overrides", json=wanted, headers=OPERATOR)).json()
    assert (shown["rate"], shown["why"], shown["by"], list(shown["key"])) == (
        "9/minute",
        "ticket 7",
        "ada",
        ["token_hash"],
    )
    assert left((await client.get("/v1/rate-limits")).json())["token"] == 9
    plan = {"policy": "month", "plan": "pro", "rate": "unlimited", "until": "2030-01-01T00:00:00Z"}
    assert len((await client.put("/internal/overrides", json=plan, headers=OPERATOR)).json()) == 2
    assert (await client.get("/internal/overrides", headers=OPERATOR)).json()[0]["rate"] == "unlimited"
    key = json.dumps(shown["key"])
    for expected in (True, False):
        removed = await client.delete("/internal/overrides", params={"policy": "token", "key": key}, headers=OPERATOR)
        assert removed.json() == {"removed": expected}
    removed = await client.delete("/internal/overrides", params={"policy": "month", "plan": "pro"}, headers=OPERATOR)
    assert removed.json() == {"removed": True}
    assert left((await client.get("/v1/rate-limits")).json())["token"] == 3


async def test_an_operator_blocks_a_caller(client: httpx.AsyncClient) -> None:
    """Its own routes stay open."""
    (shown,) = (await client.put("/internal/blocks", json={"key": {"org": "o"}, "why": "x"}, headers=OPERATOR)).json()
    assert shown == {"key": {"org": "o"}, "until": None, "why": "x", "by": "ada"}
    assert (await client.get("/agents")).json()["code"] == "blocked"
    assert len((await client.get("/internal/blocks", headers=OPERATOR)).json()) == 1
    removed = await client.delete("/internal/blocks", params={"key": '{"org": "o"}'}, headers=OPERATOR)
    assert removed.json() == {"removed": True}
    assert (await client.get("/agents")).status_code == 200


async def test_an_operator_looks_up_and_resets_a_caller(client: httpx.AsyncClient) -> None:
    """As the caller would see it."""
    for _ in range(2):
        await client.get("/agents")
    caller = {"token": "t", "org": "o"}
    at = {"endpoint": "/agents"}
    found = (await client.post("/internal/usage", json=caller, params=at, headers=OPERATOR)).json()
    assert left(found["limits"]) == {"token": 1, "place": 0, "agents": 0, "runs": 2}
    assert [quota["used"] for quota in found["quotas"]] == [2, 2]
    one = await client.post("/internal/reset", json={"caller": caller, "policy": "token"}, headers=OPERATOR)
    assert one.json() == {"emptied": 1}
    all_ = await client.post("/internal/reset", json={"caller": caller}, headers=OPERATOR)
    assert all_.json()["emptied"] >= 3
    assert (await client.get("/agents")).status_code == 200


PATHS = [("GET", "/overrides"), ("PUT", "/overrides"), ("DELETE", "/overrides"), ("GET", "/blocks"), ("PUT", "/blocks")]
PATHS += [("DELETE", "/blocks"), ("POST", "/usage"), ("POST", "/reset")]


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_others_are_forbidden(client: httpx.AsyncClient, method: str, path: str) -> None:
    """Before their body is looked at; the function may be sync, and may refuse in its own way."""
    response = await client.request(method, f"/internal{path}", json={"rubbish": 1})
    assert response.status_code == 403

    def refuse(request: Request) -> bool:
        raise HTTPException(401, headers={"www-authenticate": "Bearer"})

    limiter = Limiter(SETTINGS, MemoryStore())
    for allowed, status in ((refuse, 401), (lambda _: False, 403)):
        async with client_of(app_of(limiter, allowed)) as other:
            assert (await other.request(method, f"/internal{path}")).status_code == status


@pytest.mark.parametrize(
    ("method", "path", "options", "message"),
    [
        ("PUT", "/overrides", {"json": {"policy": "x", "key": {}, "rate": 1}}, "policy: 'x' is not one of"),
        ("PUT", "/overrides", {"json": {"policy": "token", "rate": 1}}, "key: say who"),
        ("PUT", "/overrides", {"json": {"policy": "token", "key": {}, "rate": 1, "utnil": 1}}, "utnil"),
        (
            "PUT",
            "/overrides",
            {"json": {"policy": "token", "key": {}, "rate": 1, "until": "2030-01-01T00:00:00"}},
            "until",
        ),
        ("DELETE", "/overrides", {"params": {"policy": "token", "key": "acme"}}, "key: 'acme' is no JSON object"),
        ("PUT", "/overrides", {"json": {"policy": "token", "key": {}, "rate": True}}, "rate"),
        ("PUT", "/blocks", {"json": {"key": {"ip": "x"}}}, "key: ip: 'x' is neither an address nor a network"),
        ("POST", "/reset", {"json": {"caller": {}, "policy": "x"}}, "policy: 'x' is not one of"),
    ],
)
async def test_a_wrong_value_is_answered_with_its_name(
    client: httpx.AsyncClient, method: str, path: str, options: dict[str, Any], message: str
) -> None:
    """With 422, as FastAPI answers its own."""
    response = await client.request(method, f"/internal{path}", headers=OPERATOR, **options)
    assert response.status_code == 422
    assert message in response.text


async def test_a_text_that_nothing_could_write_out_is_refused(client: httpx.AsyncClient) -> None:
    """It would break every later listing."""
    body = b'{"policy": "token", "key": {}, "rate": 1, "why": "\\ud800"}'
    headers = {**OPERATOR, "content-type": "application/json"}
    assert (await client.put("/internal/overrides", content=body, headers=headers)).status_code == 422
    assert (await client.get("/internal/overrides", headers=OPERATOR)).json() == []


async def test_an_unknown_endpoint_is_404(client: httpx.AsyncClient, limiter: Limiter) -> None:
    """And leaves nothing behind, however long its name is."""
    await client.get("/v1/rate-limits")
    before = len(limiter.resolver.compiled), len(limiter.resolver.endpoints)
    for endpoint in ("/nope", "/" + "x" * 60_000):
        response = await client.get("/v1/rate-limits", params={"endpoint": endpoint})
        assert response.status_code == 404
    assert (len(limiter.resolver.compiled), len(limiter.resolver.endpoints)) == before


async def test_the_services_capacity_and_shadows_are_not_shown(store: Store, clock: ManualClock) -> None:
    """Neither as limits nor as quotas."""
    quotas = [
        Quota(name="service", limit=10**9, period="month"),
        Quota(name="shadow", limit=5, period="month", per="org", shadow=True),
        Quota(name="own", limit=5, period="month", per="org"),
    ]
    async with client_of(app_of(Limiter(RateLimitSettings(quotas=quotas), store, clock)), **CALLER) as client:
        assert [quota["policy"] for quota in (await client.get("/v1/quotas")).json()] == ["own"]


async def test_dimensions_of_the_request_count(store: Store, clock: ManualClock) -> None:
    """Those in headers, query and cookies, and keys."""
    limits = [
        Limit(name="region", rate="5/minute", per="region"),
        Limit(name="session", rate="5/minute", key="cookie:sid"),
    ]
    settings = RateLimitSettings(dimensions={"region": "header:x-region"}, limits=limits)
    async with client_of(app_of(Limiter(settings, store, clock))) as client:
        found = await client.get("/v1/rate-limits", headers={"x-region": "eu", "cookie": "sid=1"})
    assert left(found.json()) == {"region": 5, "session": 5}


@pytest.mark.parametrize("answer", [object(), 1, ["ada"]])
async def test_an_authorization_answers_with_a_name_or_yes(answer: Any) -> None:
    """Anything else is a mistake, such as a dependency that was not resolved, and lets no one in."""
    app = app_of(Limiter(SETTINGS, MemoryStore()), lambda request: answer)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        assert (await client.get("/internal/overrides")).status_code == 500


async def test_an_unavailable_store_is_503() -> None:
    """And no 500."""

    class Away(MemoryStore):
        async def read_map(self, name: str, seen: int | None) -> SharedMap | None:
            raise StoreUnavailable("secret-host")

        async def submit(self, request: StoreRequest) -> StoreReply:
            raise StoreUnavailable("secret-host")

    async with client_of(app_of(Limiter(SETTINGS, Away())), **OPERATOR, **CALLER) as client:
        for path in ("/internal/overrides", "/v1/rate-limits", "/v1/quotas"):
            response = await client.get(path)
            assert response.status_code == 503
            assert "secret-host" not in response.text


def test_all_routes_are_described(limiter: Limiter) -> None:
    """With models for what they take and return."""
    document = app_of(limiter).openapi()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            assert path == "/agents" or "$ref" in schema or "$ref" in schema["items"]


async def test_without_the_middleware_they_say_what_is_missing() -> None:
    """The request has not passed a limiter."""
    app = FastAPI()
    app.include_router(usage_routes())
    async with client_of(app) as client:
        with pytest.raises(ConfigurationError, match="has not passed a RateLimitMiddleware"):
            await client.get("/rate-limits")


def test_admin_routes_need_an_authorization() -> None:
    """There is no default."""
    with pytest.raises(ConfigurationError, match="authorize: must be a function of the request, got None"):
        admin_routes(authorize=None)  # type: ignore[arg-type]


async def test_limits_of_a_router_do_not_reach_them(store: Store, clock: ManualClock) -> None:
    """Nor those of an app: they are exempt."""
    limiter = Limiter(RateLimitSettings(limits=[Limit(name="all", rate="1/minute", per="token")]), store, clock)
    app = FastAPI(dependencies=[Depends(limit("1/minute", per="token"))])
    outer = APIRouter(dependencies=[Depends(limit("1/minute", per="token"))])
    outer.include_router(usage_routes())
    app.include_router(outer)
    app.add_middleware(RateLimitMiddleware, limiter=limiter, identify=by_headers)
    async with client_of(app, **CALLER) as client:
        assert [(await client.get("/quotas")).status_code for _ in range(3)] == [200] * 3
