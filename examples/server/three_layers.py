"""Contract A: each request is counted for its token, its organization and, on some routes, its endpoint."""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from fastapi import APIRouter, FastAPI, HTTPException, Request
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from ratelimit import ConfigurationError, Identity, Limiter, RateLimitMiddleware, RateLimitSettings, exempt, limit
from ratelimit.asgi.identify import bearer_token

settings = RateLimitSettings.from_file(
    Path(__file__).with_suffix(".toml"),
    store=os.environ.get("RATELIMIT_STORE", "memory://"),
    statistics="RATELIMIT_STATISTICS" in os.environ,
)

ADMIN_KEY = os.environ.get("ADMIN_KEY", secrets.token_hex())


def identify(connection: HTTPConnection) -> Identity | None:
    """Read the made-up tokens `tk_<org>_<plan>_<secret>`, or `sa_…` for service accounts, which backfill.

    A real app looks the token up.
    """
    token = bearer_token(connection)
    if token is None or token.count("_") != 3:
        return None
    kind, org, plan, _ = token.split("_")
    return Identity(token=token, org=org, plan=plan, priority="backfill" if kind == "sa" else None)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with app.state.limiter:
        yield


app = FastAPI(title="Three layers", lifespan=lifespan)
app.state.limiter = Limiter(settings)
app.add_middleware(RateLimitMiddleware, limiter=app.state.limiter, identify=identify)
api = APIRouter(prefix="/api")


@api.get("/agents")
async def agents() -> list[str]:
    return ["summarizer", "translator"]


@api.post("/agents", status_code=201)
async def create_agent() -> dict[str, str]:
    return {"id": uuid4().hex}


@api.get("/agents/{agent_id}")
async def agent(agent_id: str) -> dict[str, str]:
    return {"id": agent_id}


@api.post("/handler/answer")
@limit("60/minute", per="token")
async def answer() -> dict[str, str]:
    return {"answer": "42"}


@api.post("/orchestrator/orchestrations/{orchestration_id}/runs", status_code=202)
@limit("30/minute", per="token")
async def run(orchestration_id: str) -> dict[str, str]:
    return {"orchestration": orchestration_id, "run": uuid4().hex}


@api.get("/search")
@limit("5/3 seconds", per="token")
def search(q: str = "") -> dict[str, str]:
    return {"found": q}


@api.get("/exports/full")
async def export() -> dict[str, str]:
    return {"export": "everything"}


@api.post("/backfill", status_code=202)
async def backfill() -> dict[str, str]:
    return {"accepted": uuid4().hex}


@api.get("/usage")
@exempt  # A caller whose quota is used up may still read its usage.
async def usage(request: Request) -> dict[str, int]:
    used = await request.app.state.limiter.usage(identify(request) or Identity())
    return {quota.policy: quota.used for quota in used}


class Raise(BaseModel):
    policy: str
    token: str
    rate: str


@app.put("/internal/overrides")
@exempt
async def raise_limit(wanted: Raise, request: Request) -> dict[str, str]:
    """Raise the limit of one token while the app runs; every worker applies it within two seconds."""
    if not secrets.compare_digest(request.headers.get("x-admin-key", ""), ADMIN_KEY):
        raise HTTPException(403)
    try:
        key = {"token": wanted.token}
        await request.app.state.limiter.overrides.set(policy=wanted.policy, key=key, rate=wanted.rate)
    except ConfigurationError as error:
        raise HTTPException(422, str(error)) from None
    return {wanted.policy: wanted.rate}


@app.get("/healthz")
@app.get("/readyz")
async def healthy() -> str:
    return "ok"


@app.get("/version")
async def version() -> str:
    return "1.0"


app.include_router(api)
