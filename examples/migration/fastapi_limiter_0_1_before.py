import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import (
    Depends,
    FastAPI,
    HTTPException,
    Request,
    Response,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi_limiter import FastAPILimiter
from fastapi_limiter.depends import RateLimiter, WebSocketRateLimiter
from redis.asyncio import Redis


async def caller(connection: Request | WebSocket) -> str:
    key = connection.headers.get("x-api-key")
    return key or (connection.client.host if connection.client else "unknown")


async def all_callers(request: Request) -> str:
    return "all"


async def too_many_requests(request: Request, response: Response, wait_ms: int) -> None:
    raise HTTPException(429, "Slow down", {"Retry-After": str(-(-wait_ms // 1000))})


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with Redis.from_url(os.environ["STORE"]) as redis:
        await FastAPILimiter.init(
            redis,
            identifier=caller,
            http_callback=too_many_requests,
        )
        yield


per_message = WebSocketRateLimiter(times=3, minutes=1)

app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/messages", dependencies=[Depends(RateLimiter(times=5, minutes=1))])
async def messages() -> dict[str, list[int]]:
    return {"messages": [1, 2]}


@app.get(
    "/messages/{message_id}",
    dependencies=[Depends(RateLimiter(times=4, minutes=1))],
)
async def message(message_id: int) -> dict[str, int]:
    return {"message": message_id}


@app.post(
    "/messages",
    dependencies=[
        Depends(RateLimiter(times=3, minutes=1)),
        Depends(RateLimiter(times=5, minutes=1, identifier=all_callers)),
    ],
)
async def send() -> dict[str, str]:
    return {"message": "sent"}


@app.websocket("/chat")
async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            text = await websocket.receive_text()
            try:
                await per_message(websocket)
            except HTTPException:
                await websocket.send_text("slow down")
            else:
                await websocket.send_text(f"you said {text}")
    except WebSocketDisconnect:
        pass
