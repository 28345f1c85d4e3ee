import os
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection

from ratelimit import Decision, Identity, Limit, RateLimitMiddleware, RateLimitSettings, exempt, limit
from ratelimit.asgi.identify import ClientAddress

PLANS = {"key-of-ann": "pro"}
address = ClientAddress()


def identify(connection: HTTPConnection) -> Identity:
    key, ip = connection.headers.get("x-api-key"), address(connection)
    return Identity(token=key or ip, ip=ip, plan=PLANS.get(key or ""))


def number_of_ids(request: Request) -> int:
    return len(request.query_params.getlist("id"))


def too_many_requests(request: Request, decision: Decision) -> JSONResponse:
    refused = decision.violated[0]
    body = {
        "error": refused.detail or "Too many requests",
        "limit": refused.limit,
        "seconds": refused.window,
    }
    return JSONResponse(body, status_code=429)


settings = RateLimitSettings(
    store=os.environ.get("STORE", "memory://"),
    limits=[
        Limit(name="default", rate="8/minute", per=["endpoint", "token"], default=True),
        Limit(name="billing", rate="4/minute", per="token", paths=["/invoices", "/payments"]),
    ],
)
app = FastAPI()
app.add_middleware(
    RateLimitMiddleware,
    settings=settings,
    identify=identify,
    on_refused=too_many_requests,
)


@app.get("/health")
@exempt
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/reports/{report_id}")
async def report(report_id: int) -> dict[str, int]:
    return {"report": report_id}


@app.get("/search")
@limit("3/minute", per="token", plans={"pro": "6/minute"})
async def search(q: str) -> dict[str, str]:
    return {"found": q}


@app.get("/items")
@limit("10/minute", per="token", cost=number_of_ids)
async def items(item_ids: Annotated[list[int], Query(alias="id")]) -> dict[str, list[int]]:
    return {"items": item_ids}


@app.get("/invoices")
async def invoices() -> dict[str, list[int]]:
    return {"invoices": [1, 2]}


@app.post("/payments")
async def pay() -> dict[str, str]:
    return {"payment": "done"}


@app.post("/login")
@limit("3/minute;5/hour", per="ip", detail="Too many logins")
async def login() -> dict[str, str]:
    return {"login": "ok"}
