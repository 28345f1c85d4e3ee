"""The apps that `full_stack` serves: with this package, and with other libraries as their documentation shows them.

Imports are local: the other libraries are installed in another virtual environment.
"""
# ruff: noqa: PLC0415

import os
from typing import Any

URL = os.environ.get("STACK_REDIS", "redis://127.0.0.1")
LAYERS = ("token", "org", "endpoint")
PLENTY = 10**7


def bare() -> Any:
    """Return the Starlette app without a limiter."""
    from benchmarks.asgi.middleware_memory import app

    return app()


def limited() -> Any:
    """Return the Starlette app with three limits that are never reached."""
    return _ours(PLENTY)


def refusing() -> Any:
    """Return the Starlette app with three limits, which refuses each token after one request."""
    return _ours(1)


def _ours(most: int) -> Any:
    from benchmarks.asgi.middleware_memory import app
    from ratelimit import Limit, RateLimitMiddleware, RateLimitSettings

    served = app()
    limits = [
        Limit(name="token", rate=f"{most}/minute", per="token", burst=0.25),
        Limit(name="org", rate=f"{PLENTY}/minute", per="org"),
        Limit(name="endpoint", rate=f"{PLENTY}/minute", per=["endpoint", "token"]),
    ]
    settings = RateLimitSettings(store=URL, store_timeout=5, limits=limits)
    served.add_middleware(RateLimitMiddleware, settings=settings, identify=_identify)
    return served


def _identify(connection: Any) -> Any:
    from ratelimit import Identity

    return Identity(token=connection.headers.get("authorization"), org="acme")


def fastapi_bare() -> Any:
    """Return the FastAPI app without a limiter."""
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/items/{name}")
    async def item(name: str) -> str:
        return "ok"

    return app


def slowapi_limited() -> Any:
    """Return the FastAPI app with three decorators of slowapi and headers; its Redis calls block the event loop."""
    from fastapi import FastAPI, Request, Response
    from slowapi import Limiter

    limiter = Limiter(key_func=lambda request: "", storage_uri=URL, headers_enabled=True)
    app = FastAPI()
    app.state.limiter = limiter

    async def item(name: str, request: Request, response: Response) -> str:
        return "ok"

    for layer in LAYERS:

        def key(request: Request, layer: str = layer) -> str:
            return "acme" if layer == "org" else layer + request.headers.get("authorization", "")

        item = limiter.limit(f"{PLENTY}/minute", key_func=key)(item)
    app.get("/items/{name}")(item)
    return app


def fastapi_limiter_limited() -> Any:
    """Return the FastAPI app with three dependencies of fastapi-limiter (pyrate-limiter's log in Redis, no headers)."""
    from fastapi import Depends, FastAPI, Request
    from fastapi_limiter.depends import RateLimiter
    from pyrate_limiter import BucketFactory, Duration, Limiter, Rate, RateItem, RedisBucket
    from redis.asyncio import Redis

    client, rates, buckets = Redis.from_url(URL), [Rate(PLENTY, Duration.MINUTE)], dict[str, Any]()

    class Factory(BucketFactory):
        def wrap_item(self, name: str, weight: int = 1) -> Any:
            from time import time

            return RateItem(name, int(time() * 1000), weight=weight)

        async def get(self, item: Any) -> Any:
            if item.name not in buckets:
                made: Any = RedisBucket.init(rates, client, f"pyrate:{item.name}")
                buckets[item.name] = await made
            return buckets[item.name]

    def limiter(layer: str) -> Any:
        async def name(request: Request) -> str:
            return "acme" if layer == "org" else layer + request.headers.get("authorization", "")

        return Depends(RateLimiter(limiter=Limiter(Factory()), identifier=name))

    app = FastAPI()

    @app.get("/items/{name}", dependencies=[limiter(layer) for layer in LAYERS])
    async def item(name: str) -> str:
        return "ok"

    return app
