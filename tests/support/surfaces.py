"""An app with all surfaces on it (routes, console, metrics, a caller's own page), on a Redis that others may write to."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, unquote

import httpx
import redis
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, generate_latest
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message

from ratelimit import Concurrency, Identity, Limit, Limiter, Quota, RateLimitMiddleware, RateLimitSettings, exempt
from ratelimit.asgi import admin_routes, health_route, usage_routes
from ratelimit.asgi.identify import Identify
from ratelimit.clock import Clock
from ratelimit.console import caller_page, console
from ratelimit.telemetry import PrometheusListener

CONTROLS = "rl:{overrides}"
AUDIT = f"{CONTROLS}:audit"
STATISTICS = "rl:{statistics}"
REFUSALS = f"{STATISTICS}:refusals"
WORKERS = "rl:{workers}"
"""Keys that all workers share."""

OPERATOR = {"x-operator": "ada"}
PAGES = (
    "/ratelimit/",
    "/ratelimit/policies/agents",
    "/ratelimit/policies/calls",
    "/ratelimit/callers",
    "/ratelimit/caller?org=acme",
    "/ratelimit/quotas",
    "/ratelimit/quotas/calls",
    "/ratelimit/quotas/calls.csv",
    "/ratelimit/live",
    "/limits/",
    "/v1/rate-limits",
    "/v1/quotas",
    "/internal/overrides",
    "/internal/blocks",
    "/health/rate-limits",
    "/metrics",
)
"""All that people and programs read."""


class RawAnswer:
    """What the app answers, and how many parts of the body it has read."""

    def __init__(self, body: list[bytes], until: str) -> None:
        self.status, self.text, self.read = 0, "", 0
        self._body, self._until, self._seen = body, until, asyncio.Event()

    async def receive(self) -> Message:
        """Hand out the next part of the body."""
        if self.read >= max(1, len(self._body)):
            await self._seen.wait()
            return {"type": "http.disconnect"}
        part = self._body[self.read] if self._body else b""
        self.read += 1
        return {"type": "http.request", "body": part, "more_body": self.read < len(self._body)}

    async def send(self, message: Message) -> None:
        """Take a message of the answer."""
        self.status = message.get("status", self.status)
        self.text += message.get("body", b"").decode()
        if self._until in self.text:
            self._seen.set()


def identify(connection: HTTPConnection) -> Identity | None:
    """Read who calls from headers, percent-encoded: a name may be any text."""
    sent = {name: unquote(value) for name, value in connection.headers.items()}
    if not {"x-token", "x-org", "x-ip"} & sent.keys():
        return None
    return Identity(token=sent.get("x-token"), org=sent.get("x-org"), ip=sent.get("x-ip"), plan=sent.get("x-plan"))


def settings_for(url: str, **changes: Any) -> RateLimitSettings:
    """Return settings with a policy of each kind."""
    return RateLimitSettings(
        **{
            "store": url,
            "store_timeout": 5,
            "statistics": True,
            "limits": [
                Limit(name="agents", rate="3/hour", per="token"),
                Limit(name="org", rate="100/hour", per="org"),
                Limit(name="address", rate="100/hour", per="ip"),
                Limit(name="tried", rate="1/hour", per="org", shadow=True),
            ],
            "quotas": [
                Quota(name="calls", limit=50, per="org", period="month"),
                Quota(name="by-token", limit=50, per="token", period="day"),
                Quota(name="stored", limit=50, per="org", manual=True),
            ],
            "concurrency": [Concurrency(name="runs", limit=4, per="org")],
            **changes,
        }
    )


class Surfaces:
    """The app of one worker, a client of it, and the Redis."""

    def __init__(self, app: ASGIApp, limiter: Limiter, client: httpx.AsyncClient, server: Any) -> None:
        self.app, self.limiter, self.client = app, limiter, client
        self.redis = server  # Of any type: redis-py's types know fewer values than an attacker.

    async def ask(self, token: str | None = "tk", org: str | None = "acme", ip: str | None = None) -> int:
        """Make one request of a caller, and return the status."""
        return (await self.client.get("/v1/agents", headers=headers_of(token, org, ip))).status_code

    async def raw(
        self, method: str, target: str, headers: Mapping[str, str], body: Sequence[bytes] = (), *, until: str = ""
    ) -> "RawAnswer":
        """Make a request whose path no client has put in order; the body is sent as far as the app reads it.

        The client leaves when the answer holds the text `until`.
        """
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), each.encode("latin-1")) for name, each in headers.items()],
            "client": ("192.0.2.9", 1),
            "server": ("app.test", 80),
        }
        answer = RawAnswer(list(body), until)
        await self.app(scope, answer.receive, answer.send)
        return answer

    async def poll(self) -> None:
        """Do now what the worker does once a second."""
        await self.limiter.poller.poll()

    async def read(self, *more: str) -> dict[str, httpx.Response]:
        """Return what all pages answer an operator, who is the caller `tk` of `acme` too."""
        headers = {**OPERATOR, "x-token": "tk", "x-org": "acme"}
        return {page: await self.client.get(page, headers=headers) for page in (*PAGES, *more)}

    async def bad_pages(self, *more: str) -> dict[str, int]:
        """Return the pages that do not answer with 200."""
        return {page: each.status_code for page, each in (await self.read(*more)).items() if each.status_code != 200}


def headers_of(token: str | None, org: str | None, ip: str | None = None) -> dict[str, str]:
    """Return what a caller sends to be known by these names."""
    given = {"x-token": token, "x-org": org, "x-ip": ip}
    return {name: quote(value, safe="") for name, value in given.items() if value is not None}


def app_of(limiter: Limiter, registry: CollectorRegistry, identify: Identify) -> FastAPI:
    """Return an app with all surfaces."""
    app = FastAPI()

    def operator(request: Request) -> str | None:
        return request.headers.get("x-operator") or request.cookies.get("session")

    @app.get("/v1/agents")
    async def agents() -> list[str]:
        return []

    @app.get("/metrics")
    @exempt
    def metrics() -> Response:
        return Response(generate_latest(registry))

    app.include_router(usage_routes(), prefix="/v1")
    app.include_router(admin_routes(authorize=operator), prefix="/internal")
    app.include_router(health_route())
    app.mount("/ratelimit", console(authorize=operator, authorize_changes=operator))
    app.mount("/limits", caller_page())
    app.add_middleware(RateLimitMiddleware, limiter=limiter, identify=identify)
    return app


@asynccontextmanager
async def surfaces(
    url: str, clock: Clock | None = None, *, identify: Identify = identify, **changes: Any
) -> AsyncIterator[Surfaces]:
    """Serve an app with these settings; a failure of the app is its answer 500."""
    registry = CollectorRegistry()
    limiter = Limiter(settings_for(url, **changes), clock=clock, listeners=[PrometheusListener(registry=registry)])
    app = app_of(limiter, registry, identify)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with limiter, httpx.AsyncClient(transport=transport, base_url="http://app.test") as client:
        with redis.Redis.from_url(url) as server:
            yield Surfaces(app, limiter, client, server)


def lines_about(records: Sequence[logging.LogRecord], name: str) -> list[str]:
    """Return the lines of the log, each as it is written with its traceback, that name a key."""
    formatter = logging.Formatter()
    return [text for record in records if name in (text := formatter.format(record))]


def values_of(server: redis.Redis) -> dict[bytes, Any]:
    """Return all keys of a Redis with their values."""
    found: dict[bytes, Any] = {}
    for key in server.scan_iter(count=1000):
        kind: Any = server.type(key)
        read: Mapping[bytes, Any] = {
            b"string": server.get,
            b"hash": server.hgetall,
            b"zset": lambda name: server.zrange(name, 0, -1, withscores=True),
            b"stream": server.xrange,
        }
        if kind in read:  # Else it has just expired.
            found[key] = read[kind](key)
    return found


def put(server: Any, key: bytes | str, kind: str) -> None:
    """Put a value of this type under a key, in place of what is there."""
    server.delete(key)
    odd = {"x": float("inf"), "y": float("-inf"), b"\xff": 1e300, "@z": 1e308}
    writes: dict[str, Callable[[], Any]] = {
        "string": lambda: server.set(key, b"\xc1garbage"),
        "list": lambda: server.rpush(key, "x"),
        "set": lambda: server.sadd(key, "x"),
        "hash": lambda: server.hset(key, "x", "y"),
        "zset": lambda: server.zadd(key, odd),
        "stream": lambda: server.xadd(key, {"x": "y"}),
    }
    writes[kind]()
