import os
from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from slowapi import Limiter
from slowapi.errors import RateLimitExceeded
from slowapi.middleware import SlowAPIMiddleware
from slowapi.util import get_remote_address

PLANS = {"key-of-ann": "pro"}


def caller(request: Request) -> str:
    return request.headers.get("x-api-key") or get_remote_address(request)


def by_plan(key: str) -> str:
    return "6/minute" if PLANS.get(key) == "pro" else "3/minute"


def number_of_ids(request: Request) -> int:
    return len(request.query_params.getlist("id"))


def too_many_requests(request: Request, exc: RateLimitExceeded) -> JSONResponse:
    body = {
        "error": exc.limit.error_message or "Too many requests",
        "limit": exc.limit.limit.amount,
        "seconds": exc.limit.limit.get_expiry(),
    }
    return JSONResponse(body, status_code=429)


limiter = Limiter(
    key_func=caller,
    key_style="endpoint",  # one counter for a route, not for each URL
    default_limits=["8/minute"],
    headers_enabled=True,
    storage_uri=os.environ.get("STORE", "memory://"),
)
billing = limiter.shared_limit("4/minute", scope="billing")

app = FastAPI()
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, too_many_requests)
app.add_middleware(SlowAPIMiddleware)


@app.get("/health")
@limiter.exempt
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/reports/{report_id}")
async def report(report_id: int) -> dict[str, int]:
    return {"report": report_id}


@app.get("/search")
@limiter.limit(by_plan)
async def search(request: Request, response: Response, q: str) -> dict[str, str]:
    return {"found": q}


@app.get("/items")
@limiter.limit("10/minute", cost=number_of_ids)
async def items(
    request: Request,
    response: Response,
    item_ids: Annotated[list[int], Query(alias="id")],
) -> dict[str, list[int]]:
    return {"items": item_ids}


@app.get("/invoices")
@billing
async def invoices(request: Request, response: Response) -> dict[str, list[int]]:
    return {"invoices": [1, 2]}


@app.post("/payments")
@billing
async def pay(request: Request, response: Response) -> dict[str, str]:
    return {"payment": "done"}


@app.post("/login")
@limiter.limit(
    "3/minute;5/hour",
    key_func=get_remote_address,
    error_message="Too many logins",
)
async def login(request: Request, response: Response) -> dict[str, str]:
    return {"login": "ok"}
