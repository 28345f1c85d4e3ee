"""An API as companies sell it: JWTs, users in a table, plans, streamed tokens, bytes a month, a WebSocket, operators.

`STORE=redis://localhost uvicorn examples.server.saas:app --workers 3`
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import jwt
from fastapi import APIRouter, Body, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import StaticPool
from starlette.requests import HTTPConnection

from ratelimit import (
    Identity,
    IdentityCache,
    Limit,
    Quota,
    RateLimitMiddleware,
    RateLimitSettings,
    limit,
    limiter_of,
)
from ratelimit.asgi import admin_routes, usage_routes
from ratelimit.asgi.identify import ClientAddress, bearer_token

SECRET = os.environ.get("SECRET", "a secret of this example, of 32 bytes")
DATABASE = os.environ.get("DATABASE", "sqlite+aiosqlite://")
engine = create_async_engine(DATABASE, poolclass=StaticPool)
sessions = async_sessionmaker(engine)
client_address = ClientAddress()


class Table(DeclarativeBase): ...


class User(Table):
    __tablename__ = "users"
    id: Mapped[str] = mapped_column(primary_key=True)
    org: Mapped[str]
    plan: Mapped[str]


USERS = [("ann", "acme", "free"), ("bob", "acme", "free"), ("eve", "evil", "pro"), ("ops", "us", "staff")]


async def user_of(connection: HTTPConnection) -> User | None:
    try:
        claims = jwt.decode(bearer_token(connection) or "", SECRET, algorithms=["HS256"])
    except jwt.InvalidTokenError:
        return None
    async with sessions() as session:
        return await session.get(User, claims["sub"])


@IdentityCache(ttl=30, max=10_000)
async def identify(connection: HTTPConnection) -> Identity:
    """Who is unknown is limited by the address alone; the app answers 401."""
    user, ip = await user_of(connection), client_address(connection)
    return Identity(ip=ip) if user is None else Identity(token=user.id, org=user.org, plan=user.plan, ip=ip)


def size(request: HTTPConnection) -> int:
    return int(request.headers.get("content-length", 0))


settings = RateLimitSettings(
    store=os.environ.get("STORE", "memory://"),
    store_timeout=float(os.environ.get("STORE_TIMEOUT", "0.1")),
    limits=[
        Limit(name="user", rate="60/minute", per="token", burst=0.25, plans={"pro": "600/minute", "staff": None}),
        Limit(name="address", rate="1000/minute", per="ip"),
        Limit(name="tokens", rate="1000/minute", per="org", unit="tokens", cost=size, paths="/v1/completions"),
        Limit(name="messages", rate="5/minute", per="token", manual=True),
    ],
    quotas=[Quota(name="upload", limit=5000, period="month", per="org", unit="bytes", cost=size, paths="/v1/files")],
)


async def caller(request: Request) -> Identity:
    identity: Identity = request.state.identity
    if identity.token is None:
        raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
    return identity


async def operator(request: Request) -> str | None:
    user = await user_of(request)
    return user.id if user and user.plan == "staff" else None


agents = APIRouter(prefix="/agents", dependencies=[Depends(caller)])
completions = APIRouter(prefix="/completions", dependencies=[Depends(caller)])
files = APIRouter(prefix="/files", dependencies=[Depends(caller), Depends(limit("20/minute", per="org", name="files"))])


@agents.get("")
async def list_agents() -> list[str]:
    return ["summarizer", "translator"]


@agents.post("/{agent}/runs", status_code=202)
@limit("2/minute;10/hour", per=["org"])
async def run(agent: str) -> dict[str, str]:
    return {"agent": agent}


@completions.post("")
async def complete(prompt: Annotated[str, Body(embed=True)], request: Request) -> StreamingResponse:
    async def words() -> AsyncIterator[str]:
        for word in prompt.split():
            request.state.ratelimit.spend({"tokens": 1})  # What was really used replaces the estimate.
            yield f"{word.upper()} "

    return StreamingResponse(words(), media_type="text/plain")


@files.post("", status_code=201)
async def upload(request: Request) -> dict[str, int]:
    return {"stored": len(await request.body())}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Table.metadata.create_all)
    async with sessions.begin() as session:
        for name, org, plan in USERS:
            await session.merge(User(id=name, org=org, plan=plan))
    try:
        yield
    finally:
        await engine.dispose()


app = FastAPI(title="SaaS", lifespan=lifespan)
for router in (agents, completions, files, usage_routes()):
    app.include_router(router, prefix="/v1")
app.include_router(admin_routes(authorize=operator), prefix="/internal")
app.add_middleware(RateLimitMiddleware, settings=settings, identify=identify)


@app.websocket("/v1/live")
async def live(websocket: WebSocket) -> None:
    await websocket.accept()
    async for message in websocket.iter_text():
        decision = await limiter_of(websocket).message(websocket, "messages")
        await websocket.send_text(message if decision.allowed else f"slow down for {decision.retry_after:.0f} s")
