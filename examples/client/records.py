"""A limited server for `examples.client.backfill`, which stores each record once, even if it is sent twice.

The environment sets RATE (the limit of a token) and RECORDS (an SQLite file).
"""

import os
import sqlite3

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ratelimit import Limit, RateLimitMiddleware, RateLimitSettings, ResponseStyle
from ratelimit.asgi.identify import unverified_identity

settings = RateLimitSettings(
    limits=[Limit(name="records", rate=os.environ.get("RATE", "500/2 seconds"), per="token")],
    exempt=["GET /healthz", "GET /records"],
    response=ResponseStyle(headers=["x-ratelimit", "ietf"]),
)
database = sqlite3.connect(os.environ.get("RECORDS", ":memory:"), isolation_level=None)
database.execute("CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, body BLOB, sent INTEGER DEFAULT 1)")
database.execute("PRAGMA synchronous = OFF")


async def store_record(request: Request) -> JSONResponse:
    """Store a record under its Idempotency-Key; repeating it changes nothing."""
    key = request.headers.get("idempotency-key")
    if not key:
        return JSONResponse({"error": "Idempotency-Key is missing"}, 400)
    try:
        body = await request.body()
    except ClientDisconnect:  # The backfill was stopped while it sent the record.
        return JSONResponse({"error": "the record was cut off"}, 400)
    (sent,) = database.execute(
        "INSERT INTO records (key, body) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET sent = sent + 1 RETURNING sent",
        (key, body),
    ).fetchone()
    return JSONResponse({"key": key}, 201 if sent == 1 else 200)


async def report(request: Request) -> JSONResponse:
    stored, sent = database.execute("SELECT count(*), coalesce(sum(sent), 0) FROM records").fetchone()
    return JSONResponse({"stored": stored, "sent": sent})


async def healthz(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


app = Starlette(
    routes=[Route("/records", store_record, methods=["POST"]), Route("/records", report), Route("/healthz", healthz)],
    # An invented token would be a caller of its own; here all callers are known to be honest.
    middleware=[Middleware(RateLimitMiddleware, settings=settings, identify=unverified_identity())],
)
