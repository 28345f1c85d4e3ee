"""Contract A: every request is counted for its token, its organization and, on some routes, its endpoint."""

import os
from pathlib import Path
from uuid import uuid4

from fastapi import APIRouter, FastAPI
from starlette.requests import HTTPConnection

from ratelimit import Identity, RateLimitMiddleware, RateLimitSettings, limit
from ratelimit.http.identify import bearer_token

settings = RateLimitSettings.from_file(
    Path(__file__).with_suffix(".toml"),
    store=os.environ.get("RATELIMIT_STORE", "memory://"),
)


def identify(connection: HTTPConnection) -> Identity | None:
    """Read `tk_<org>_<plan>_<secret>`: made-up tokens that say it all; a real app looks a token up."""
    token = bearer_token(connection)
    if token is None or token.count("_") != 3:
        return None
    _, org, plan, _ = token.split("_")
    return Identity(token=token, org=org, plan=plan)


app = FastAPI(title="Three layers")
app.add_middleware(RateLimitMiddleware, settings=settings, identify=identify)
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


@app.get("/healthz")
@app.get("/readyz")
async def healthy() -> str:
    return "ok"


@app.get("/version")
async def version() -> str:
    return "1.0"


app.include_router(api)
