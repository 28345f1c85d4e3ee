"""A shop with tight limits of every kind, that a test of its OpenAPI document runs under a real uvicorn."""

import os
from typing import Annotated

from fastapi import APIRouter, Body, Depends, FastAPI, HTTPException, Path
from pydantic import BaseModel, Field

from ratelimit import RateLimitMiddleware, RateLimitSettings, exempt, limit

settings = RateLimitSettings.model_validate_json(os.environ.get("RATELIMIT", "{}"))

Number = Annotated[int, Path(ge=1, le=1_000_000)]


class Order(BaseModel):
    """What is ordered, and how often."""

    article: Annotated[str, Field(min_length=1, max_length=20, pattern="^[a-z]+$")]
    amount: Annotated[int, Field(ge=1, le=9)] = 1


orders = APIRouter(prefix="/orders", tags=["orders"])


@orders.post("", status_code=201)
async def create(order: Order) -> Order:
    return order


@orders.get("/{number}", responses={404: {"description": "There is no such order."}})
async def read(number: Number) -> Order:
    if number % 2:
        raise HTTPException(404)
    return Order(article="book")


# Not on the path of `read`: the framework's 405 names the methods of one route alone in `Allow`.
@orders.delete("/{number}/items", status_code=204, dependencies=[Depends(limit("3/minute", per="ip"))])
async def empty(number: Number) -> None: ...


v1 = APIRouter(prefix="/v1")
v1.include_router(orders)
app = FastAPI(title="Shop", version="1", responses={400: {"description": "The body is not readable."}})
app.include_router(v1)


@app.get("/legacy/articles")
@limit("4/minute", per="ip")
async def articles() -> list[str]:
    return ["book"]


@app.put("/batch/articles")
async def replace(names: Annotated[list[str], Body(max_length=3)]) -> list[str]:
    return names


@app.get("/health")
@exempt
async def health() -> str:
    return "ok"


app.add_middleware(RateLimitMiddleware, settings=settings)
