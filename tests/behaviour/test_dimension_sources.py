"""The promise: limits by anything in a request, also by its body, which the app still receives."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from ratelimit import Identity, Limit, Limiter, RateLimitMiddleware, RateLimitSettings, limit
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock

SETTINGS: dict[str, Any] = {
    "dimensions": {"tenant": "path:tenant", "email": "json:user.email", "region": "header:x-region"},
    "hashed_dimensions": ["email"],
    "max_body": 100,
    "limits": [
        Limit(name="tenant", rate="1/minute", per="tenant"),
        Limit(name="logins", rate="1/minute", per="email", paths="/login"),
        Limit(name="region", rate="1/minute", per="region"),
    ],
}


def app_of(limiter: Limiter) -> FastAPI:
    app = FastAPI()

    @app.get("/tenants/{tenant}/items/{item}")
    async def items(tenant: str, item: int) -> list[Any]:
        return [tenant, item]

    @app.post("/login")
    async def login(request: Request) -> Any:
        return await request.json()

    @app.get("/files/{name}")
    @limit("1/minute", key=lambda request: request.path_params["name"].lower())
    async def files(name: str) -> str:
        return name

    @app.get("/reports")
    @limit("1/minute", key="query:who")
    async def reports() -> None: ...

    app.add_middleware(RateLimitMiddleware, limiter=limiter)
    return app


@pytest.fixture
async def limiter(store: Store, clock: ManualClock) -> AsyncIterator[Limiter]:
    async with Limiter(RateLimitSettings(**SETTINGS), store, clock) as limiter:
        yield limiter


def client_of(limiter: Limiter) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app_of(limiter)), base_url="http://x")


async def test_places_in_the_request_name_counters(limiter: Limiter) -> None:
    """A parameter of the route, before it is routed; a header; and for one route, a function or a query parameter."""
    async with client_of(limiter) as client:

        async def statuses(*paths: str, **headers: str) -> list[int]:
            return [(await client.get(path, headers=headers)).status_code for path in paths]

        assert await statuses("/tenants/a/items/1", "/tenants/a/items/2", "/tenants/b/items/1") == [200, 429, 200]
        assert await statuses("/files/A", "/files/a", "/files/b") == [200, 429, 200]
        assert await statuses("/reports", "/reports", "/reports?who=1", "/reports?who=1") == [200, 200, 200, 429]
        assert await statuses("/tenants/c/items/1", "/tenants/d/items/1", **{"x-region": "eu"}) == [200, 429]


async def test_a_body_is_read_and_handed_on(limiter: Limiter) -> None:
    """The app receives what the limit has read; what is too large is not limited by it, and arrives whole."""
    async with client_of(limiter) as client:

        async def login(**body: Any) -> int:
            response = await client.post("/login", json=body)
            assert response.status_code == 429 or response.json() == body
            return response.status_code

        assert [await login(user={"email": "a@b"}) for _ in range(2)] == [200, 429]
        assert await login(user={"email": "c@d"}) == 200
        assert [await login(user={"email": "e@f"}, more="x" * 100) for _ in range(2)] == [200, 200]
        assert [await login() for _ in range(2)] == [200, 200]


async def test_without_a_request_the_identity_holds_the_values(limiter: Limiter) -> None:
    """A dimension by its name, the value of `key` by the name of its policy."""
    app = app_of(limiter)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        await client.post("/login", json={"user": {"email": "a@b"}})
        await client.get("/files/a")
    login = Identity(dimensions={"email": "a@b"})
    assert not (await limiter.peek(login, method="POST", endpoint="/login")).allowed
    assert not (await limiter.peek(Identity(dimensions={"files": "a"}), endpoint="/files/{name}")).allowed
    assert (await limiter.peek(Identity(dimensions={"files": "b"}), endpoint="/files/{name}")).allowed


async def test_hashed_values_do_not_leave_the_process(limiter: Limiter) -> None:
    """Neither in keys nor in overrides, which name the value or its hash."""
    email = {"email": "a@b"}
    await limiter.overrides.set(policy="logins", key=email, rate="3/minute")
    (override,) = await limiter.overrides.list()
    assert list(override.key) == ["email_hash"]
    assert "a@b" not in json.dumps(dict(override.key))
    async with client_of(limiter) as client:
        assert [(await client.post("/login", json={"user": email})).status_code for _ in range(4)] == [200] * 3 + [429]
    charges = limiter.resolver.policies_at(limiter.resolver.route("POST", "/login")).charges(Identity(dimensions=email))
    assert all("a@b" not in charge.key and "a%40b" not in charge.key for charge in charges)
    assert await limiter.overrides.delete(policy="logins", key=override.key)
